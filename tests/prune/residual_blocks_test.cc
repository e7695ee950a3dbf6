#include "prune/residual_blocks.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// A model with those of the float weights `w` and `v` [4, 4] and the vector `g` that the body reads.
Model with_weights(const std::string& signature, const std::string& body) {
  std::string weights;
  const auto add = [&](const std::string& name, const Dims& dims, unsigned seed) {
    if (body.find(", " + name) == std::string::npos) return;
    weights += (weights.empty() ? "<" : ", ") + float_tensor(name, dims, seed);
  };
  add("w", {4, 4}, 1);
  add("v", {4, 4}, 2);
  add("g", {4}, 3);
  return parse(HEAD "g " + signature + weights + (weights.empty() ? "{ " : "> { ") + body + " }");
}
Model plain(const std::string& body) { return with_weights("(float[2, 3, 4] x) => (float[2, 3, 4] y)", body); }

std::string reason_of(const Model& model, const std::string& out) {
  const ResidualBlocks found = find_residual_blocks(model.main());
  for (const ResidualBlock& block : found.blocks) CHECK(block.add.output(0) != out);
  for (const RefusedAdd& refused : found.refused)
    if (refused.add.output(0) == out) return refused.reason;
  return "";
}

std::vector<std::string> outputs_of(const std::vector<Node>& nodes) {
  std::vector<std::string> names;
  for (const Node& node : nodes) names.emplace_back(node.output(0));
  return names;
}

