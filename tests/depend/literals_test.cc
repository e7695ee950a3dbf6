// Every literal that names a size or a position, through a network that is pruned, proven and run.
#include "depend/literals.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <deque>

#include "depend/remove.h"
#include "proving.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

using Numbers = std::vector<std::int64_t>;

Node node_of(const Model& model, std::string_view op) {
  for (const Node& node : model.main().nodes())
    if (node.op() == op) return node;
  FAIL("no " << op);
  return {};
}

Numbers literal_of(const Model& model, std::string_view op, std::size_t slot) {
  const Node node = node_of(model, op);
  auto tensor = model.main().constant(node.input(slot));
  REQUIRE(tensor);
  REQUIRE(*tensor);
  return to_int64s((*tensor)->view()).value();
}

// What patch_node() says of the only node that is no Constant, for hand-made cuts.
Result<NodeEdits> patched(std::string_view text, std::string_view op, const KeptAxes& kept) {
  static std::deque<Model> models;
  models.push_back(parse(text));
  models.back().index();
  return patch_node(node_of(models.back(), op), kept, Sizes(models.back().main()));
}

KeptAxes kept_on(std::initializer_list<std::tuple<std::string, std::size_t, Indices>> axes) {
  KeptAxes kept;
  for (const auto& [value, axis, indices] : axes) kept.set({value, {}, 0}, axis, indices);
  return kept;
}

Numbers numbers(const Tensor& tensor) { return to_int64s(tensor.view()).value(); }

}  // namespace

TEST_CASE("Reshape: literal sizes follow, 0 and -1 stay") {
  const Model narrow = require_narrow(HEAD R"(
g (float[N,2,12] x) => (float[N,2,5] y)
<float[12,24] w1, int64[4] s1 = {0, -1, 3, 8}, int64[3] s2 = {0, 2, 24}, float[24,5] w2>
{ a = MatMul(x, w1)  b = Reshape(a, s1)  r = Relu(b)  c = Reshape(r, s2)  y = MatMul(c, w2) })");
  const Numbers first = literal_of(narrow, "Reshape", 1);
  CHECK(first[0] == 0);
  CHECK(first[1] == -1);
  CHECK(first[2] * first[3] == dims_of(narrow, "w1")[1]);
  CHECK(dims_of(narrow, "w1")[1] < 24);
  CHECK(dims_of(narrow, "w2")[0] == dims_of(narrow, "w1")[1]);
}

TEST_CASE("Reshape: a literal inside a Concat with Shape()") {
  const char* const head = HEAD R"(
g (float[N,M,8] x) => (float[N,M,3] y, float[N,M,3] z)
<float[8,6] w1, float[8,6] w2, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] width = {6},
 float[6,3] v1, float[6,3] v2>
{ s = Shape(x)  n = Slice(s, zero, two)  t = Concat<axis = 0>(n, width)
  a = MatMul(x, w1)  b = Reshape(a, t)  y = MatMul(b, v1)
  c = MatMul(x, w2)  d = Reshape(c, t)  z = MatMul(d, v2) })";
  const Model model = with_weights(head);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 2);
  SECTION("all readers alike: in place") {
    const Model narrow = require_narrow(model);
    CHECK(narrow.main().nodes().size() == model.main().nodes().size());
    CHECK(literal_of(narrow, "Concat", 1) == Numbers{4});
  }
  SECTION("one reader only: a Concat of its own") {
    Model narrow = model.clone();
    REQUIRE(remove_units(narrow, narrow.main(), kept_axes(*dependencies, {{1}, {}}), 1));
    CHECK(narrow.main().nodes().size() == model.main().nodes().size() + 1);
    CHECK(literal_of(narrow, "Concat", 1) == Numbers{6});
    CHECK(dims_of(narrow, "w1") == Dims{8, 5});
    CHECK(dims_of(narrow, "w2") == Dims{8, 6});
  }
}

