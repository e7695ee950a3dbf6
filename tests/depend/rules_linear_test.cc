// Rules of Conv, ConvTranspose, Gemm, MatMul, Einsum: groups, and the proof that they are right.
#include <catch2/catch_test_macros.hpp>

#include "groups_text.h"
#include "proving.h"

namespace onnxpress::testing {

TEST_CASE("A depthwise convolution passes channels on, with a multiplier too") {
  require_groups(HEAD
                 "g (float[2,3,6,6] x) => (float[2,2,6,6] y)"
                 "<float[6,3,1,1] w1, float[6,1,3,3] d, float[6] db, float[12,1,1,1] m, float[2,12,1,1] w2> {"
                 "  a = Conv(x, w1)  b = Conv<group=6, pads=[1,1,1,1]>(a, d, db)  r = Relu(b)"
                 "  c = Conv<group=6>(r, m)  y = Conv(c, w2) }",
                 {"Conv->a: 6 channels | w1.0 d.0 db.0 m.0*2 w2.1*2"});
}

TEST_CASE("Many small groups of a convolution go as a whole") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[8,3,1,1] w1, float[12,2,3,3] w2, float[12] b2, float[2,12,1,1] w3> {"
                 "  a = Conv(x, w1)  r = Relu(a)  b = Conv<group=4, pads=[1,1,1,1]>(r, w2, b2)  y = Conv(b, w3) }",
                 {"Conv->a: 4 channels | w1.0*2 w2.0*3 b2.0*3 w3.1*3"});
}

TEST_CASE("Few large groups of a convolution lose the same positions") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[8,3,1,1] w1, float[6,4,3,3] w2, float[6] b2, float[2,6,1,1] w3> {"
                 "  a = Conv(x, w1)  r = Relu(a)  b = Conv<group=2, pads=[1,1,1,1]>(r, w2, b2)  y = Conv(b, w3) }",
                 {"Conv->a: 4 channels | w1.0*2 w2.1", "Conv->b: 3 channels | w2.0*2 b2.0*2 w3.1*2"});
}

TEST_CASE("Transposed convolutions: axes of the weight the other way round") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,8,8] y)"
                 "<float[6,3,1,1] w1, float[6,5,2,2] w2, float[5] b2, float[2,5,1,1] w3> {"
                 "  a = Conv(x, w1)  b = ConvTranspose<strides=[2,2]>(a, w2, b2)  r = Relu(b)  y = Conv(r, w3) }",
                 {"Conv->a: 6 channels | w1.0 w2.0", "ConvTranspose->b: 5 channels | w2.1 b2.0 w3.1"});
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,8,8] y)"
                 "<float[6,3,1,1] w1, float[6,1,2,2] w2, float[2,6,1,1] w3> {"
                 "  a = Conv(x, w1)  b = ConvTranspose<strides=[2,2], group=6>(a, w2)  y = Conv(b, w3) }",
                 {"Conv->a: 6 channels | w1.0 w2.0 w3.1"});
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,8,8] y)"
                 "<float[8,3,1,1] w1, float[8,3,2,2] w2, float[2,6,1,1] w3> {"
                 "  a = Conv(x, w1)  b = ConvTranspose<strides=[2,2], group=2>(a, w2)  y = Conv(b, w3) }",
                 {"Conv->a: 4 channels | w1.0*2 w2.0*2", "ConvTranspose->b: 3 channels | w2.1 w3.1*2"});
}

