// Rules of Reshape and its kin: which factor of a joined axis is cut.
#include <catch2/catch_test_macros.hpp>

#include "groups_text.h"
#include "proving.h"

namespace onnxpress::testing {

TEST_CASE("Flatten: a channel is a run of the joined axis") {
  require_groups(HEAD
                 "g (float[N,3,2,2] x) => (float[N,2] y) <float[6,3,1,1] w1, float[24,2] w2> {"
                 "  a = Conv(x, w1)  f = Flatten(a)  y = Gemm(f, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.0*4"});
  require_groups(HEAD
                 "g (float[N,3,2,2] x) => (float[N,2] y) <float[6,3,1,1] w1, float[24,2] w2, int64[2] s = {0,-1}> {"
                 "  a = Conv(x, w1)  f = Reshape(a, s)  y = Gemm(f, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.0*4"});
}

TEST_CASE("Flatten with channels last: every position has its channels") {
  require_groups(HEAD
                 "g (float[N,3,2,2] x) => (float[N,2] y) <float[6,3,1,1] w1, float[24,2] w2> {"
                 "  a = Conv(x, w1)  t = Transpose<perm=[0,2,3,1]>(a)  f = Flatten(t)  y = Gemm(f, w2) }",
                 {"Conv->a: 6 channels | w1.0 w2.0*4"});
}

// Attention with queries, keys and values in one weight, as exporters write it.
constexpr std::string_view kPacked = HEAD
    "g (float[B,4,8] x) => (float[B,4,8] y)"
    "<float[8,24] qkv, float[24] b, float[8,8] o, int64[5] split = {0,0,3,2,4}, int64[3] merge = {0,0,8},"
    " int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}> {"
    "  m = MatMul(x, qkv)  mb = Add(m, b)  r = Reshape(mb, split)  t = Transpose<perm=[2,0,3,1,4]>(r)"
    "  q = Gather(t, i0)  k = Gather(t, i1)  v = Gather(t, i2)  kt = Transpose<perm=[0,1,3,2]>(k)"
    "  s = MatMul(q, kt)  p = Softmax(s)  z = MatMul(p, v)  zt = Transpose<perm=[0,2,1,3]>(z)"
    "  zr = Reshape(zt, merge)  y = MatMul(zr, o) }";

TEST_CASE("Heads are found in a packed weight") {
  require_groups(kPacked, {"MatMul->m: 2 heads | qkv.1*12 b.0*12 o.0*4"});
}

TEST_CASE("A grouped query: the query heads of one key and value head go together") {
  require_groups(HEAD
                 "g (float[1,4,8] x) => (float[1,4,8] y)"
                 "<float[8,16] q, float[8,8] k, float[8,8] v, float[16,8] o, int64[4] qs = {1,4,4,4},"
                 " int64[4] ks = {1,4,2,4}, int64[1] two = {2}, int64[5] es = {1,2,2,4,4}, int64[4] rs = {1,4,4,4},"
                 " int64[3] ms = {1,4,16}> {"
                 "  qa = MatMul(x, q)  qr = Reshape(qa, qs)  qt = Transpose<perm=[0,2,1,3]>(qr)"
                 "  ka = MatMul(x, k)  kr = Reshape(ka, ks)  kt = Transpose<perm=[0,2,1,3]>(kr)"
                 "  ku = Unsqueeze(kt, two)  ke = Expand(ku, es)  kh = Reshape(ke, rs)"
                 "  va = MatMul(x, v)  vr = Reshape(va, ks)  vt = Transpose<perm=[0,2,1,3]>(vr)"
                 "  vu = Unsqueeze(vt, two)  ve = Expand(vu, es)  vh = Reshape(ve, rs)"
                 "  kx = Transpose<perm=[0,1,3,2]>(kh)  s = MatMul(qt, kx)  p = Softmax(s)  z = MatMul(p, vh)"
                 "  zt = Transpose<perm=[0,2,1,3]>(z)  zr = Reshape(zt, ms)  y = MatMul(zr, o) }",
                 {"MatMul->qa: 2 heads | q.1*8 k.1*4 v.1*4 o.0*8"});
}

