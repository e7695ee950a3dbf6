#include "quant/rounding.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "support/models.h"

namespace onnxpress {
namespace {

struct Problem {
  std::size_t k = 0;
  std::vector<double> gram, weight, target;
};

// Inputs of k strongly correlated numbers; the target is a float weight's output plus what inputs differ by.
Problem make_problem(std::size_t k, std::size_t rows, unsigned seed, double deviation = 0) {
  Problem p{k, std::vector<double>(k * k), {}, std::vector<double>(k)};
  const auto values = testing::random_floats(rows * (k + 1) + k, seed);
  for (std::size_t i = 0; i < k; ++i) p.weight.push_back(values[rows * (k + 1) + i]);
  for (std::size_t r = 0; r < rows; ++r) {
    std::vector<double> x(k);
    for (std::size_t i = 0; i < k; ++i) x[i] = values[r * (k + 1) + i] + 2 * values[r * (k + 1) + k];
    double y = deviation * values[r * (k + 1)];
    for (std::size_t i = 0; i < k; ++i) y += p.weight[i] * x[i];
    for (std::size_t i = 0; i < k; ++i) {
      p.target[i] += y * x[i];
      for (std::size_t j = 0; j < k; ++j) p.gram[i * k + j] += x[i] * x[j];
    }
  }
  return p;
}

// f without its constant, ridge included.
double objective(const Problem& p, double damping, double scale, const std::vector<std::int32_t>& codes) {
  double sum = 0;
  for (std::size_t i = 0; i < p.k; ++i) {
    const double xi = scale * codes[i], pull = damping * p.gram[i * p.k + i];
    sum -= 2 * xi * (p.target[i] + pull * p.weight[i]);
    sum += pull * xi * xi;
    for (std::size_t j = 0; j < p.k; ++j) sum += xi * scale * codes[j] * p.gram[i * p.k + j];
  }
  return sum;
}

std::vector<std::int32_t> nearest(const Problem& p, double scale, CodeRange range) {
  std::vector<std::int32_t> codes;
  for (const double w : p.weight)
    codes.push_back(
        static_cast<std::int32_t>(std::clamp(std::nearbyint(w / scale), double(range.min), double(range.max))));
  return codes;
}

// The best of all codes.
double exhaustive(const Problem& p, double damping, double scale, CodeRange range) {
  std::vector<std::int32_t> codes(p.k, range.min);
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(std::size_t)> visit = [&](std::size_t at) {
    if (at == p.k) {
      best = std::min(best, objective(p, damping, scale, codes));
      return;
    }
    for (codes[at] = range.min; codes[at] <= range.max; ++codes[at]) visit(at + 1);
  };
  visit(0);
  return best;
}

RoundedChannel solve(const Problem& p, double damping, float scale, const RoundingLimits& limits,
                     RoundingEffort effort = {}) {
  const auto solver = RoundingSolver::make(p.gram, p.k, damping);
  REQUIRE(solver);
  return solver->solve(p.weight, p.target, scale, limits, effort);
}

}  // namespace

TEST_CASE("rounding against every combination of codes") {
  constexpr CodeRange range{-4, 4};
  constexpr float scale = 0.25F;
  std::size_t optimal = 0;
  double gap = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Problem p = make_problem(5, 30, seed, seed % 2 == 0 ? 0 : 0.5);
    const RoundedChannel found = solve(p, 0.01, scale, {.codes = range});
    const double best = exhaustive(p, 0.01, scale, range), first = objective(p, 0.01, scale, nearest(p, scale, range));
    INFO("seed " << seed);
    CHECK(std::abs(objective(p, 0.01, scale, found.codes) - found.objective) < 1e-6);
    CHECK(found.objective <= first + 1e-9);
    CHECK(found.objective >= best - 1e-6);
    optimal += found.objective < best + 1e-6;
    if (first > best + 1e-6) gap = std::max(gap, (found.objective - best) / (first - best));
  }
  CHECK(optimal >= 36);
  CHECK(gap < 0.2);
}

TEST_CASE("a scale of its own can only help, and keeps above the least one") {
  for (unsigned seed = 0; seed < 10; ++seed) {
    const Problem p = make_problem(9, 60, seed);
    const RoundedChannel fixed = solve(p, 0.01, 0.13F, {.codes = {-7, 7}});
    const RoundedChannel free = solve(p, 0.01, 0.13F, {.codes = {-7, 7}}, {.scales = true});
    CHECK(free.objective <= fixed.objective);
    CHECK(std::abs(objective(p, 0.01, free.scale, free.codes) - free.objective) < 1e-6);
    const RoundedChannel bound = solve(p, 0.01, 0.13F, {.codes = {-7, 7}, .least_scale = 0.129F}, {.scales = true});
    CHECK(bound.scale >= 0.129F);
  }
}

TEST_CASE("codes stay within range, move and pair limits") {
  for (unsigned seed = 0; seed < 10; ++seed) {
    const Problem p = make_problem(8, 20, seed, 2);
    const auto start = nearest(p, 0.01, {-127, 127});
    for (const std::int64_t move : {1, 3}) {
      const RoundedChannel found = solve(p, 0.001, 0.01F, {.max_move = move});
      for (std::size_t i = 0; i < p.k; ++i) CHECK(std::abs(found.codes[i] - start[i]) <= move);
    }
    const std::vector<std::size_t> pairs = {1, 0, 3, 2, 5, 4, 8, 8};
    const RoundedChannel clear = solve(p, 0.001, 0.007F, {.pairs = pairs}, {.scales = seed % 2 == 0});
    for (std::size_t i = 0; i < p.k; ++i) {
      CHECK(std::abs(clear.codes[i]) <= 127);
      if (pairs[i] < p.k && (clear.codes[i] < 0) == (clear.codes[pairs[i]] < 0))
        CHECK(std::abs(clear.codes[i] + clear.codes[pairs[i]]) <= 128);
    }
  }
}

TEST_CASE("without information the nearest code is taken") {
  Problem p = make_problem(4, 10, 1);
  for (double& value : p.gram) value = 0;
  for (double& value : p.target) value = 0;
  CHECK(solve(p, 0.1, 0.1F, {}).codes == nearest(p, 0.1, {-127, 127}));
  // One dead column among live ones.
  Problem dead = make_problem(4, 40, 2);
  for (std::size_t i = 0; i < 4; ++i) dead.gram[i * 4 + 2] = dead.gram[2 * 4 + i] = 0;
  dead.target[2] = 0;
  CHECK(solve(dead, 0.01, 0.1F, {}).codes[2] == nearest(dead, 0.1, {-127, 127})[2]);
  // Strong damping.
  const Problem tied = make_problem(6, 40, 3);
  CHECK(solve(tied, 1e6, 0.1F, {}).codes == nearest(tied, 0.1, {-127, 127}));
}

TEST_CASE("numbers rounded to bits of a unit") {
  CHECK(round_to_bits(1.26, 1, 2) == 1.25);
  CHECK(round_to_bits(-1.26, 1.9, 2) == -1.25);
  CHECK(round_to_bits(100.3, 64, 4) == 100);
  CHECK(round_to_bits(0.1, 0, 4) == 0.1);
}

TEST_CASE("columns that are the same, fewer rows than columns") {
  Problem p = make_problem(12, 3, 4);
  const RoundedChannel found = solve(p, 0, 0.02F, {});
  CHECK(std::isfinite(found.objective));
  CHECK(found.objective <= objective(p, 0, 0.02, nearest(p, 0.02, {-127, 127})) + 1e-6);
}

}  // namespace onnxpress
