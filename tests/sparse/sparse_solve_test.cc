#include "sparse/sparse_solve.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Approx;
using Doubles = std::vector<double>;

Doubles noise(std::size_t count, unsigned seed) {
  const auto floats = random_floats(count, seed);
  return {floats.begin(), floats.end()};
}

// sum x x' of inputs that resemble each other.
Doubles gram_of(std::size_t k, unsigned seed) {
  constexpr std::size_t kRows = 40;
  Doubles x = noise(kRows * k, seed), gram(k * k);
  for (std::size_t r = 0; r < kRows; ++r)
    for (std::size_t i = 1; i < k; ++i) x[r * k + i] += 0.7 * x[r * k + i - 1];
  for (std::size_t r = 0; r < kRows; ++r)
    for (std::size_t i = 0; i < k; ++i)
      for (std::size_t j = 0; j < k; ++j) gram[i * k + j] += x[r * k + i] * x[r * k + j];
  return gram;
}

// (w - c)' (gram + ridge mean I) (w - c)
double quadratic(Doubles gram, std::span<const double> w, std::span<const double> c, double ridge) {
  const std::size_t k = w.size();
  double mean = 0, sum = 0;
  for (std::size_t i = 0; i < k; ++i) mean += gram[i * k + i] / static_cast<double>(k);
  for (std::size_t i = 0; i < k; ++i) gram[i * k + i] += ridge * mean;
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < k; ++j) sum += (w[i] - c[i]) * gram[i * k + j] * (w[j] - c[j]);
  return sum;
}

struct Case {
  std::size_t k;
  double ridge = 0.02;
  Doubles gram, centre, weight;
  SparseSolver solver;
  explicit Case(std::size_t length, unsigned seed = 1)
      : k(length),
        gram(gram_of(length, seed)),
        centre(noise(length, seed + 50)),
        weight(length, 1.0),
        solver(SparseSolver::make(gram, length, 0.02).value()) {
    REQUIRE(solver.invert());
  }
  double loss(const std::vector<bool>& keep) const {
    return quadratic(gram, solver.refit(centre, keep), centre, ridge);
  }
};

}  // namespace

TEST_CASE("the centre solves the ridge regression") {
  const std::size_t k = 5;
  const Doubles gram = gram_of(k, 3), weight = noise(k, 4), target = noise(k, 5);
  const auto solver = SparseSolver::make(gram, k, 0.1);
  REQUIRE(solver);
  Doubles centre = target;
  solver->centre(centre, weight);
  double mean = 0;
  for (std::size_t i = 0; i < k; ++i) mean += gram[i * k + i] / k;
  for (std::size_t i = 0; i < k; ++i) {
    double left = 0.1 * mean * centre[i];
    for (std::size_t j = 0; j < k; ++j) left += gram[i * k + j] * centre[j];
    CHECK(left == Approx(target[i] + 0.1 * mean * weight[i]));
  }
}

TEST_CASE("refit finds the least error among weights with these zeros") {
  const Case c(6);
  const std::vector<bool> keep = {true, false, true, true, false, true};
  const Doubles best = c.solver.refit(c.centre, keep);
  const double least = quadratic(c.gram, best, c.centre, c.ridge);
  for (std::size_t i = 0; i < 6; ++i) {
    if (!keep[i]) CHECK(best[i] == 0);
    for (const double step : {-1e-3, 1e-3}) {
      Doubles other = best;
      other[i] += step;
      if (keep[i]) CHECK(quadratic(c.gram, other, c.centre, c.ridge) > least);
    }
  }
  CHECK(c.solver.refit(c.centre, std::vector<bool>(6, false)) == Doubles(6, 0.0));
}

TEST_CASE("eliminate always takes the weight whose loss is least, and tells that loss") {
  for (unsigned seed = 1; seed < 5; ++seed) {
    const Case c(7, seed);
    const RemovalOrder got = c.solver.eliminate(c.centre, c.weight, {});
    REQUIRE(got.order.size() == 7);
    std::vector<bool> keep(7, true);
    double before = 0;
    for (std::size_t step = 0; step < 7; ++step) {
      double least = INFINITY;
      for (std::size_t p = 0; p < 7; ++p) {
        if (!keep[p]) continue;
        keep[p] = false;
        least = std::min(least, c.loss(keep));
        keep[p] = true;
      }
      REQUIRE(keep[got.order[step]]);
      keep[got.order[step]] = false;
      CHECK(c.loss(keep) == Approx(least));
      CHECK(got.loss[step] == Approx(least - before).margin(1e-9));
      before = least;
    }
  }
}

