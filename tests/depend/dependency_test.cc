// The engine as a whole: units, groups, what blocks them, scopes.
#include "depend/dependency.h"

#include <catch2/catch_test_macros.hpp>

#include "groups_text.h"

namespace onnxpress::testing {

TEST_CASE("A channel goes with what makes it, normalizes it and reads it") {
  CHECK(groups_of(HEAD "g (float[N,3,8,8] x) => (float[N,5] y)"
                       "<float[4,3,3,3] w1, float[4] b1, float[4] s, float[4] o, float[4] m, float[4] v,"
                       " float[6,4,1,1] w2, float[6,5] w3, float[5] b3> {"
                       "  a = Conv(x, w1, b1)  n = BatchNormalization(a, s, o, m, v)  r = Relu(n)"
                       "  c = Conv(r, w2)  p = GlobalAveragePool(c)  f = Flatten(p)  y = Gemm(f, w3, b3) }") ==
        Lines{"Conv->a: 4 channels | w1.0 b1.0 s.0 o.0 m.0 v.0 w2.1", "Conv->c: 6 channels | w2.0 w3.0"});
}

TEST_CASE("A residual connection makes both branches one group") {
  constexpr std::string_view text = HEAD
      "g (float[1,3,8,8] x) => (float[1,2,8,8] y)"
      "<float[4,3,1,1] w1, float[4,4,3,3] w2, float[2,4,1,1] w3> {"
      "  a = Conv(x, w1)  b = Conv<pads=[1,1,1,1]>(a, w2)  c = Add(a, b)  y = Conv(c, w3) }";
  CHECK(whole_groups_of(text) == Lines{"Conv->a: 4 channels | w1.0 w2.0 w2.1 w3.1 a.1 b.1 c.1"});
  CHECK(blocked_of(text) == Lines{"w3.0 2/2 'y' is an output of the model"});
}

TEST_CASE("One initializer with two readers ties nothing together") {
  CHECK(groups_of(HEAD "g (float[1,3] x) => (float[1,2] y) <float[3,3] w, float[3] b, float[3,2] v> {"
                       "  a = Gemm(x, w, b)  r = Relu(a)  c = Gemm(r, w, b)  y = MatMul(c, v) }") ==
        Lines{"Gemm->a: 3 neurons | w.1 b.0 w.0", "Gemm->c: 3 neurons | w.1 b.0 v.0"});
}

TEST_CASE("An operator without a rule fixes every axis around it, with the way to it") {
  constexpr std::string_view text = HEAD
      "g (float[1,3] x) => (float[1,2] y) <float[3,4] w, float[4,2] v> {"
      "  a = MatMul(x, w)  r = Relu(a)  d = Det(r)  c = Sigmoid(r)  y = MatMul(c, v) }";
  CHECK(groups_of(text).empty());
  const auto [model, graph] = analyze(text);
  REQUIRE(graph.blocked().size() == 2);
  CHECK(graph.blocked()[0].path == Lines{"axis 1 of 'w'", "axis 1 of 'a', tied by MatMul 'MatMul->a'",
                                         "axis 1 of 'r', tied by Relu 'Relu->r'",
                                         "Det 'Det->d': no rule for this operator"});
}

TEST_CASE("A custom operator is never taken for an element-wise one") {
  CHECK(groups_of("<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> "
                  "g (float[1,3] x) => (float[1,2] y) <float[3,4] w, float[4,2] v> {"
                  "  a = MatMul(x, w)  r = my.Relu(a)  y = MatMul(r, v) }")
            .empty());
}

TEST_CASE("What a body reads stays; what a body computes inside itself need not") {
  constexpr std::string_view text = HEAD
      "g (float[1,3] x, bool t) => (float[1,2] y)"
      "<float[3,4] w, float[4,2] v, float[3,5] w2, float[5,2] v2> {"
      "  a = MatMul(x, w)  h = MatMul(a, v)  r = MatMul(x, w2)  q = MatMul(r, v2)"
      "  k = If(t) <then_branch = b1 () => (float[1,2] o) { i = MatMul(a, v) o = Relu(i) },"
      "             else_branch = b2 () => (float[1,2] e) { i = MatMul(x, w) j = Relu(i) e = MatMul(j, v) }>"
      "  s = Add(h, q)  y = Add(s, k) }";
  const auto [model, graph] = analyze(text);
  CHECK(groups_of(graph) == Lines{"MatMul->r: 5 neurons | w2.1 v2.0"});
  const auto body = DependencyGraph::analyze(*model.graphs()[2]);
  REQUIRE(body);
  CHECK(groups_of(*body) == Lines{"MatMul->i: 4 neurons | w.1 v.0"});
  const auto other = DependencyGraph::analyze(*model.graphs()[1]);
  REQUIRE(other);
  CHECK(other->groups().empty());
}

TEST_CASE("Initializers that are inputs or outputs of the graph stay") {
  CHECK(groups_of(HEAD "g (float[1,3] x, float[4] b) => (float[1,2] y)"
                       "<float[3,4] w, float[4] b = {1,2,3,4}, float[4,2] v> {"
                       "  a = MatMul(x, w)  c = Add(a, b)  y = MatMul(c, v) }")
            .empty());
  CHECK(groups_of(HEAD "g (float[1,3] x) => (float[1,2] y, float[4,2] v)"
                       "<float[3,4] w, float[4,2] v> { a = MatMul(x, w)  y = MatMul(a, v) }")
            .empty());
}

TEST_CASE("A refused node keeps its units, and with them what they are tied to") {
  DependencyOptions options;
  options.refusal = [](const Node& node) { return std::string(node.output(0) == "a" ? "not selected" : ""); };
  constexpr std::string_view text = HEAD
      "g (float[1,3] x) => (float[1,2] y) <float[3,4] w, float[4,5] v, float[5,2] u> {"
      "  a = MatMul(x, w)  b = MatMul(a, v)  y = MatMul(b, u) }";
  CHECK(groups_of(text, options) == Lines{"MatMul->b: 5 neurons | v.1 u.0"});
  CHECK(blocked_of(text, options)[0] == "w.1 4/4 MatMul 'MatMul->a': not selected");
}

TEST_CASE("Explain tells groups and the way to what blocks") {
  const auto [model, graph] = analyze(HEAD
                                      "g (float[1,3] x) => (float[1,2] y) <float[3,4] w, float[4,2] v> {"
                                      "  a = MatMul(x, w)  y = MatMul(a, v) }");
  CHECK(graph.explain(model.main().nodes()[1]) ==
        Lines{"axis 0 of 'v' (reads): 4 indices, 4 can go", "  4 neurons of group 'MatMul->a'; each goes with",
              "    1 of axis 1 of 'w' (read by 'a')", "    1 of axis 0 of 'v' (read by 'y')",
              "axis 1 of 'v' (makes): 2 indices, 0 can go", "  with axis 1 of 'y', tied by MatMul 'MatMul->y'",
              "  fixed by 'y' is an output of the model"});
}

TEST_CASE("kept_axes cuts every member") {
  const auto [model, graph] = analyze(HEAD
                                      "g (float[1,3] x) => (float[1,2] y) <float[3,4] w, float[4,2] v> {"
                                      "  a = MatMul(x, w)  y = MatMul(a, v) }");
  const KeptAxes kept = kept_axes(graph, {{1, 2}});
  CHECK(kept.all().size() == 3);
  CHECK(*kept.find({"w", "a", 1}, 1) == Indices{0, 3});
  CHECK(*kept.find({"v", "y", 1}, 0) == Indices{0, 3});
  CHECK(*kept.find({"a", {}, 0}, 1) == Indices{0, 3});
}

TEST_CASE("A literal of the wrong type fixes what it is about, and nothing else") {
  CHECK(groups_of("<ir_version: 8, opset_import: [\"\": 13]> g (float[1,2] x) => (float[] y, float[1,2] z)"
                  "<float[2,3] w, float[3,2] v, float[1] axes> {"
                  "  y = ReduceSum(x, axes)  h = MatMul(x, w)  z = MatMul(h, v) }") ==
        Lines{"MatMul->h: 3 neurons | w.1 v.0"});
}

}  // namespace onnxpress::testing
