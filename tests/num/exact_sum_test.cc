#include "num/exact_sum.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace onnxpress::testing {
namespace {

ExactSum sum_of(const std::vector<float>& values) {
  ExactSum sum;
  for (const float value : values) sum.add(value);
  return sum;
}

std::vector<float> wild(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> mantissa(-2, 2);
  std::uniform_int_distribution<int> exponent(-149, 126);
  std::vector<float> out(count);
  for (float& value : out) value = std::ldexp(mantissa(random), exponent(random));
  return out;
}

}  // namespace

TEST_CASE("sums that doubles lose are exact") {
  CHECK(sum_of({}).value() == 0);
  CHECK(sum_of({1e30F, 1, -1e30F}).value() == 1);
  CHECK(sum_of({-1e38F, 1e-45F, 1e38F}).value() == std::numeric_limits<float>::denorm_min());
  CHECK(sum_of({-1.5F, -2.25F}).value() == -3.75);
  CHECK(sum_of({3.0e38F, 3.0e38F, 3.0e38F}).value() == 3 * static_cast<double>(3.0e38F));
  const std::vector<float> small = {0.1F, 0.2F, 0.3F, -0.05F};
  double expected = 0;
  for (const float value : small) expected += static_cast<double>(value);
  CHECK(sum_of(small).value() == expected);
}

TEST_CASE("order and grouping of a sum do not matter") {
  auto values = wild(3000, 1);
  const ExactSum expected = sum_of(values);
  ExactSum merged;
  for (std::size_t at = 0; at < values.size(); at += 97)
    merged.merge(sum_of({values.begin() + static_cast<std::ptrdiff_t>(at),
                         values.begin() + static_cast<std::ptrdiff_t>(std::min(at + 97, values.size()))}));
  CHECK(merged == expected);
  std::ranges::sort(values);
  CHECK(sum_of(values) == expected);
  auto both = values;
  for (const float value : values) both.push_back(-value);
  CHECK(sum_of(both).value() == 0);
}

TEST_CASE("digits bring a sum back") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const ExactSum sum = sum_of(wild(50, seed));
    CHECK(ExactSum::from_digits(sum.digits()) == sum);
    CHECK(ExactSum::from_digits(sum.digits()).value() == sum.value());
  }
}

}  // namespace onnxpress::testing
