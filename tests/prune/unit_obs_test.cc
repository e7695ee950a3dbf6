#include "prune/unit_obs.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "num/linalg.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Approx;
using Doubles = std::vector<double>;

Doubles doubles(std::size_t n, unsigned seed) {
  Doubles values;
  for (const float v : random_floats(n, seed)) values.push_back(static_cast<double>(v));
  return values;
}

// Second moments of random rows whose columns depend on each other.
Doubles moments(std::size_t n, unsigned seed) {
  const std::size_t rows = 3 * n;
  const Doubles base = doubles(rows * n, seed), mix = doubles(n * n, seed + 1);
  Doubles x(rows * n), h(n * n);
  gemm({.m = rows, .n = n, .k = n}, 1, base, mix, 0, x);
  gemm({.m = n, .n = n, .k = rows, .transpose_a = true}, 1.0 / static_cast<double>(rows), x, x, 0, h);
  return h;
}

Doubles damped(Doubles h, std::size_t n, double damping) {
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) mean += h[i * n + i] / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) h[i * n + i] += damping * mean;
  return h;
}

// min over V with the columns `gone` at zero of tr((W - V) H (W - V)^T), by solving for the columns that stay.
double least_error(const Doubles& w, std::size_t outputs, const Doubles& h, std::size_t n, const Indices& gone) {
  Indices stay;
  for (std::uint32_t i = 0; i < n; ++i)
    if (std::find(gone.begin(), gone.end(), i) == gone.end()) stay.push_back(i);
  const std::size_t k = stay.size();
  Doubles hss(k * k), rhs(outputs * k);
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < k; ++j) hss[i * k + j] = h[stay[i] * n + stay[j]];
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t j = 0; j < k; ++j)
      for (std::size_t c = 0; c < n; ++c) rhs[o * k + j] += w[o * n + c] * h[c * n + stay[j]];
  if (k > 0) {
    REQUIRE(cholesky(hss, k));
    solve_cholesky(hss, k, rhs);
  }
  Doubles left = w;
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t j = 0; j < k; ++j) left[o * n + stay[j]] -= rhs[o * k + j];
  double error = 0;
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) error += left[o * n + i] * h[i * n + j] * left[o * n + j];
  return error;
}

}  // namespace

TEST_CASE("Costs of channel-OBS add up to the least error of the refitted layer") {
  const std::size_t units = 5, width = 2, n = units * width, outputs = 3;
  const Doubles h = damped(moments(n, 3), n, 0.01), w = doubles(outputs * n, 9);
  ObsReader reader{.outputs = outputs, .columns = n, .weight = w};
  reader.inverse = damped_inverse(moments(n, 3), n, 0.01);
  for (std::uint32_t u = 0; u < units; ++u) reader.of_unit.push_back({2 * u, 2 * u + 1});
  const Doubles costs = obs_costs({reader}, units, 1);
  // The first to go is the one whose removal alone costs least.
  std::size_t cheapest = 0;
  Doubles alone;
  for (std::uint32_t u = 0; u < units; ++u) alone.push_back(least_error(w, outputs, h, n, {2 * u, 2 * u + 1}));
  for (std::size_t u = 0; u < units; ++u)
    if (alone[u] < alone[cheapest]) cheapest = u;
  for (std::size_t u = 0; u < units; ++u) CHECK(costs[u] >= costs[cheapest]);
  CHECK(costs[cheapest] == Approx(alone[cheapest]));
  // And from there on, what each further one costs on top.
  for (std::size_t u = 0; u < units; ++u) {
    if (u == cheapest) continue;
    const auto c = static_cast<std::uint32_t>(2 * cheapest), d = static_cast<std::uint32_t>(2 * u);
    const double both = least_error(w, outputs, h, n, {c, c + 1, d, d + 1});
    CHECK(costs[u] == Approx(std::max(alone[cheapest], both - alone[cheapest])).epsilon(1e-6));
  }
}

TEST_CASE("A unit that another one repeats costs nothing, and then the other one does") {
  // x1 = x0: H is singular but for the damping.
  const Doubles h = {1, 1, 0, 1, 1, 0, 0, 0, 1};
  ObsReader reader{.outputs = 1, .columns = 3, .weight = {1, 1, 0.5}, .of_unit = {{0}, {1}, {2}}};
  reader.inverse = damped_inverse(h, 3, 1e-6);
  const Doubles costs = obs_costs({reader}, 3, 3);
  CHECK(costs[0] == Approx(0).margin(1e-4));
  CHECK(costs[2] == Approx(0.25).epsilon(1e-3));
  CHECK(costs[1] == Approx(4).epsilon(1e-3));
}

TEST_CASE("Several readers add up, each relative to the power of its output") {
  const Doubles eye = {1, 0, 0, 1};
  const ObsReader a{.outputs = 1, .columns = 2, .inverse = eye, .weight = {1, 2}, .of_unit = {{0}, {1}}, .power = 1};
  const ObsReader b{
      .outputs = 1, .columns = 2, .inverse = eye, .weight = {30, 10}, .of_unit = {{0}, {1}}, .power = 100};
  const ObsReader idle{.outputs = 1, .columns = 2, .inverse = eye, .weight = {9, 0}, .of_unit = {{0}, {1}}, .power = 0};
  const Doubles costs = obs_costs({a, b, idle}, 2, 0);
  CHECK(costs[0] == Approx(1 + 9));
  CHECK(costs[1] == Approx(4 + 1));
}

TEST_CASE("Moments without an inverse") {
  CHECK(damped_inverse({NAN}, 1, 0.01).empty());
  CHECK(damped_inverse({0, 0, 0, 0}, 2, 0.01) == Doubles{1, 0, 0, 1});
}

}  // namespace onnxpress::testing
