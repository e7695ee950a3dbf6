#include "quant/smooth.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

// x [n, 4] with a large channel 2, W [4, 3].
SmoothProblem problem(double large) {
  SmoothProblem made;
  made.rows = random_floats(40 * 4, 1);
  for (std::size_t k = 2; k < made.rows.size(); k += 4) made.rows[k] *= static_cast<float>(large);
  made.min.assign(4, 0);
  made.max.assign(4, 0);
  for (std::size_t k = 0; k < made.rows.size(); ++k) {
    made.min[k % 4] = std::min(made.min[k % 4], made.rows[k]);
    made.max[k % 4] = std::max(made.max[k % 4], made.rows[k]);
  }
  made.add_weight(random_floats(12, 2), {.rows = 4, .cols = 3, .rows_are_outputs = false});
  return made;
}

TEST_CASE("smoothing factors follow the formula up to a common scale") {
  const SmoothProblem made = problem(100);
  const std::vector<float> w = random_floats(12, 2);
  const std::vector<double> s = made.factors(0.5);
  std::vector<double> expected(4);
  double mean = 1;
  for (std::size_t j = 0; j < 4; ++j) {
    const double x = std::max(-static_cast<double>(made.min[j]), static_cast<double>(made.max[j]));
    double top = 0;
    for (std::size_t o = 0; o < 3; ++o) top = std::max(top, std::abs(static_cast<double>(w[j * 3 + o])));
    expected[j] = std::sqrt(x / top);
    mean *= std::pow(expected[j], 0.25);
  }
  for (std::size_t j = 0; j < 4; ++j) CHECK_THAT(s[j], Catch::Matchers::WithinRel(expected[j] / mean, 1e-12));
}

TEST_CASE("smoothing factors leave dead channels alone") {
  SmoothProblem made = problem(1);
  made.min[1] = made.max[1] = 0;
  CHECK(made.factors(0.7)[1] == 1);
}

TEST_CASE("smoothing lowers the error of a product with an outlier channel, and of no other") {
  const std::vector<double> ones(4, 1.0);
  const SmoothProblem uneven = problem(100), even = problem(1);
  CHECK(uneven.error(uneven.factors(0.5)) < 0.5 * uneven.error(ones));
  CHECK(even.error(ones) < 1e-3);
  CHECK(even.error(ones) > 0);
}

TEST_CASE("the layout of the weight makes no difference to the error") {
  SmoothProblem a = problem(10), b = problem(10);
  const std::vector<float> w = random_floats(20, 5);
  std::vector<float> transposed(20);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t o = 0; o < 5; ++o) transposed[o * 4 + i] = w[i * 5 + o];
  a.add_weight(w, {.rows = 4, .cols = 5, .rows_are_outputs = false});
  b.add_weight(transposed, {.rows = 5, .cols = 4, .rows_are_outputs = true});
  CHECK(a.error(a.factors(0.5)) == b.error(b.factors(0.5)));
}

}  // namespace
}  // namespace onnxpress::testing