TEST_CASE("A convolution whose groups do not divide its channels is left alone") {
  CHECK(groups_of(HEAD "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                       "<float[8,3,1,1] w1, float[6,2,3,3] w2, float[2,6,1,1] w3> {"
                       "  a = Conv(x, w1)  b = Conv<group=3>(a, w2)  y = Conv(b, w3) }")
            .empty());
}

TEST_CASE("Gemm in every orientation; a bias that is one number is tied to nothing") {
  require_groups(HEAD
                 "g (float[2,3] x) => (float[2,2] y) <float[5,3] w1, float[1] b1, float[5,2] w2, float[2] b2> {"
                 "  a = Gemm<transB=1>(x, w1, b1)  r = Tanh(a)  y = Gemm<alpha=0.5>(r, w2, b2) }",
                 {"Gemm->a: 5 neurons | w1.0 w2.0"});
  require_groups(HEAD
                 "g (float[3,2] x) => (float[2,2] y) <float[3,5] w1, float[2,5] b1, float[5,2] w2> {"
                 "  a = Gemm<transA=1>(x, w1, b1)  y = Gemm(a, w2) }",
                 {"Gemm->a: 5 neurons | w1.1 b1.1 w2.0"});
}

TEST_CASE("A weight may be the first operand of a MatMul") {
  require_groups(HEAD
                 "g (float[3,2] x) => (float[4,2] y) <float[6,3] w1, float[6,1] b, float[4,6] w2> {"
                 "  a = MatMul(w1, x)  c = Add(a, b)  y = MatMul(w2, c) }",
                 {"MatMul->a: 6 neurons | w1.0 b.0 w2.1"});
}

TEST_CASE("A stack of weights has a unit per matrix, and one per column of all") {
  require_groups(HEAD
                 "g (float[1,2,3] x) => (float[2,2] y)"
                 "<float[4,3,5] w1, float[4,5,2] w2, int64[1] axes = {0}> {"
                 "  a = MatMul(x, w1)  r = Relu(a)  b = MatMul(r, w2)  y = ReduceSum<keepdims=0>(b, axes) }",
                 {"MatMul->a: 4 neurons | w1.0 w2.0", "MatMul->a: 5 neurons | w1.2 w2.1"});
}

TEST_CASE("Activations multiplied with each other: the reduced axis goes in both") {
  require_groups(HEAD
                 "g (float[1,4,3] x) => (float[1,4,2] y) <float[3,6] q, float[3,6] k, float[3,5] v, float[5,2] o> {"
                 "  a = MatMul(x, q)  b = MatMul(x, k)  c = MatMul(x, v)  t = Transpose<perm=[0,2,1]>(b)"
                 "  s = MatMul(a, t)  p = Softmax(s)  z = MatMul(p, c)  y = MatMul(z, o) }",
                 {"MatMul->a: 6 neurons | q.1 k.1", "MatMul->c: 5 neurons | v.1 o.0"});
}

TEST_CASE("Einsum: one axis per letter") {
  require_groups(HEAD
                 "g (float[2,3,4] x) => (float[2,3,2] y) <float[4,6] w, float[6,2] v> {"
                 "  a = Einsum<equation=\"bsd, dh -> bsh\">(x, w)  y = Einsum<equation=\"bsh,ho->bso\">(a, v) }",
                 {"Einsum->a: 6 neurons | w.1 v.0"});
  CHECK(groups_of(HEAD "g (float[2,3,4] x) => (float[2,3,2] y) <float[4,6] w, float[6,2] v> {"
                       "  a = MatMul(x, w)  y = Einsum<equation=\"...h,ho->...o\">(a, v) }")
            .empty());
  CHECK(groups_of(HEAD "g (float[4] x) => (float[2] y) <float[4,36] w, int64[2] s = {6,6}, float[6,2] v> {"
                       "  a = MatMul(x, w)  r = Reshape(a, s)  d = Einsum<equation=\"ii->i\">(r)  y = MatMul(d, v) }")
            .empty());
}

TEST_CASE("Weights that are stored transposed or in half precision make units all the same") {
  CHECK(groups_of(HEAD "g (float[1,3] x) => (float[1,2] y) <float[4,3] w, float16[4,2] v> {"
                       "  t = Transpose(w)  a = MatMul(x, t)  c = Cast<to=1>(v)  y = MatMul(a, c) }") ==
        Lines{"Transpose->t: 4 neurons | w.0 v.0"});
}

TEST_CASE("Weights that are stored as integers make units too; what only follows makes none") {
  CHECK(groups_of(HEAD
                  "g (float[1,3] x) => (float[1,2] y)"
                  "<int8[3,4] w, float s = {0.5}, int8[4,2] v> {"
                  "  d = DequantizeLinear(w, s)  a = MatMul(x, d)  e = DequantizeLinear(v, s)  y = MatMul(a, e) }") ==
        Lines{"DequantizeLinear->d: 4 neurons | w.1 v.0"});
  CHECK(groups_of(HEAD "g (float[1,1] x) => (float[1,1] y) <float[1,4] b, int64[1] axes = {1}> {"
                       "  a = Add(x, b)  y = ReduceSum(a, axes) }")
            .empty());
}

TEST_CASE("Fused forms of the runtime behave like what they are made of") {
  constexpr std::string_view head = "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> ";
  CHECK(groups_of(std::string(head) +
                  "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                  "<float[6,3,1,1] w1, float[6] b1, float[6,3,1,1] w2, float[2,6,1,1] w3> {"
                  "  a = com.microsoft.FusedConv<activation=\"Relu\">(x, w1, b1)"
                  "  b = com.microsoft.FusedConv<activation=\"Relu\">(x, w2, , a)  y = Conv(b, w3) }") ==
        Lines{"FusedConv->a: 6 channels | w1.0 b1.0 w2.0 w3.1"});
  CHECK(groups_of(std::string(head) +
                  "g (float[1,3] x) => (float[1,2] y) <float[6,3] w1, float[6] b, float[6,2] w2> {"
                  "  a = com.microsoft.FusedMatMul<transB=1>(x, w1)  c = com.microsoft.BiasGelu(a, b)"
                  "  d = com.microsoft.QuickGelu(c)  y = MatMul(d, w2) }") ==
        Lines{"FusedMatMul->a: 6 neurons | w1.0 b.0 w2.0"});
  CHECK(groups_of(std::string(head) + "g (float[1,3] x) => (float[1,2] y) <float[3,6] w1, float[6,2] w2> {"
                                      "  a = MatMul(x, w1)  b = com.microsoft.Unheard(a)  y = MatMul(b, w2) }")
            .empty());
}

}  // namespace onnxpress::testing