TEST_CASE("Expand and ConstantOfShape") {
  const Model narrow = require_narrow(HEAD R"(
g (float[2,4] x) => (float[3,2,3] y)
<float[4,6] w1, int64[3] shape = {3, 1, 6}, int64[2] filled = {2, 6}, float[6,3] w2>
{ a = MatMul(x, w1)  c = ConstantOfShape<value = float[1] {0.5}>(filled)  p = Mul(a, c)  b = Expand(p, shape)
  y = MatMul(b, w2) })");
  CHECK(literal_of(narrow, "Expand", 1) == Numbers{3, 1, 4});
  CHECK(literal_of(narrow, "ConstantOfShape", 0) == Numbers{2, 4});
}

TEST_CASE("Tile repeats what is left") {
  const Model narrow = require_narrow(HEAD R"(
g (float[2,4] x) => (float[2,3] y)
<float[4,6] w1, int64[2] repeats = {1, 2}, float[12,3] w2>
{ a = MatMul(x, w1)  b = Tile(a, repeats)  y = MatMul(b, w2) })");
  CHECK(literal_of(narrow, "Tile", 1) == Numbers{1, 2});
  CHECK(dims_of(narrow, "w2") == Dims{8, 3});
}

TEST_CASE("Resize to literal sizes") {
  const Model narrow = require_narrow(HEAD R"(
g (float[1,3,4,4] x) => (float[1,2,8,8] y)
<float[6,3,1,1] w1, int64[4] sizes = {1, 6, 8, 8}, float[2,6,1,1] w2>
{ a = Conv(x, w1)  b = Resize(a, , , sizes)  y = Conv(b, w2) })");
  CHECK(literal_of(narrow, "Resize", 3) == Numbers{1, 4, 8, 8});
}

TEST_CASE("Split: sizes become explicit") {
  const char* const opset18 = "<ir_version: 8, opset_import: [\"\": 18]> ";
  const std::string body = R"(
g (float[1,3,4,4] x) => (float[1,2,4,4] y)
<float[8,3,1,1] w1, float[2,4,1,1] w2, float[2,4,1,1] w3 INIT>
{ a = Conv(x, w1)  b, c = SPLIT  d = Conv(b, w2)  e = Conv(c, w3)  y = Add(d, e) })";
  const auto model = [&](std::string head, std::string init, std::string split) {
    std::string text = body;
    text.replace(text.find("INIT"), 4, init);
    text.replace(text.find("SPLIT"), 5, split);
    return head + text;
  };
  SECTION("from an input") {
    const Model narrow = require_narrow(model(HEAD, ", int64[2] s = {4, 4}", "Split<axis = 1>(a, s)"));
    CHECK(literal_of(narrow, "Split", 1) == Numbers{2, 2});
  }
  SECTION("from nothing") {
    const Model narrow = require_narrow(model(HEAD, "", "Split<axis = 1>(a)"));
    CHECK(literal_of(narrow, "Split", 1) == Numbers{2, 2});
  }
  SECTION("from num_outputs") {
    const Model narrow = require_narrow(model(opset18, "", "Split<axis = 1, num_outputs = 2>(a)"));
    CHECK(literal_of(narrow, "Split", 1) == Numbers{2, 2});
    CHECK_FALSE(node_of(narrow, "Split").has_attr("num_outputs"));
  }
  SECTION("from an attribute") {
    const Model narrow =
        require_narrow(model("<ir_version: 7, opset_import: [\"\": 11]> ", "", "Split<axis = 1, split = [4, 4]>(a)"));
    CHECK(node_of(narrow, "Split").attr_ints("split") == Numbers{2, 2});
  }
}

