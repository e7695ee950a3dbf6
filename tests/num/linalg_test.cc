#include "num/linalg.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <thread>

#include "support/models.h"

namespace onnxpress {
namespace {

std::vector<double> random_doubles(std::size_t count, unsigned seed) {
  const std::vector<float> values = testing::random_floats(count, seed);
  return {values.begin(), values.end()};
}

// The oracle: three loops.
std::vector<double> multiply(const GemmShape& s, std::span<const double> a, std::span<const double> b) {
  std::vector<double> c(s.m * s.n);
  for (std::size_t i = 0; i < s.m; ++i)
    for (std::size_t j = 0; j < s.n; ++j)
      for (std::size_t p = 0; p < s.k; ++p)
        c[i * s.n + j] += a[s.transpose_a ? p * s.m + i : i * s.k + p] * b[s.transpose_b ? j * s.k + p : p * s.n + j];
  return c;
}

double max_difference(std::span<const double> a, std::span<const double> b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

double squares(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return sum;
}

Svd svd_of(std::span<const double> a, std::size_t rows, std::size_t cols) {
  auto svd = thin_svd(a, rows, cols);
  INFO((svd ? "" : svd.error().text()));
  REQUIRE(svd);
  return std::move(*svd);
}

void require_identity(std::span<const double> gram, std::size_t k) {
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < k; ++j) REQUIRE(std::abs(gram[i * k + j] - (i == j ? 1.0 : 0.0)) < 1e-12);
}

}  // namespace

TEST_CASE("gemm equals three loops in every layout") {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const GemmShape shape{5, 4, 3, ta, tb};
      const auto a = random_doubles(15, 1), b = random_doubles(12, 2);
      std::vector<double> c(20, std::numeric_limits<double>::quiet_NaN());
      gemm(shape, 1, a, b, 0, c);  // beta = 0 does not read c
      const std::vector<double> expected = multiply(shape, a, b);
      CHECK(max_difference(c, expected) < 1e-14);
      gemm(shape, 2, a, b, -1, c);
      CHECK(max_difference(c, expected) < 1e-14);
    }
}

TEST_CASE("gemm with an empty side") {
  std::vector<double> c(4, 3.0);
  gemm({2, 2, 0}, 1, {}, {}, 0.5, c);
  CHECK(c == std::vector<double>(4, 1.5));
  gemm({0, 2, 2}, 1, {}, std::vector<double>(4, 1.0), 0, {});
}

TEST_CASE("The SVD multiplies back, is orthonormal, sorted and signed") {
  for (const auto& [rows, cols] :
       {std::pair<std::size_t, std::size_t>{1, 1}, {1, 7}, {7, 1}, {6, 6}, {30, 11}, {11, 30}, {90, 4}}) {
    INFO(rows << "x" << cols);
    const std::size_t k = std::min(rows, cols);
    const auto a = random_doubles(rows * cols, static_cast<unsigned>(rows * 100 + cols));
    const Svd svd = svd_of(a, rows, cols);
    REQUIRE(svd.s.size() == k);
    CHECK(std::is_sorted(svd.s.rbegin(), svd.s.rend()));
    CHECK(svd.s.back() >= 0);
    require_identity(multiply({k, k, rows, true, false}, svd.u, svd.u), k);
    require_identity(multiply({k, k, cols, false, true}, svd.vt, svd.vt), k);
    std::vector<double> scaled = svd.u;
    for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] *= svd.s[i % k];
    CHECK(max_difference(multiply({rows, cols, k}, scaled, svd.vt), a) < 1e-12);
    for (std::size_t j = 0; j < k; ++j) {
      double largest = 0;
      for (std::size_t i = 0; i < rows; ++i)
        if (std::abs(svd.u[i * k + j]) > std::abs(largest)) largest = svd.u[i * k + j];
      CHECK(largest > 0);
    }
  }
}

TEST_CASE("Known singular values") {
  const Svd svd = svd_of(std::vector<double>{0, 0, -3, 0, 2, 0}, 2, 3);
  CHECK(max_difference(svd.s, std::vector<double>{3, 2}) < 1e-15);
  CHECK(max_difference(svd.u, std::vector<double>{1, 0, 0, 1}) < 1e-15);
  CHECK(max_difference(svd.vt, std::vector<double>{0, 0, -1, 0, 1, 0}) < 1e-15);
}

TEST_CASE("The SVD refuses what has no answer") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const double bad : {nan, inf, -inf}) {
    const auto svd = thin_svd(std::vector<double>{1, 2, bad, 4}, 2, 2);
    REQUIRE_FALSE(svd);
    CHECK(svd.error().code == Code::bad_input);
  }
  const auto empty = thin_svd({}, 0, 3);
  REQUIRE_FALSE(empty);
  CHECK(empty.error().code == Code::resource);
}

