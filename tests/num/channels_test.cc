#include "num/channels.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>

namespace onnxpress {
namespace {

std::vector<double> counting(std::size_t n) {
  std::vector<double> values(n);
  std::iota(values.begin(), values.end(), 1.0);
  return values;
}

// The channels of element [r][c] by the definition of grouped convolution, one loop per axis.
void check_layout(const ChannelLayout& layout) {
  const std::vector<double> weight = counting(layout.rows * layout.cols * layout.inner);
  const std::vector<double> by_out = counting(layout.outputs()), by_in = counting(layout.inputs());
  std::vector<double> expected_out = weight, expected_in = weight, expected_sum(layout.outputs(), 0.0);
  const std::size_t rows_per_group = layout.rows / layout.groups;
  for (std::size_t g = 0; g < layout.groups; ++g) {
    for (std::size_t r = 0; r < rows_per_group; ++r) {
      for (std::size_t c = 0; c < layout.cols; ++c) {
        for (std::size_t k = 0; k < layout.inner; ++k) {
          const std::size_t row = g * rows_per_group + r, other = g * layout.cols + c;
          const std::size_t at = (row * layout.cols + c) * layout.inner + k;
          const std::size_t out = layout.rows_are_outputs ? row : other, in = layout.rows_are_outputs ? other : row;
          expected_out[at] *= by_out[out];
          expected_in[at] *= by_in[in];
          expected_sum[out] += weight[at] * by_in[in];
        }
      }
    }
  }
  std::vector<double> scaled = weight;
  scale_outputs(scaled, layout, by_out);
  CHECK(scaled == expected_out);
  scaled = weight;
  scale_inputs(scaled, layout, by_in);
  CHECK(scaled == expected_in);
  CHECK(apply_to_constant(weight, layout, by_in) == expected_sum);
}

TEST_CASE("channel layouts agree with the definition of grouped linear ops") {
  for (const bool rows_are_outputs : {true, false}) {
    check_layout({.rows = 4, .cols = 3, .inner = 1, .groups = 1, .rows_are_outputs = rows_are_outputs});
    check_layout({.rows = 6, .cols = 2, .inner = 9, .groups = 2, .rows_are_outputs = rows_are_outputs});
    check_layout({.rows = 5, .cols = 1, .inner = 4, .groups = 5, .rows_are_outputs = rows_are_outputs});
  }
}

TEST_CASE("doubles survive the way to a tensor and back in every float type") {
  const std::vector<double> values = {0, -1.5, 2, 0.25, 1024, -0.0078125};
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) {
    const auto tensor = from_doubles(values, dtype, {2, 3});
    REQUIRE((tensor && *tensor));
    CHECK((*tensor)->dtype() == dtype);
    CHECK((*tensor)->dims() == Dims{2, 3});
    const auto back = to_doubles((*tensor)->view());
    REQUIRE(back);
    CHECK(*back == values);
  }
}

TEST_CASE("from_doubles refuses what is or becomes infinite") {
  const double inf = std::numeric_limits<double>::infinity();
  const auto fits = [](double value, DType dtype) {
    const auto tensor = from_doubles({value}, dtype, {1});
    REQUIRE(tensor);
    return tensor->has_value();
  };
  CHECK_FALSE(fits(inf, DType::f64));
  CHECK_FALSE(fits(std::nan(""), DType::f32));
  CHECK(fits(65519.0, DType::f16));
  CHECK_FALSE(fits(65520.0, DType::f16));
  CHECK(fits(3.4028234663852886e38, DType::f32));
  CHECK_FALSE(fits(3.4028235677973366e38, DType::f32));
  CHECK(fits(1e300, DType::f64));
  CHECK_FALSE(fits(1e300, DType::bf16));
}

}  // namespace
}  // namespace onnxpress