TEST_CASE("Split: parts of different sizes") {
  const auto edits = patched(HEAD
                             "g (float[8] x) => (float[4] y, float[4] z) <int64[2] s = {3, 5}> "
                             "{ a = Relu(x) b, c = Split<axis = 0>(a, s) y = Relu(b) z = Relu(c) }",
                             "Split", kept_on({{"a", 0, {0, 3, 4}}, {"b", 0, {0}}, {"c", 0, {0, 1}}}));
  REQUIRE(edits);
  CHECK(numbers(edits->literals.at(1)) == Numbers{1, 2});
  CHECK_FALSE(patched(HEAD "g (float[8] x) => (float[4] y, float[4] z) <int64[2] s = {3, 5}> "
                           "{ a = Relu(x) b, c = Split<axis = 0>(a, s) y = Relu(b) z = Relu(c) }",
                      "Split", kept_on({{"a", 0, {0, 3}}, {"b", 0, {0}}, {"c", 0, {0, 1}}})));
}

TEST_CASE("Slice: bounds are looked up among what is left") {
  const auto slice = [](std::string literals, const KeptAxes& kept, std::string size = "4") {
    return patched(HEAD "g (float[2,8] x) => (float[2," + size + "] y) <" + literals +
                       "> { a = Relu(x) b = Slice(a, s, e, d, t) y = Relu(b) }",
                   "Slice", kept);
  };
  const std::string one = "int64[1] d = {1}, int64[1] t = {1}, ";
  SECTION("the middle") {
    const auto edits =
        slice(one + "int64[1] s = {2}, int64[1] e = {6}", kept_on({{"a", 1, {0, 2, 3, 5, 7}}, {"b", 1, {0, 1, 3}}}));
    REQUIRE(edits);
    CHECK(numbers(edits->literals.at(1)) == Numbers{1});
    CHECK(numbers(edits->literals.at(2)) == Numbers{4});
  }
  SECTION("a tail with a negative start keeps its open end") {
    const auto edits = slice(one + "int64[1] s = {-4}, int64[1] e = {9223372036854775807}",
                             kept_on({{"a", 1, {0, 1, 2, 5, 7}}, {"b", 1, {1, 3}}}));
    REQUIRE(edits);
    CHECK(numbers(edits->literals.at(1)) == Numbers{3});
    CHECK_FALSE(edits->literals.contains(2));
  }
  SECTION("steps that stay regular") {
    const auto edits = slice("int64[1] d = {1}, int64[1] t = {2}, int64[1] s = {0}, int64[1] e = {8}",
                             kept_on({{"a", 1, {0, 1, 4, 5}}, {"b", 1, {0, 2}}}));
    REQUIRE(edits);
    CHECK_FALSE(edits->gather);
    CHECK_FALSE(edits->literals.contains(1));
    CHECK(numbers(edits->literals.at(2)) == Numbers{3});
  }
  SECTION("backwards") {
    const auto edits =
        slice("int64[1] d = {1}, int64[1] t = {-1}, int64[1] s = {7}, int64[1] e = {-9223372036854775807}",
              kept_on({{"a", 1, {1, 4, 6}}, {"b", 1, {1, 3, 6}}}), "8");
    REQUIRE(edits);
    CHECK(numbers(edits->literals.at(1)) == Numbers{2});
  }
  SECTION("irregular becomes a Gather") {
    const auto edits = slice("int64[1] d = {1}, int64[1] t = {2}, int64[1] s = {0}, int64[1] e = {8}",
                             kept_on({{"a", 1, {0, 2, 3, 5, 6}}, {"b", 1, {0, 1, 3}}}));
    REQUIRE(edits);
    REQUIRE(edits->gather);
    CHECK(edits->gather->axis == 1);
    CHECK(edits->gather->indices == Numbers{0, 1, 4});
  }
  SECTION("what it needs is gone") {
    CHECK_FALSE(slice(one + "int64[1] s = {2}, int64[1] e = {6}", kept_on({{"a", 1, {0, 2, 3}}})));
  }
  SECTION("another axis is sliced") {
    const auto edits = slice("int64[1] d = {0}, int64[1] t = {1}, int64[1] s = {0}, int64[1] e = {1}",
                             kept_on({{"a", 1, {0, 2, 3}}, {"b", 1, {0, 2, 3}}}), "8");
    REQUIRE(edits);
    CHECK(edits->literals.empty());
  }
}

