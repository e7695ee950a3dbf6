#include "ir/edit.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

const auto any = [](const Use&) { return true; };

constexpr const char* kModel = HEAD
    "g (float[2] x, bool c, float[2] d) => (float[2] y, float[2] o) "
    "<float[2] a = {1, 2}, float[2] b = {3, 4}, float[2] o = {5, 6}, float[2] d = {7, 8}> "
    "{ k = Constant <value = float[2] {9, 9}> () t = Add(x, a) u = Mul(t, b) v = Add(u, b) w = Add(v, k) z = Mul(w, d) "
    "y = If (c) <then_branch = p () => (float[2] q) { q = Add(z, a) }, else_branch = r () => (float[2] s) { s = Neg(z) "
    "}> }";

Node node_making(const Model& model, std::string_view value) { return model.main().producer(value); }

TEST_CASE("a private constant is made in the scope, not handed in or out, and read by the right nodes only") {
  const Model model = parse(kModel);
  const Graph& main = model.main();
  const Graph& body = *model.graphs()[1];
  const Node mul = node_making(model, "u");
  CHECK(is_private_constant(main, "a", any));
  CHECK(is_private_constant(main, "k", any));
  CHECK_FALSE(is_private_constant(main, "a", [](const Use& use) { return !use.captured; }));
  CHECK_FALSE(is_private_constant(main, "b", [&](const Use& use) { return use.node == mul; }));
  CHECK_FALSE(is_private_constant(main, "o", any));  // an output
  CHECK_FALSE(is_private_constant(main, "d", any));  // an input
  CHECK_FALSE(is_private_constant(main, "t", any));  // computed
  CHECK_FALSE(is_private_constant(body, "a", any));  // of another scope
}

TEST_CASE("set_constant writes in place for the only reader, Constant nodes included") {
  Model model = parse(HEAD
                      "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> "
                      "{ k = Constant <value = float[2] {9, 9}> () t = Add(x, a) y = Mul(t, k) }");
  Rewriter rewriter(model.main());
  const std::vector<float> values = {5, 6};
  set_constant(rewriter, node_making(model, "t"), 1, Tensor::of_floats({2}, values), "fresh");
  set_constant(rewriter, node_making(model, "y"), 1, Tensor::of_floats({2}, values), "fresh");
  REQUIRE(rewriter.commit());
  CHECK(dump(model) == dump(parse(HEAD "g (float[2] x) => (float[2] y) <float[2] a = {5, 6}, float[2] k = {5, 6}> "
                                       "{ t = Add(x, a) y = Mul(t, k) }")));
}

TEST_CASE("set_constant copies what others read and names what was absent") {
  Model model = parse(HEAD
                      "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}> "
                      "{ t = Conv(x, w) y = Conv(t, w) }");
  Rewriter rewriter(model.main());
  const std::vector<float> value = {5};
  set_constant(rewriter, node_making(model, "t"), 1, Tensor::of_floats({1, 1, 1, 1}, value), "fresh");
  set_constant(rewriter, node_making(model, "t"), 2, Tensor::of_floats({1}, value), "t");
  REQUIRE(rewriter.commit());
  CHECK(dump(model) == dump(parse(HEAD "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, "
                                       "float[1, 1, 1, 1] w_1 = {5}, float[1] t_1 = {5}> "
                                       "{ t = Conv(x, w_1, t_1) y = Conv(t, w) }")));
}

}  // namespace
}  // namespace onnxpress::testing
