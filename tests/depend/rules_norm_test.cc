// Rules of normalizations and recurrent layers.
#include <catch2/catch_test_macros.hpp>

#include "groups_text.h"
#include "io/load.h"
#include "proving.h"

namespace onnxpress::testing {

TEST_CASE("Statistics per channel leave channels free") {
  require_groups(HEAD
                 "g (float[2,3,4,4] x) => (float[2,2,4,4] y)"
                 "<float[6,3,1,1] w1, float[6] s, float[6] b, float[2,6,1,1] w2> {"
                 "  a = Conv(x, w1)  n = InstanceNormalization(a, s, b)  y = Conv(n, w2) }",
                 {"Conv->a: 6 channels | w1.0 s.0 b.0 w2.1"});
}

TEST_CASE("Group normalization: whole groups, scale per group or per channel") {
  require_groups(
      "<ir_version: 8, opset_import: [\"\": 18]> "
      "g (float[2,3,4,4] x) => (float[2,2,4,4] y)"
      "<float[6,3,1,1] w1, float[3] s, float[3] b, float[2,6,1,1] w2> {"
      "  a = Conv(x, w1)  n = GroupNormalization<num_groups=3>(a, s, b)  y = Conv(n, w2) }",
      {"Conv->a: 3 channels | w1.0*2 s.0 b.0 w2.1*2"});
  CHECK(groups_of("<ir_version: 10, opset_import: [\"\": 21]> "
                  "g (float[2,3,4,4] x) => (float[2,2,4,4] y)"
                  "<float[6,3,1,1] w1, float[6] s, float[6] b, float[2,6,1,1] w2> {"
                  "  a = Conv(x, w1)  n = GroupNormalization<num_groups=3>(a, s, b)  y = Conv(n, w2) }") ==
        Lines{"Conv->a: 3 channels | w1.0*2 s.0*2 b.0*2 w2.1*2"});
  CHECK(groups_of("<ir_version: 8, opset_import: [\"\": 18]> "
                  "g (float[2,3,4,4] x) => (float[2,2,4,4] y)"
                  "<float[6,3,1,1] w1, float[4] s, float[4] b, float[2,6,1,1] w2> {"
                  "  a = Conv(x, w1)  n = GroupNormalization<num_groups=4>(a, s, b)  y = Conv(n, w2) }")
            .empty());
}

TEST_CASE("A norm over the channels holds them, unless it is allowed to be approximate") {
  constexpr std::string_view text = HEAD
      "g (float[2,3] x) => (float[2,2] y) <float[3,6] w1, float[6] s, float[6] b, float[6,2] w2> {"
      "  a = MatMul(x, w1)  n = LayerNormalization(a, s, b)  y = MatMul(n, w2) }";
  CHECK(groups_of(text).empty());
  CHECK(blocked_of(text)[0] == "w1.1 6/6 LayerNormalization 'LayerNormalization->n': normalized over this axis");
  CHECK(groups_of(text, {.allow_normalized = true}) == Lines{"MatMul->a: 6 neurons | w1.1 s.0 b.0 w2.0 ~"});
  constexpr std::string_view rms = HEAD
      "g (float[2,3] x) => (float[2,2] y) <float[3,6] w1, float[6] s, float e = {0.00001}, float[6,2] w2> {"
      "  a = MatMul(x, w1)  q = Mul(a, a)  m = ReduceMean<axes=[-1]>(q)  v = Add(m, e)  r = Sqrt(v)  d = Div(a, r)"
      "  n = Mul(d, s)  y = MatMul(n, w2) }";
  CHECK(groups_of(rms).empty());
  CHECK(groups_of(rms, {.allow_normalized = true}) == Lines{"MatMul->a: 6 neurons | w1.1 s.0 w2.0 ~"});
  constexpr std::string_view local = HEAD
      "g (float[1,3,4,4] x) => (float[1,2,4,4] y) <float[6,3,1,1] w1, float[2,6,1,1] w2> {"
      "  a = Conv(x, w1)  n = LRN<size=3>(a)  y = Conv(n, w2) }";
  CHECK(groups_of(local).empty());
  CHECK(groups_of(local, {.allow_normalized = true}) == Lines{"Conv->a: 6 channels | w1.0 w2.1 ~"});
}

TEST_CASE("Norms of the runtime with a residual: both ways hold") {
  constexpr std::string_view text =
      "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> "
      "g (float[1,2,3] x) => (float[1,2,2] y)"
      "<float[3,6] w1, float[3,6] w2, float[6] s, float[6] b, float[6,2] w3, float[6,2] w4> {"
      "  a = MatMul(x, w1)  c = MatMul(x, w2)"
      "  n, m, i, sum = com.microsoft.SkipLayerNormalization(a, c, s, b)"
      "  e = MatMul(n, w3)  f = MatMul(sum, w4)  y = Add(e, f) }";
  CHECK(groups_of(text).empty());
  CHECK(groups_of(text, {.allow_normalized = true}) == Lines{"MatMul->a: 6 neurons | w1.1 w2.1 s.0 b.0 w3.0 w4.0 ~"});
}

TEST_CASE("LSTM: a unit is a row of every gate, a column of R, and its states; inputs are a group of their own") {
  require_groups(HEAD
                 "g (float[5,1,3] x) => (float[5,1,2] y)"
                 "<float[3,4] e, float[1,20,4] w, float[1,20,5] r, float[1,40] b, float[1,1,5] h0, float[1,1,5] c0,"
                 " float[1,15] p, float[5,2] o, int64[1] one = {1}> {"
                 "  x1 = MatMul(x, e)  s = LSTM<hidden_size=5>(x1, w, r, b, , h0, c0, p)  q = Squeeze(s, one)"
                 "  y = MatMul(q, o) }",
                 {"MatMul->x1: 4 neurons | e.1 w.2", "LSTM->s: 5 hidden | w.1*4 r.1*4 r.2 b.1*8 h0.2 c0.2 p.1*3 o.0"});
}

TEST_CASE("Both directions of a recurrent layer lose the same unit, in every output") {
  require_groups(HEAD
                 "g (float[5,1,3] x) => (float[5,1,2] y)"
                 "<float[2,20,3] w, float[2,20,5] r, float[1,12,10] w2, float[1,12,4] r2, float[4,2] o,"
                 " int64[3] s3 = {5,1,10}, int64[1] one = {1}> {"
                 "  s = LSTM<hidden_size=5, direction=\"bidirectional\">(x, w, r)"
                 "  t = Transpose<perm=[0,2,1,3]>(s)  f = Reshape(t, s3)"
                 "  u = GRU<hidden_size=4, linear_before_reset=1>(f, w2, r2)  q = Squeeze(u, one)"
                 "  y = MatMul(q, o) }",
                 {"LSTM->s: 5 hidden | w.1*4 r.1*4 r.2 w2.2*2", "GRU->u: 4 hidden | w2.1*3 r2.1*3 r2.2 o.0"});
}

TEST_CASE("Last states are the same units; a state that comes from outside holds them") {
  require_groups(HEAD
                 "g (float[5,1,3] x) => (float[1,1,2] y)"
                 "<float[1,4,3] w, float[1,4,4] r, float[4,2] o> {"
                 "  s_all, h = RNN<hidden_size=4>(x, w, r)  y = MatMul(h, o) }",
                 {"RNN->s_all: 4 hidden | w.1 r.1 r.2 o.0"});
  constexpr std::string_view outside = HEAD
      "g (float[5,1,3] x, float[1,1,4] h0) => (float[1,1,2] y)"
      "<float[1,4,3] w, float[1,4,4] r, float[4,2] o> {"
      "  s_all, h = RNN<hidden_size=4>(x, w, r, , , h0)  y = MatMul(h, o) }";
  CHECK(groups_of(outside).empty());
  CHECK(blocked_of(outside)[0] == "w.1 4/4 'h0' is an input of the model");
}

TEST_CASE("A state of zeros made at run time follows") {
  require_groups(HEAD
                 "g (float[S,B,3] x) => (float[1,B,2] y)"
                 "<float[1,20,3] w, float[1,20,5] r, float[5,2] o, int64[1] one = {1}, int64[1] five = {5}> {"
                 "  s = Shape(x)  n = Gather(s, one)  z = Concat<axis=0>(one, n, five)  h0 = ConstantOfShape(z)"
                 "  s_all, h = LSTM<hidden_size=5>(x, w, r, , , h0, h0)  y = MatMul(h, o) }",
                 {"LSTM->s_all: 5 hidden | w.1*4 r.1*4 r.2 o.0"});
}

TEST_CASE("The groups of the trained test networks") {
  const auto groups = [](const std::string& name) {
    auto model = load_model(std::string(ONNXPRESS_SOURCE_DIR) + "/testdata/models/" + name);
    REQUIRE(model);
    const auto graph = DependencyGraph::analyze(model->main());
    REQUIRE(graph);
    Lines lines;
    for (const UnitGroup& group : graph->groups())
      lines.push_back(std::to_string(group.units) + " " + unit_kind_name(group.kind) + " of " +
                      std::to_string(group.width));
    return lines;
  };
  CHECK(groups("digits_cnn.onnx") == Lines{"32 channels of 1", "32 channels of 1", "88 channels of 1",
                                           "88 channels of 1", "128 channels of 1", "128 channels of 1"});
  CHECK(groups("digits_lstm.onnx") == Lines{"128 hidden of 4"});
  CHECK(groups("digits_transformer.onnx") ==
        Lines{"4 heads of 16", "192 neurons of 1", "4 heads of 16", "192 neurons of 1"});
}

}  // namespace onnxpress::testing