TEST_CASE("Slices of a network, with steps") {
  const Model narrow = require_narrow(HEAD R"(
g (float[2,4] x) => (float[2,3] y)
<float[4,12] w1, int64[2] s = {0, 0}, int64[2] e = {2, 12}, int64[2] d = {0, 1}, int64[2] t = {1, 3},
 int64[1] s2 = {6}, int64[1] e2 = {100}, int64[1] d2 = {-1}, float[4,3] w2, float[6,3] w3>
{ a = MatMul(x, w1)  r = Relu(a)  b = Slice(r, s, e, d, t)  c = Slice(r, s2, e2, d2)
  p = MatMul(b, w2)  q = MatMul(c, w3)  y = Add(p, q) })");
  CHECK(dims_of(narrow, "w1")[1] < 12);
}

TEST_CASE("Gather: constant indices are looked up, a shuffle stays one") {
  const Model narrow = require_narrow(HEAD R"(
g (float[2,4] x) => (float[2,3] y)
<float[4,6] w1, int64[6] order = {5, -2, 3, 2, 1, 0}, float[6,3] w2>
{ a = MatMul(x, w1)  b = Gather<axis = 1>(a, order)  y = MatMul(b, w2) })");
  const Numbers order = literal_of(narrow, "Gather", 1);
  CHECK(order.size() == 4);
  CHECK(std::ranges::max(order) == 3);
}

TEST_CASE("Gather: an embedding loses columns, its indices stay") {
  const Model narrow = require_narrow(HEAD R"(
g (int64[2,3] ids) => (float[2,3,4] y) <float[10,6] table, float[6,4] w>
{ e = Gather(table, ids)  y = MatMul(e, w) })");
  CHECK(dims_of(narrow, "table") == Dims{10, 4});
}

TEST_CASE("Pad: channels that are padded to, as in ResNet's option A") {
  const Model narrow = require_narrow(HEAD R"(
g (float[1,3,4,4] x) => (float[1,2,4,4] y)
<float[4,3,1,1] w1, int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}, float[8,4,1,1] w2, float[2,8,1,1] w3>
{ a = Conv(x, w1)  r = Relu(a)  p = Pad(r, pads)  b = Conv(r, w2)  s = Add(p, b)  y = Conv(s, w3) })");
  const Numbers pads = literal_of(narrow, "Pad", 1);
  CHECK(dims_of(narrow, "w1")[0] + pads[1] + pads[5] == dims_of(narrow, "w3")[1]);
  CHECK(dims_of(narrow, "w3")[1] < 8);
}

TEST_CASE("Pad: a negative pad takes what is left of what it took") {
  const auto edits = patched(HEAD
                             "g (float[8] x) => (float[7] y) <int64[2] p = {-3, 2}> "
                             "{ a = Relu(x) b = Pad(a, p) y = Relu(b) }",
                             "Pad", kept_on({{"a", 0, {0, 2, 4, 5}}, {"b", 0, {1, 2, 6}}}));
  REQUIRE(edits);
  CHECK(numbers(edits->literals.at(1)) == Numbers{-2, 1});
}

