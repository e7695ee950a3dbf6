// Sizes that are followed where onnx's shape inference gives up, and integers that are folded because of them.
#include "depend/sizes.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>

#include "depend/fold_sizes.h"
#include "groups_text.h"
#include "io/check.h"

namespace onnxpress::testing {
namespace {

// Names that onnx made up say nothing.
std::string text_of(const Dim& dim) {
  if (dim.value) return std::to_string(*dim.value);
  return dim.symbol.empty() || dim.symbol.starts_with("unk__") ? "?" : dim.symbol;
}

std::string text_of(const SizeList& sizes) {
  if (!sizes) return "?";
  std::string text;
  for (const Dim& dim : *sizes) text += (text.empty() ? "" : ",") + text_of(dim);
  return text;
}

// Of value `v` in a graph of these inputs and nodes.
std::string shape_of(std::string_view inputs, std::string_view body, std::string_view value = "v") {
  const Model model = parse(with_zeros(fmt::format(
      "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> g ({}) => (float y) {}", inputs, body)));
  const Sizes sizes(model.main());
  return text_of(sizes.shape(value));
}

}  // namespace

TEST_CASE("A Reshape whose target is computed keeps what is known") {
  CHECK(shape_of("float[N,S,768] x",
                 "<int64 i = {0}, int64[1] z = {0}, int64[3] r = {-1,12,64}> {"
                 " s = Shape(x)  n = Gather(s, i)  u = Unsqueeze(n, z)  t = Concat<axis=0>(u, r)"
                 " v = Reshape(x, t)  y = ReduceSum<keepdims=0>(v) }") == "N,S,12,64");
  CHECK(shape_of("float[N,S,768] x, int64[3] t", "{ v = Reshape(x, t)  y = ReduceSum<keepdims=0>(v) }") == "?,?,?");
}

TEST_CASE("A computed bound of a Slice costs one axis, not all") {
  CHECK(shape_of("float[8,4] x, int64[1] e",
                 "<int64[1] z = {0}> { v = Slice(x, z, e, z)  y = ReduceSum<keepdims=0>(v) }") == "?,4");
  CHECK(shape_of("float[N,8] x",
                 "<int64[1] one = {1}, int64[1] two = {2}, int64[1] z = {0}> {"
                 " s = Shape(x)  c = Gather(s, one)  h = Div(c, two)  v = Slice(x, z, h, one)"
                 " y = ReduceSum<keepdims=0>(v) }") == "N,4");
  // The place of an axis, modulo the rank, as exporters of torch's unflatten() count it.
  CHECK(shape_of("float[N,8] x",
                 "<int64[1] a = {5}, int64[1] two = {2}, int64[1] z = {0}, int64[1] one = {1}> {"
                 " h = Mod(a, two)  v = Slice(x, z, h, one)  y = ReduceSum<keepdims=0>(v) }") == "N,1");
}

TEST_CASE("An Expand behind the choice of exporters") {
  CHECK(shape_of("float[N,1,4] x",
                 "<int64[1] z = {0}, int64[2] r = {3,4}, int64[3] m = {-1,-1,-1}, int64[3] one = {1,1,1}> {"
                 " s = Shape(x)  n = Gather(s, z)  t = Concat<axis=0>(n, r)  q = Equal(t, m)  w = Where(q, one, t)"
                 " v = Expand(x, w)  y = ReduceSum<keepdims=0>(v) }") == "N,3,4");
}

TEST_CASE("Operators of the runtime and of old opsets have the shapes of what they are like") {
  CHECK(shape_of("float[N,3,8,8] x",
                 "<float[6,3,3,3] w> { v = com.microsoft.FusedConv<pads=[1,1,1,1], strides=[2,2]>(x, w)"
                 " y = ReduceSum<keepdims=0>(v) }") == "N,6,4,4");
  CHECK(shape_of("float[N,4] x",
                 "<float[4] b, float[4,6] w> { a = com.microsoft.BiasGelu(x, b)  v = MatMul(a, w)"
                 " y = ReduceSum<keepdims=0>(v) }") == "N,6");
  CHECK(shape_of("float[N,4] x", "{ v = com.microsoft.Unheard(x)  y = ReduceSum<keepdims=0>(v) }") == "?");
}

TEST_CASE("Integers that never change become constants; the rest is left as it is") {
  Model model = parse(with_zeros(HEAD "g (float[N,8] x) => (float[N,4] y)"
                                      "<int64[1] one = {1}, int64[1] two = {2}, int64[1] z = {0}, float[4,4] w> {"
                                      "  s = Shape(x)  c = Gather(s, one)  h = Div(c, two)  a = Slice(x, z, h, one)"
                                      "  n = Gather(s, z)  t = Concat<axis=0>(n, h)  b = Reshape(a, t)"
                                      "  y = MatMul(b, w) }"));
  const auto changed = fold_known_sizes(model.main());
  REQUIRE(changed);
  CHECK(*changed);
  CHECK(check_model(model));
  std::vector<std::string> ops;
  for (const Node& node : model.main().nodes()) ops.emplace_back(node.op());
  CHECK(ops == Lines{"Shape", "Slice", "Gather", "Concat", "Reshape", "MatMul"});
  const auto end = model.main().constant(model.main().nodes()[1].input(2));
  REQUIRE(end);
  REQUIRE(*end);
  CHECK((*end)->as<std::int64_t>()[0] == 4);
  const auto again = fold_known_sizes(model.main());
  REQUIRE(again);
  CHECK_FALSE(*again);
}

TEST_CASE("What changes between runs, is an output, or is read by a body is not folded away") {
  constexpr std::string_view free = HEAD
      "g (float[N,8] x) => (float[N,8] y) <int64[1] z = {0}, int64[1] r = {8}> {"
      "  s = Shape(x)  n = Gather(s, z)  t = Concat<axis=0>(n, r)  y = Reshape(x, t) }";
  Model model = parse(free);
  const auto changed = fold_known_sizes(model.main());
  REQUIRE(changed);
  CHECK_FALSE(*changed);
  Model output = parse(HEAD
                       "g (float[2,8] x, bool c) => (int64[1] n, float[8,2] y, int64[1] b)"
                       "<int64[1] z = {1}, int64[2] r = {-1,2}> {"
                       "  s = Shape(x)  n = Gather(s, z)  y = Reshape(x, r)  b = If(c) <"
                       "   then_branch = t () => (int64[1] p) { p = Gather(s, z) },"
                       "   else_branch = e () => (int64[1] q) { q = Identity(z) }> }");
  REQUIRE(fold_known_sizes(output.main()));
  CHECK(check_model(output));
  std::vector<std::string> ops;
  for (const Node& node : output.main().nodes()) ops.emplace_back(node.op());
  CHECK(ops == Lines{"Shape", "Gather", "Reshape", "If"});
}

}  // namespace onnxpress::testing