// Removes the only block and compares with the text of what must be left.
void require_removed(Model model, const Model& expected) {
  const ResidualBlocks found = find_residual_blocks(model.main());
  REQUIRE(found.blocks.size() == 1);
  REQUIRE(remove_residual_block(found.blocks.front()));
  CHECK(dump(model) == dump(expected));
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("residual block: pre-norm") {
  const Model model = plain(
      "a = Relu(x) n = LayerNormalization(a, g) m = MatMul(n, w) r = Relu(m) f = MatMul(r, v) s = Add(a, f) "
      "y = Neg(s)");
  const ResidualBlocks found = find_residual_blocks(model.main());
  REQUIRE(found.blocks.size() == 1);
  const ResidualBlock& block = found.blocks.front();
  CHECK(block.add.input(block.shortcut) == "a");
  CHECK(outputs_of(block.nodes) == std::vector<std::string>{"n", "m", "r", "f"});
  CHECK(block.same_shape);
  CHECK_FALSE(block.mixes);
  require_removed(model.clone(), parse(HEAD "g (float[2, 3, 4] x) => (float[2, 3, 4] y) { a = Relu(x) y = Neg(a) }"));
}

TEST_CASE("residual block: post-norm keeps its norm, the sum may have its operands either way") {
  require_removed(
      plain("a = Relu(x) m = MatMul(a, w) r = Relu(m) f = MatMul(r, v) s = Add(f, a) y = LayerNormalization(s, g)"),
      parse(HEAD "g (float[2, 3, 4] x) => (float[2, 3, 4] y) <" + float_tensor("g", {4}, 3) +
            "> { a = Relu(x) y = LayerNormalization(a, g) }"));
}

TEST_CASE("residual block: convolutions, the gate and all") {
  require_removed(parse(HEAD "g (float[1, 4, 5, 5] x) => (y) <" + float_tensor("k", {4, 4, 3, 3}, 1) + ", " +
                        float_tensor("q", {4, 4, 1, 1}, 2) +
                        "> { a = Relu(x) c = Conv<pads = [1, 1, 1, 1]>(a, k) p = GlobalAveragePool(c) e = Conv(p, q) "
                        "i = Sigmoid(e) f = Mul(c, i) s = Sum(f, a) y = Relu(s) }"),
                  parse(HEAD "g (float[1, 4, 5, 5] x) => (y) { a = Relu(x) y = Relu(a) }"));
}

TEST_CASE("residual block: x is an input and the sum an output of the graph") {
  require_removed(plain("f = MatMul(x, w) y = Add(x, f)"),
                  parse(HEAD "g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Identity(x) }"));
  // The last of an output's readers may be a body that hands it out.
  require_removed(with_weights("(float[2, 3, 4] x, bool c) => (float[2, 3, 4] y)",
                               "f = MatMul(x, w) s = Add(x, f) y = If(c) <then_branch = t () => (float[2, 3, 4] o) "
                               "{ o = Neg(s) }, else_branch = e () => (float[2, 3, 4] p) { p = Exp(s) }>"),
                  parse(HEAD "g (float[2, 3, 4] x, bool c) => (float[2, 3, 4] y) { y = If(c) <then_branch = t () => "
                             "(float[2, 3, 4] o) { o = Neg(x) }, else_branch = e () => (float[2, 3, 4] p) "
                             "{ p = Exp(x) }> }"));
}

TEST_CASE("residual block: what only it needs goes with it, what others need stays") {
  // Sizes of x and a mask, private and shared; a constant that another node reads.
  require_removed(
      with_weights("(float[2, 3, 4] x, float[1, 1, 4] mask) => (float[2, 3, 4] y, float[1, 1, 4] z)",
                   "z = Neg(mask) b = Mul(mask, g) h = Shape(x) m = MatMul(x, w) r = Reshape(m, h) a = Add(r, b) "
                   "u = Shape(a) f = MatMul(a, v) s = Add(x, f) t = Mul(s, g) y = Relu(t)"),
      parse(HEAD "g (float[2, 3, 4] x, float[1, 1, 4] mask) => (float[2, 3, 4] y, float[1, 1, 4] z) <" +
            float_tensor("g", {4}, 3) + "> { z = Neg(mask) t = Mul(x, g) y = Relu(t) }"));
}

TEST_CASE("no residual block: read or returned elsewhere, entered twice") {
  CHECK(contains(reason_of(with_weights("(float[2, 3, 4] x) => (float[2, 3, 4] y, float[2, 3, 4] m)",
                                        "m = MatMul(x, w) f = Relu(m) y = Add(x, f)"),
                           "y"),
                 "'m', an output of the graph"));
  CHECK(contains(reason_of(plain("m = MatMul(x, w) f = Relu(m) s = Add(x, f) y = Mul(s, m)"), "s"),
                 "'m', which 'Mul->y' reads too"));
  CHECK(contains(reason_of(plain("f = MatMul(x, w) s = Add(x, f) y = Mul(s, f)"), "s"), "'f', which"));
  CHECK(contains(reason_of(plain("e = MatMul(x, v) a = Relu(e) b = Exp(e) m = MatMul(a, w) f = Mul(m, b) s = Add(a, f) "
                                 "y = Neg(s)"),
                           "s"),
                 "also reads 'e', which other layers compute"));
  CHECK(contains(reason_of(with_weights("(float[2, 3, 4] x, float[2, 3, 4] past) => (float[2, 3, 4] y)",
                                        "m = MatMul(x, w) f = Add(m, past) y = Add(x, f)"),
                           "y"),
                 "'past', which nothing else reads"));
  CHECK(contains(reason_of(with_weights("(float[2, 3, 4] x, bool c) => (float[2, 3, 4] y)",
                                        "m = MatMul(x, w) f = Relu(m) s = Add(x, f) z = If(c) <then_branch = t () => "
                                        "(float[2, 3, 4] o) { o = Neg(m) }, else_branch = e () => (float[2, 3, 4] p) "
                                        "{ p = Exp(x) }> y = Mul(s, z)"),
                           "s"),
                 "'m', which"));
}

TEST_CASE("no residual block: shapes, unknown operators, branches") {
  CHECK(contains(reason_of(with_weights("(float[2, 1, 4] x, float[2, 3, 4] m) => (float[2, 3, 4] y, float[2, 3, 4] n)",
                                        "n = Neg(m) e = MatMul(x, v) a = MatMul(e, w) f = Add(a, m) y = Add(e, f)"),
                           "y"),
                 "has the shape [2, 1, 4]"));
  const auto custom = [](const std::string& body) {
    return parse(
        "<ir_version: 8, opset_import: [\"\": 17, \"my.domain\": 1]> g (float[2, 3, 4] x) => (float[2, 3, 4] y) "
        "<" +
        float_tensor("w", {4, 4}, 1) + "> { " + body + " }");
  };
  CHECK(
      contains(reason_of(custom("m = MatMul(x, w) f = my.domain.Act(m) y = Add(x, f)"), "y"), "of domain 'my.domain'"));
  CHECK(contains(reason_of(custom("m = MatMul(x, w) s = Add(x, m) n = my.domain.Log(m) y = Neg(s)"), "s"),
                 "'Log->n' of domain"));
  // As a neighbour it does not matter.
  CHECK(find_residual_blocks(custom("a = my.domain.Act(x) m = MatMul(a, w) s = Add(a, m) y = my.domain.Act(s)").main())
            .blocks.size() == 1);
  CHECK(reason_of(plain("a = MatMul(x, w) b = MatMul(x, v) s = Add(a, b) y = Neg(s)"), "s") ==
        "neither operand is computed from the other");
  // A bias, a Gelu, the same value twice: no residual connections at all.
  const Model none = plain("m = MatMul(x, w) a = Add(m, g) p = Mul(a, a) q = Mul(p, g) s = Add(a, q) y = Add(s, s)");
  CHECK(find_residual_blocks(none.main()).blocks.empty());
  CHECK(find_residual_blocks(none.main()).refused.empty());
}

TEST_CASE("a body is a scope of its own") {
  const Model model =
      with_weights("(float[2, 3, 4] x, bool c) => (float[2, 3, 4] y)",
                   "y = If(c) <then_branch = t () => (float[2, 3, 4] o) { m = MatMul(x, w) o = Add(x, m) "
                   "}, else_branch = e () => (float[2, 3, 4] p) { p = Exp(x) }>");
  CHECK(find_residual_blocks(model.main()).blocks.empty());
}

TEST_CASE("layers are attention with the MLP behind it") {
  const std::string attention =
      "n0 = LayerNormalization(x, g) q = MatMul(n0, w) t = Transpose<perm = [0, 2, 1]>(q) "
      "qk = MatMul(q, t) p = Softmax(qk) o = MatMul(p, q) s0 = Add(x, o) ";
  const std::string mlp = "m1 = MatMul(n1, w) f1 = MatMul(m1, v) s1 = Add(s0, f1) ";
  const auto layers = [](const Model& model) { return residual_layers(find_residual_blocks(model.main()).blocks); };
  using Layers = std::vector<std::vector<std::size_t>>;
  CHECK(layers(plain(attention + "n1 = LayerNormalization(s0, g) " + mlp + "y = Neg(s1)")) == Layers{{0, 1}});
  // Post-norm, in pieces or not.
  CHECK(layers(plain(attention + "n1 = LayerNormalization(s0, g) m1 = MatMul(n1, w) f1 = MatMul(m1, v) "
                                 "s1 = Add(n1, f1) y = LayerNormalization(s1, g)")) == Layers{{0, 1}});
  CHECK(layers(plain(attention + "e = ReduceMean<axes = [2]>(s0) n1 = Sub(s0, e) m1 = MatMul(n1, w) "
                                 "s1 = Add(n1, m1) y = Neg(s1)")) == Layers{{0, 1}});
  // Two MLPs in a row, and one behind something else.
  CHECK(layers(plain(attention + "n1 = LayerNormalization(s0, g) " + mlp +
                     "m2 = MatMul(s1, w) s2 = Add(s1, m2) "
                     "y = Neg(s2)")) == Layers{{0, 1}, {2}});
  CHECK(layers(plain(attention + "u = MatMul(s0, w) m1 = MatMul(u, v) s1 = Add(u, m1) y = Neg(s1)")) ==
        Layers{{0}, {1}});
}

}  // namespace onnxpress::testing