TEST_CASE("Grouped and depthwise convolutions") {
  SECTION("depthwise: group shrinks") {
    const Model narrow = require_narrow(HEAD R"(
g (float[1,3,6,6] x) => (float[1,2,6,6] y)
<float[8,3,1,1] w1, float[16,1,3,3] w2, float[2,16,1,1] w3>
{ a = Conv(x, w1)  b = Conv<group = 8, pads = [1,1,1,1]>(a, w2)  y = Conv(b, w3) })");
    CHECK(node_of(narrow, "Conv").attr_int("group", 1) == 1);
    CHECK(narrow.main().nodes()[1].attr_int("group", 1) == dims_of(narrow, "w1")[0]);
    CHECK(dims_of(narrow, "w2")[0] == 2 * dims_of(narrow, "w1")[0]);
  }
  SECTION("many small groups: whole groups go") {
    const Model narrow = require_narrow(HEAD R"(
g (float[1,3,6,6] x) => (float[1,2,6,6] y)
<float[12,3,1,1] w1, float[12,2,3,3] w2, float[2,12,1,1] w3>
{ a = Conv(x, w1)  b = Conv<group = 6, pads = [1,1,1,1]>(a, w2)  y = Conv(b, w3) })");
    CHECK(narrow.main().nodes()[1].attr_int("group", 1) == 4);
    CHECK(dims_of(narrow, "w2") == Dims{8, 2, 3, 3});
  }
  SECTION("few large groups: the same positions of each go") {
    const Model narrow = require_narrow(HEAD R"(
g (float[1,3,6,6] x) => (float[1,2,6,6] y)
<float[12,3,1,1] w1, float[12,6,3,3] w2, float[2,12,1,1] w3>
{ a = Conv(x, w1)  b = Conv<group = 2, pads = [1,1,1,1]>(a, w2)  y = Conv(b, w3) })");
    CHECK(narrow.main().nodes()[1].attr_int("group", 1) == 2);
    CHECK(dims_of(narrow, "w2") == Dims{8, 4, 3, 3});
  }
  SECTION("transposed") {
    const Model narrow = require_narrow(HEAD R"(
g (float[1,3,6,6] x) => (float[1,2,12,12] y)
<float[12,3,1,1] w1, float[12,2,2,2] w2, float[12,1,2,2] w3, float[2,12,1,1] w4>
{ a = Conv(x, w1)  b = ConvTranspose<group = 6, strides = [2,2]>(a, w2)
  c = ConvTranspose<group = 12, pads = [0,0,1,1]>(b, w3)  y = Conv(c, w4) })");
    CHECK(narrow.main().nodes()[1].attr_int("group", 1) == 4);
    CHECK(narrow.main().nodes()[2].attr_int("group", 1) == 8);
  }
}

TEST_CASE("Normalizations: parameters and groups") {
  const Model narrow = require_narrow(
      "<ir_version: 10, opset_import: [\"\": 21]> "
      R"(
g (float[1,3,4,4] x) => (float[1,2,4,4] y)
<float[12,3,1,1] w1, float[12] s1, float[12] b1, float[12] s2, float[12] b2, float[2,12,1,1] w2>
{ a = Conv(x, w1)  n = GroupNormalization<num_groups = 6>(a, s1, b1)  i = InstanceNormalization(n, s2, b2)
  y = Conv(i, w2) })");
  CHECK(node_of(narrow, "GroupNormalization").attr_int("num_groups", 0) == 4);
  CHECK(dims_of(narrow, "s1") == Dims{8});
}

TEST_CASE("Recurrent layers lose hidden units") {
  const Model narrow = require_narrow(HEAD R"(
g (float[5,1,4] x) => (float[5,1,3] y)
<float[2,24,4] w, float[2,24,6] r, float[2,48] b, int64[3] s = {0, 0, -1}, float[12,3] v>
{ h = LSTM<hidden_size = 6, direction = "bidirectional">(x, w, r, b)  t = Transpose<perm = [0,2,1,3]>(h)
  f = Reshape(t, s)  y = MatMul(f, v) })");
  CHECK(node_of(narrow, "LSTM").attr_int("hidden_size", 0) == 4);
  CHECK(dims_of(narrow, "r") == Dims{2, 16, 4});
}

TEST_CASE("A literal that cannot express what is left names its node") {
  const auto refused = patched(HEAD
                               "g (float[1,8,4,4] x, float[8,2,1,1] w) => (float[1,8,4,4] y) "
                               "{ a = Relu(x) b = Conv<group = 4>(a, w) y = Relu(b) }",
                               "Conv", kept_on({{"a", 1, {0, 1, 2}}}));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::unsupported);
  CHECK(refused.error().text().contains("Conv"));
}
