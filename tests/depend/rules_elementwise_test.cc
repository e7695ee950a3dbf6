// Rules of element-wise operators, pools, reductions and softmax.
#include <catch2/catch_test_macros.hpp>

#include "groups_text.h"
#include "proving.h"

namespace onnxpress::testing {

TEST_CASE("Constants beside a channel are cut with it; those of one number are not") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[6,3,1,1] w1, float[6,1,1] bias, float[1,6,1,1] scale, float[6,1,1] slope, float one = {1},"
                 " float[2,6,1,1] w2> {"
                 "  a = Conv(x, w1)  b = Add(a, bias)  c = Mul(scale, b)  d = PRelu(c, slope)  e = Mul(d, one)"
                 "  y = Conv(e, w2) }",
                 {"Conv->a: 6 channels | w1.0 bias.0 scale.1 slope.0 w2.1"});
}

TEST_CASE("A gate ties what makes it to what it multiplies; its hidden layer is a group of its own") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[6,3,1,1] w1, float[4,6,1,1] s1, float[4] c1, float[6,4,1,1] s2, float[6] c2,"
                 " float[2,6,1,1] w2> {"
                 "  a = Conv(x, w1)  r = Relu(a)  p = GlobalAveragePool(r)  f = Conv(p, s1, c1)  h = Relu(f)"
                 "  e = Conv(h, s2, c2)  g1 = HardSigmoid(e)  m = Mul(r, g1)  y = Conv(m, w2) }",
                 {"Conv->a: 6 channels | w1.0 s1.1 s2.0 c2.0 w2.1", "Conv->f: 4 channels | s1.0 c1.0 s2.1"});
}

TEST_CASE("What is broadcast over an axis is not tied along it") {
  require_groups(HEAD
                 "g (float[1,3] x) => (float[1,2] y) <float[3,1] w1, float[3,6] w2, float[6,2] w3> {"
                 "  a = MatMul(x, w1)  b = MatMul(x, w2)  c = Add(a, b)  y = MatMul(c, w3) }",
                 {"MatMul->b: 6 neurons | w2.1 w3.0"});
}

TEST_CASE("Before opset 7 the second operand says where it starts") {
  CHECK(groups_of("<ir_version: 3, opset_import: [\"\": 6]> "
                  "g (float[1,3,4,4] x) => (float[1,2,4,4] y) <float[4,3,1,1] w1, float[4] b, float[2,4,1,1] w2> {"
                  "  a = Conv(x, w1)  c = Add<broadcast=1, axis=1>(a, b)  r = Relu(c)  y = Conv(r, w2) }") ==
        Lines{"Conv->a: 4 channels | w1.0 b.0 w2.1"});
}

TEST_CASE("Quantizers: scales per channel are cut, a scale for all is not") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[6,3,1,1] w1, float[6] s = {1,1,1,1,1,1}, uint8[6] z = {0,0,0,0,0,0}, float t = {0.01},"
                 " uint8 u = {128}, float[2,6,1,1] w2> {"
                 "  a = Conv(x, w1)  q = QuantizeLinear(a, t, u)  d = DequantizeLinear(q, t, u)"
                 "  y = Conv(d, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.1"});
  CHECK(groups_of(HEAD "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                       "<float[6,3,1,1] w1, float[6] s, uint8[6] z, float[2,6,1,1] w2> {"
                       "  a = Conv(x, w1)  q = QuantizeLinear(a, s, z)  d = DequantizeLinear(q, s, z)"
                       "  y = Conv(d, w2) }") == Lines{"Conv->a: 6 channels | w1.0 s.0 z.0 s.0 z.0 w2.1"});
}

TEST_CASE("Pools pass channels; the positions of maxima count through them") {
  require_groups(HEAD
                 "g (float[1,3,8,8] x) => (float[1,2,2,2] y) <float[6,3,1,1] w1, float[2,6,1,1] w2> {"
                 "  a = Conv(x, w1)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)"
                 "  q = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)  y = Conv(q, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.1"});
  CHECK(groups_of(HEAD "g (float[1,3,8,8] x) => (float[1,2,4,4] y, int64[1,6,4,4] i)"
                       "<float[6,3,1,1] w1, float[2,6,1,1] w2> {"
                       "  a = Conv(x, w1)  p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)  y = Conv(p, w2) }")
            .empty());
}

