#include "depend/axes.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

using namespace onnxpress;
using testing::parse;

TEST_CASE("Constants are tensors of their readers, values are one tensor for all") {
  const Model model = parse(HEAD
                            "g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> { a = Add(x, c)  b = Mul(a, c)"
                            "  y = Add(a, b) }");
  const auto& nodes = model.main().nodes();
  CHECK(input_ref(nodes[0], 1) == TensorRef{"c", "a", 1});
  CHECK(input_ref(nodes[1], 1) == TensorRef{"c", "b", 1});
  CHECK(input_ref(nodes[1], 0) == input_ref(nodes[2], 0));
  CHECK_FALSE(input_ref(nodes[1], 0).is_constant());
  CHECK(input_ref(nodes[1], 5).value.empty());
}

TEST_CASE("What is kept after two removals is told in indices of the original") {
  const TensorRef w{"w", "y", 1}, x{"x", {}, 0};
  KeptAxes first, second;
  first.set(w, 0, {0, 2, 4, 6});
  second.set(w, 0, {1, 3});
  second.set(x, 1, {0});
  const KeptAxes both = first.then(second);
  CHECK(*both.find(w, 0) == Indices{2, 6});
  CHECK(*both.find(x, 1) == Indices{0});
  CHECK(both.find(w, 1) == nullptr);
  CHECK(both.touches(w));
  CHECK_FALSE(first.touches(x));
  CHECK(both.dims_of(w, {8, 3}) == Dims{2, 3});
}