TEST_CASE("Rotary embedding ties the two halves, and the tables") {
  require_groups(HEAD
                 "g (float[1,4,8] x) => (float[1,4,4] y)"
                 "<float[8,8] q, float[8,8] k, float[4,8] cos, float[4,8] sin, float[8,4] o, int64[1] zero = {0},"
                 " int64[1] half = {4}, int64[1] end = {9223372036854775807}, int64[1] last = {-1}> {"
                 "  qa = MatMul(x, q)  q1 = Slice(qa, zero, half, last)  q2 = Slice(qa, half, end, last)"
                 "  qn = Neg(q2)  qr = Concat<axis=-1>(qn, q1)  qc = Mul(qa, cos)  qi = Mul(qr, sin)"
                 "  qe = Add(qc, qi)"
                 "  ka = MatMul(x, k)  k1, k2 = Split<axis=-1>(ka)"
                 "  kn = Neg(k2)  kr = Concat<axis=-1>(kn, k1)  kc = Mul(ka, cos)  ki = Mul(kr, sin)"
                 "  ke = Add(kc, ki)"
                 "  kx = Transpose<perm=[0,2,1]>(ke)  s = MatMul(qe, kx)  p = Softmax(s)  z = MatMul(p, x)"
                 "  y = MatMul(z, o) }",
                 {"MatMul->qa: 4 neurons | q.1*2 cos.1*2 sin.1*2 k.1*2 cos.1*2 sin.1*2"});
}

TEST_CASE("A channel shuffle: the first factor that leaves something to choose") {
  require_groups(HEAD
                 "g (float[1,3,2,2] x) => (float[1,2,2,2] y)"
                 "<float[8,3,1,1] w1, float[2,8,1,1] w2, int64[5] s = {1,2,4,2,2}, int64[4] u = {1,8,2,2},"
                 " int64[2] halves = {4,4}, float[4,4,1,1] w3> {"
                 "  a = Conv(x, w1)  r = Reshape(a, s)  t = Transpose<perm=[0,2,1,3,4]>(r)  b = Reshape(t, u)"
                 "  l, h = Split<axis=1>(b, halves)  c = Conv(h, w3)  d = Concat<axis=1>(l, c)  y = Conv(d, w2) }",
                 {"Conv->a: 2 channels | w1.0*4 w3.1*2 w2.1*2", "Conv->c: 4 channels | w3.0 w2.1"});
  // Cut by its halves all of the first one would be a single unit.
  require_groups(HEAD
                 "g (float[1,3,2,2] x) => (float[1,2,2,2] y)"
                 "<float[4,3,1,1] w1, float[4,3,1,1] w2, float[4,4,1,1] w3, float[2,8,1,1] w4,"
                 " int64[5] s = {1,2,4,2,2}, int64[4] u = {1,8,2,2}> {"
                 "  a = Conv(x, w1)  b = Conv(x, w2)  c = Concat<axis=1>(a, b)"
                 "  r = Reshape(c, s)  t = Transpose<perm=[0,2,1,3,4]>(r)  v = Reshape(t, u)"
                 "  l, h = Split<axis=1>(v)  d = Conv(h, w3)  e = Concat<axis=1>(l, d)"
                 "  r2 = Reshape(e, s)  t2 = Transpose<perm=[0,2,1,3,4]>(r2)  v2 = Reshape(t2, u)  y = Conv(v2, w4) }",
                 {"Conv->a: 1 channels | w1.0*2 w2.0*2 w4.1*4", "Conv->a: 2 channels | w1.0 w2.0 w3.1*2",
                  "Conv->d: 1 channels | w3.0*4 w4.1*4"});
}

TEST_CASE("A group normalization as exporters write it: whole groups") {
  require_groups(HEAD
                 "g (float[1,3,2,2] x) => (float[1,2,2,2] y)"
                 "<float[8,3,1,1] w1, int64[3] s = {1,4,-1}, float[4] one = {1,1,1,1}, float[4] zero, "
                 " int64[4] u = {1,8,2,2}, float[8,1,1] scale, float[8,1,1] shift, float[2,8,1,1] w2> {"
                 "  a = Conv(x, w1)  r = Reshape(a, s)  n = InstanceNormalization(r, one, zero)  b = Reshape(n, u)"
                 "  c = Mul(b, scale)  d = Add(c, shift)  y = Conv(d, w2) }",
                 {"Conv->a: 4 channels | w1.0*2 one.0 zero.0 scale.0*2 shift.0*2 w2.1*2"});
}