TEST_CASE("Resizing and moves between channels and space") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,8,8] y)"
                 "<float[6,3,1,1] w1, float[2,6,1,1] w2, float[4] s = {1,1,2,2}> {"
                 "  a = Conv(x, w1)  b = Resize<mode=\"nearest\">(a, , s)  y = Conv(b, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.1"});
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,8,8] y) <float[12,3,1,1] w1, float[2,3,1,1] w2> {"
                 "  a = Conv(x, w1)  b = DepthToSpace<blocksize=2>(a)  y = Conv(b, w2) }",
                 {"Conv->a: 3 channels | w1.0*4 w2.1"});
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,8,8] y) <float[12,3,1,1] w1, float[2,3,1,1] w2> {"
                 "  a = Conv(x, w1)  b = DepthToSpace<blocksize=2, mode=\"CRD\">(a)  y = Conv(b, w2) }",
                 {"Conv->a: 3 channels | w1.0*4 w2.1"});
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,2,2] y) <float[4,3,1,1] w1, float[2,16,1,1] w2> {"
                 "  a = Conv(x, w1)  b = SpaceToDepth<blocksize=2>(a)  y = Conv(b, w2) }",
                 {"Conv->a: 4 channels | w1.0 w2.1*4"});
  CHECK(groups_of(HEAD "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                       "<float[6,3,1,1] w1, float[2,6,1,1] w2, float[8] r, int64[4] s = {1,6,4,4}> {"
                       "  a = Conv(x, w1)"
                       "  b = Resize<coordinate_transformation_mode=\"tf_crop_and_resize\">(a, r, , s)"
                       "  y = Conv(b, w2) }")
            .empty());
}

TEST_CASE("A sum over an axis loses what was zero; a mean or a maximum does not") {
  constexpr std::string_view before =
      "g (float[2,3] x) => (float[2] y) <float[3,6] w, int64[1] axes = {1}> { a = MatMul(x, w) ";
  const auto with = [&](std::string_view reduce) {
    return std::string(HEAD) + std::string(before) + std::string(reduce) + " }";
  };
  require_groups(with("y = ReduceSum<keepdims=0>(a, axes)"), {"MatMul->a: 6 neurons | w.1"});
  require_groups(with("y = ReduceL2<keepdims=0, axes=[-1]>(a)"), {"MatMul->a: 6 neurons | w.1"});
  CHECK(groups_of(with("y = ReduceMean<keepdims=0, axes=[1]>(a)")).empty());
  CHECK(groups_of(with("y = ReduceMax<keepdims=0, axes=[1]>(a)")).empty());
  CHECK(groups_of(with("y = ReduceMean<keepdims=0, axes=[1]>(a)"), {.allow_normalized = true}) ==
        Lines{"MatMul->a: 6 neurons | w.1 ~"});
}

TEST_CASE("A mean over rows and columns leaves channels alone") {
  require_groups(HEAD
                 "g (float[N,3,4,4] x) => (float[N,2] y) <float[6,3,1,1] w1, float[6,2] w2> {"
                 "  a = Conv(x, w1)  m = ReduceMean<axes=[2,3], keepdims=0>(a)  y = MatMul(m, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.0"});
}

TEST_CASE("Softmax holds its own axis only; before opset 13 all behind it") {
  require_groups(HEAD
                 "g (float[1,3,4] x) => (float[1,2,4] y) <float[5,3] w1, float[2,5] w2> {"
                 "  a = MatMul(w1, x)  s = Softmax<axis=2>(a)  y = MatMul(w2, s) }",
                 {"MatMul->a: 5 neurons | w1.0 w2.1"});
  constexpr std::string_view behind =
      "g (float[1,3,4] x) => (float[1,4,2] y) <float[3,5] w1, float[5,2] w2> {"
      "  t = Transpose<perm=[0,2,1]>(x)  a = MatMul(t, w1)  s = Softmax<axis=1>(a)  y = MatMul(s, w2) }";
  CHECK(groups_of(std::string(HEAD) + std::string(behind)).size() == 1);
  CHECK(groups_of("<ir_version: 6, opset_import: [\"\": 11]> " + std::string(behind)).empty());
  CHECK(blocked_of("<ir_version: 6, opset_import: [\"\": 11]> " + std::string(behind))[0] ==
        "w1.1 5/5 Softmax 'Softmax->s': softmax over this axis");
}

TEST_CASE("Where the order of an axis counts it stays") {
  for (const std::string_view op :
       {"s, i = TopK<axis=-1>(a, k)", "s = CumSum(a, one)", "i = ArgMax<axis=1>(a) s = Add(a, a)"})
    CHECK(
        groups_of(std::string(HEAD) +
                  "g (float[2,3] x) => (float[2,2] y) <float[3,6] w, float[6,2] v, int64[1] k = {6}, int64 one = {1}> {"
                  "  a = MatMul(x, w) " +
                  std::string(op) + " y = MatMul(s, v) }")
            .empty());
  require_groups(HEAD
                 "g (float[2,3] x) => (float[2,2] y) <float[3,6] w, float[6,2] v, int64 zero = {0}> {"
                 "  a = MatMul(x, w)  s = CumSum(a, zero)  y = MatMul(s, v) }",
                 {"MatMul->a: 6 neurons | w.1 v.0"});
}

}  // namespace onnxpress::testing