TEST_CASE("eliminate takes zeros first and stops when the pattern holds") {
  Case c(10);
  c.weight[7] = c.weight[2] = 0;
  const RemovalOrder zeros = c.solver.eliminate(c.centre, c.weight, {});
  CHECK(std::min(zeros.order[0], zeros.order[1]) == 2);
  CHECK(std::max(zeros.order[0], zeros.order[1]) == 7);
  CHECK(zeros.loss[0] == 0);
  CHECK(zeros.loss[1] == 0);
  const RemovalOrder got = c.solver.eliminate(c.centre, c.weight, {.keep = 2, .group = 4});
  std::vector<int> gone(3);
  for (const std::uint32_t column : got.order) ++gone[column / 4];
  CHECK(gone == std::vector<int>{2, 2, 1});  // the last group has two
}

TEST_CASE("sweep zeroes the share it is told, and its losses add up to what it costs") {
  constexpr std::size_t kLength = 12, kRows = 5;
  const Case c(kLength);
  const Doubles centre = noise(kRows * kLength, 8);
  Doubles weight(kRows * kLength, 1.0);
  weight[3] = weight[17] = 0;
  for (const std::size_t block : {1UZ, 5UZ, 128UZ}) {
    for (const double share : {0.0, 0.3, 0.5, 1.0}) {
      Doubles rows = centre;
      const double loss = c.solver.sweep(rows, weight, share, {}, block, 1);
      double expected = 0;
      for (std::size_t r = 0; r < kRows; ++r)
        expected += quadratic(c.gram, std::span(rows).subspan(r * kLength, kLength),
                              std::span(centre).subspan(r * kLength, kLength), c.ridge);
      CHECK(loss == Approx(expected).margin(1e-9));
      const auto zeros = static_cast<std::size_t>(std::ranges::count(rows, 0.0));
      const auto wanted = static_cast<std::size_t>(share * kRows * kLength);
      CHECK(zeros >= wanted);
      CHECK(zeros <= wanted + 2);
      CHECK(rows[3] == 0);
      CHECK(rows[17] == 0);
      Doubles parallel = centre;
      CHECK(c.solver.sweep(parallel, weight, share, {}, block, 8) == loss);
      CHECK(parallel == rows);
    }
  }
}

TEST_CASE("sweep keeps to a pattern") {
  constexpr std::size_t kLength = 10;
  const Case c(kLength);
  Doubles rows = noise(3 * kLength, 8);
  const Doubles centre = rows, weight(3 * kLength, 1.0);
  const double loss = c.solver.sweep(rows, weight, 0, {.keep = 1, .group = 4}, 3, 1);
  double expected = 0;
  for (std::size_t r = 0; r < 3; ++r) {
    const auto row = std::span(rows).subspan(r * kLength, kLength);
    CHECK(std::ranges::count(row.first(4), 0.0) == 3);
    CHECK(std::ranges::count(row.subspan(4, 4), 0.0) == 3);
    CHECK(std::ranges::count(row.subspan(8), 0.0) == 1);
    expected += quadratic(c.gram, row, std::span(centre).subspan(r * kLength, kLength), c.ridge);
  }
  CHECK(loss == Approx(expected));
}

TEST_CASE("inputs that are always zero and singular sums are no obstacle") {
  for (const double value : {0.0, 1.0}) {
    auto solver = SparseSolver::make(Doubles(16, value), 4, 0);
    REQUIRE(solver);
    REQUIRE(solver->invert());
    Doubles centre = {1, 2, 3, 4};
    solver->centre(centre, Doubles{1, 2, 3, 4});
    for (const double c : centre) CHECK(std::isfinite(c));
    const RemovalOrder order = solver->eliminate(centre, Doubles{1, 2, 3, 4}, {});
    CHECK(order.order.size() == 4);
    for (const double c : solver->refit(centre, {true, false, true, true})) CHECK(std::isfinite(c));
  }
}

}  // namespace onnxpress::testing
