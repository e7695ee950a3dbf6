#include "pass/weights.h"

#include <catch2/catch_test_macros.hpp>

#include "ir/rewriters.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// W is read by two nodes, V by a body, U is also an output, T also an input.
Model sample() {
  return parse(
      HEAD
      "g (float[2,2] x, bool c, float[2,2] T) => (float[2,2] y, float[2,2] z, float[2,2] U) <"
      "float[2,2] W = {1.0, 2.0, 3.0, 4.0}, float[2,2] V = {1.0, 2.0, 3.0, 4.0}, float[2,2] U = {1.0, 2.0, 3.0, "
      "4.0}, float[2,2] T = {1.0, 2.0, 3.0, 4.0}> { a = MatMul(x, W) y = Add(a, W) b = MatMul(x, T) z = If(c) <"
      "then_branch = t () => (float[2,2] p) { p = MatMul(x, V) }, "
      "else_branch = e () => (float[2,2] q) { q = MatMul(x, U) }> }");
}

}  // namespace

TEST_CASE("not_constant_reason tells a replaceable weight from a computed one") {
  const Model model = sample();
  const auto& nodes = model.main().nodes();
  CHECK(not_constant_reason(nodes[2], 1) == "weight 'T' is also a graph input, so that callers can replace it");
  CHECK(not_constant_reason(nodes[0], 0) == kWeightNotConstant);
  CHECK(not_constant_reason(nodes[0], 7) == kWeightNotConstant);
}

TEST_CASE("foreign_reader names who else reads a weight") {
  const Model model = sample();
  const Graph& main = model.main();
  const Use matmul{main.nodes()[0], 1, false}, add{main.nodes()[1], 1, false};
  const Use body{model.graphs()[1]->nodes()[0], 1, false};
  CHECK(foreign_reader(main, "W", std::vector<Use>{matmul, add}).empty());
  CHECK(foreign_reader(main, "W", std::vector<Use>{matmul}) == "weight 'W' is also read by Add->y, which keeps it");
  CHECK(foreign_reader(main, "W", std::vector<Use>{matmul, {add.node, 0, false}}).ends_with("Add->y, which keeps it"));
  CHECK(foreign_reader(main, "V", std::vector<Use>{body}).empty());
  CHECK(foreign_reader(main, "V", {}) == "weight 'V' is also read by MatMul->p, which keeps it");
  CHECK(foreign_reader(main, "U", {}) == "weight 'U' is also a graph output");
}

TEST_CASE("Rewriters commits every scope, and nothing when nothing was asked") {
  Model model = sample();
  Rewriters none(model);
  CHECK_FALSE(none.commit().value());
  Rewriters both(model);
  both.of(model.main()).set_input(model.main().nodes()[1], 1, "V");
  both.of(*model.graphs()[1]).set_input(model.graphs()[1]->nodes()[0], 1, "W");
  CHECK(both.commit().value());
  CHECK(model.main().nodes()[1].input(1) == "V");
  CHECK(model.graphs()[1]->nodes()[0].input(1) == "W");
}

}  // namespace onnxpress::testing