TEST_CASE("Axes of one come and go") {
  require_groups(HEAD
                 "g (float[N,3] x) => (float[N,2] y)"
                 "<float[3,6] w1, float[2,6,1,1] w2, int64[2] s = {2,3}, int64[2] t = {-1,-2}> {"
                 "  a = MatMul(x, w1)  u = Unsqueeze(a, s)  c = Conv(u, w2)  y = Squeeze(c, t) }",
                 {"MatMul->a: 6 channels | w1.1 w2.1"});
}

TEST_CASE("Tiled units go with all their copies; what an Expand repeats stays") {
  require_groups(HEAD
                 "g (float[2,3] x) => (float[2,2] y) <float[3,4] w1, int64[2] r = {1,2}, float[8,2] w2> {"
                 "  a = MatMul(x, w1)  t = Tile(a, r)  y = MatMul(t, w2) }",
                 {"MatMul->a: 4 neurons | w1.1 w2.0*2"});
  constexpr std::string_view expanded = HEAD
      "g (float[2,3] x) => (float[2,2] y) <float[3,1] w1, int64[2] r = {2,8}, float[8,2] w2> {"
      "  a = MatMul(x, w1)  t = Expand(a, r)  y = MatMul(t, w2) }";
  CHECK(groups_of(expanded).empty());
}

TEST_CASE("Axes that mix in a Reshape stay") {
  CHECK(groups_of(HEAD "g (float[4,3] x) => (float[3,2] y) <float[3,6] w1, int64[2] s = {3,8}, float[8,2] w2> {"
                       "  a = MatMul(x, w1)  r = Reshape(a, s)  y = MatMul(r, w2) }")
            .empty());
}

TEST_CASE("Two free dimensions in one run of a Reshape stay, with all around them") {
  constexpr std::string_view text = HEAD
      "g (float[A,B,3] x) => (float[C,2] y) <float[3,6] w1, int64[2] s = {-1,4}, float[4,2] w2> {"
      "  a = MatMul(x, w1)  r = Reshape(a, s)  y = MatMul(r, w2) }";
  CHECK(groups_of(text).empty());
  CHECK(blocked_of(text)[0] == "w1.1 6/6 Reshape 'Reshape->r': reshaped together with other axes");
}

TEST_CASE("A target computed from Shape() follows; one that is an input blocks and says so") {
  require_groups(HEAD
                 "g (float[B,S,3] x) => (float[B,S,2] y)"
                 "<float[3,8] w1, float[8,2] w2, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[2] hd = {2,4},"
                 " int64[1] all = {8}> {"
                 "  a = MatMul(x, w1)  s = Shape(a)  n = Gather(s, i0)  l = Gather(s, i1)"
                 "  t = Concat<axis=0>(n, l, hd)  r = Reshape(a, t)  q = Relu(r)"
                 "  u = Concat<axis=0>(n, l, all)  v = Reshape(q, u)  y = MatMul(v, w2) }",
                 {"MatMul->a: 2 neurons | w1.1*4 w2.0*4"});
  constexpr std::string_view runtime = HEAD
      "g (float[1,3] x, int64[2] s) => (float[1,2] y) <float[3,8] w1, float[8,2] w2> {"
      "  a = MatMul(x, w1)  r = Reshape(a, s)  y = MatMul(r, w2) }";
  CHECK(groups_of(runtime).empty());
  CHECK(blocked_of(runtime)[0].contains("run @clean first"));
}

TEST_CASE("Sizes that are computed, but known, are literals") {
  require_groups(HEAD
                 "g (float[N,3,2,2] x) => (float[N,2,2,2] y)"
                 "<float[8,3,1,1] w1, float[2,4,1,1] w2, int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}> {"
                 "  a = Conv(x, w1)  s = Shape(a)  c = Gather(s, one)  h = Div(c, two)"
                 "  l = Slice(a, zero, h, one)  r = Slice(a, h, c, one)  m = Mul(l, r)  y = Conv(m, w2) }",
                 {"Conv->a: 4 channels | w1.0*2 w2.1"});
}

}  // namespace onnxpress::testing
