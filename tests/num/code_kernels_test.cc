#include "num/code_kernels.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cstdlib>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinRel;

TEST_CASE("code kernels agree with a plain loop at every length") {
  for (const std::size_t n : {0UZ, 1UZ, 2UZ, 3UZ, 15UZ, 16UZ, 17UZ, 33UZ, 511UZ, 512UZ, 513UZ, 2000UZ}) {
    INFO(n);
    const std::vector<float> x = random_floats(n, 3);
    for (const AffineParams params : {AffineParams{0.01F, 0}, AffineParams{0.2F, 5}, AffineParams{0.004F, 128}}) {
      const CodeRange codes =
          params.zero_point == 0 ? CodeRange{-127, 127} : CodeRange{0, params.zero_point == 5 ? 15 : 255};
      double error = 0, squares = 0;
      for (const float value : x) {
        const double d = value - dequantize_value(quantize_value(value, params, codes), params);
        error += d * d;
        squares += double{value} * value;
      }
      CHECK_THAT(quantization_error(x, params, codes), WithinRel(error, 1e-4));
      CHECK_THAT(sum_of_squares(x), WithinRel(squares, 1e-5));
    }
    for (const float scale : {0.005F, 0.0078F, 0.02F}) {
      const CodeRange codes = {-127, 127};
      std::int32_t largest = 0;
      for (std::size_t i = 0; i + 1 < n; i += 2) {
        const std::int32_t a = quantize_value(x[i], {scale, 0}, codes), b = quantize_value(x[i + 1], {scale, 0}, codes);
        if ((a > 0) == (b > 0) || a == 0 || b == 0) largest = std::max(largest, std::abs(a + b));
      }
      CHECK(largest_pair(x, scale, codes) == largest);
    }
  }
}

}  // namespace
}  // namespace onnxpress::testing