TEST_CASE("The same matrix gives the same bits on any thread") {
  const auto a = random_doubles(150 * 120, 5);
  const Svd here = svd_of(a, 150, 120);
  std::vector<Result<Svd>> there(4, thin_svd(std::vector<double>{1}, 1, 1));
  {
    std::vector<std::jthread> threads;
    for (auto& slot : there) threads.emplace_back([&] { slot = thin_svd(a, 150, 120); });
  }
  for (const auto& svd : there) {
    REQUIRE(svd);
    CHECK(svd->u == here.u);
    CHECK(svd->s == here.s);
    CHECK(svd->vt == here.vt);
  }
}

TEST_CASE("rank_for_energy is the smallest rank that keeps the energy") {
  const std::vector<double> s = {4, 2, 1, 0.5, 0};
  for (const double energy : {0.0, 0.1, 0.5, 0.7, 0.75, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0}) {
    std::size_t expected = 1;
    while (squares(std::span(s).first(expected)) < energy * squares(s)) ++expected;
    INFO("energy " << energy);
    CHECK(rank_for_energy(s, energy) == expected);
    CHECK(energy_of_rank(s, expected) >= energy);
  }
  CHECK(rank_for_energy(s, 1) == 4);  // only exact zeros go
  CHECK(rank_for_energy(std::vector<double>{0, 0}, 0.98) == 1);
  CHECK(energy_of_rank(std::vector<double>{0, 0}, 1) == 1);
  CHECK(energy_of_rank(s, 5) == 1);
}

TEST_CASE("low_rank loses exactly the dropped singular values") {
  const std::size_t rows = 12, cols = 9;
  const auto a = random_doubles(rows * cols, 8);
  const Svd svd = svd_of(a, rows, cols);
  for (std::size_t rank = 1; rank <= cols; ++rank) {
    const LowRank factors = low_rank(svd, rank);
    std::vector<double> error = multiply({rows, cols, rank}, factors.left, factors.right);
    for (std::size_t i = 0; i < error.size(); ++i) error[i] -= a[i];
    CHECK(std::abs(squares(error) - squares(std::span(svd.s).subspan(rank))) < 1e-12);
    // Both factors carry the same share: their Gram matrices are diag(s).
    const auto left = multiply({rank, rank, rows, true, false}, factors.left, factors.left);
    const auto right = multiply({rank, rank, cols, false, true}, factors.right, factors.right);
    CHECK(max_difference(left, right) < 1e-12);
    CHECK(std::abs(left[0] - svd.s[0]) < 1e-12);
  }
}

TEST_CASE("The memory estimate covers the result") {
  CHECK(thin_svd_bytes(100, 50) >= 8 * (100 * 50 + 100 * 50 + 50 * 50));
}

}  // namespace onnxpress

namespace onnxpress {

TEST_CASE("products of rows add up in strided matrices") {
  // Rows of 5 numbers, of which columns 1..3 and 2..3 count.
  const auto a = random_doubles(20, 3);
  std::vector<double> c(6, 1), gram(9, 1);
  add_products({4, 3, 5, 2, 5}, std::span(a).subspan(1), std::span(a).subspan(2), c);
  add_gram(4, 3, 5, std::span(a).subspan(1), gram);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      double sum = 1;
      for (std::size_t r = 0; r < 4; ++r) sum += a[r * 5 + 1 + i] * a[r * 5 + 1 + j];
      CHECK(std::abs(gram[i * 3 + j] - (i <= j ? sum : 1)) < 1e-13);
      if (j > 0) CHECK(std::abs(c[i * 2 + j - 1] - sum) < 1e-13);
    }
  add_products({0, 3, 5, 2, 5}, {}, {}, c);
  add_gram(0, 3, 5, {}, gram);
}

TEST_CASE("The Cholesky factor multiplies back and solves") {
  constexpr std::size_t n = 6;
  const auto rows = random_doubles(60, 5);
  std::vector<double> a(n * n);
  gemm({n, n, 10, true, false}, 1, rows, rows, 0, a);
  std::vector<double> r = a;
  REQUIRE(cholesky(r, n));
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i; j < n; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k <= i; ++k) sum += r[k * n + i] * r[k * n + j];
      CHECK(std::abs(sum - a[i * n + j]) < 1e-12);
    }
  const auto wanted = random_doubles(2 * n, 6);
  std::vector<double> x(2 * n);
  gemm({2, n, n}, 1, wanted, a, 0, x);
  solve_cholesky(r, n, x);
  CHECK(max_difference(x, wanted) < 1e-9);
  std::vector<double> indefinite = {1, 2, 2, 1};
  CHECK_FALSE(cholesky(indefinite, 2));
}

}  // namespace onnxpress
