#include "num/updates.h"

#include <catch2/catch_test_macros.hpp>
#include <vector>

namespace onnxpress::testing {

TEST_CASE("add_scaled adds a multiple of a vector") {
  const std::vector<double> x = {1, 2, 3};
  std::vector<double> y = {10, 20, 30};
  add_scaled(-2, x, y);
  CHECK(y == std::vector<double>{8, 16, 24});
  add_scaled(1, {}, {});
}

TEST_CASE("add_square writes the upper triangle of a part of a matrix") {
  const std::vector<double> x = {1, 2};
  std::vector<double> a(9, 1.0);
  add_square(3, x, a, 3);
  CHECK(a == std::vector<double>{4, 7, 1, 1, 13, 1, 1, 1, 1});
}

}  // namespace onnxpress::testing
