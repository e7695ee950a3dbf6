// Rules of Concat, Split, Slice, Gather, Pad.
#include <catch2/catch_test_macros.hpp>

#include "groups_text.h"
#include "proving.h"

namespace onnxpress::testing {

TEST_CASE("Concat: each part keeps its place; the part that must stay does") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[4,3,1,1] w1, float[5,7,1,1] w2, float[2,12,1,1] w3> {"
                 "  a = Conv(x, w1)  c = Concat<axis=1>(x, a)  b = Conv(c, w2)  d = Concat<axis=1>(c, b)"
                 "  y = Conv(d, w3) }",
                 {"Conv->a: 4 channels | w1.0 w2.1 w3.1", "Conv->b: 5 channels | w2.0 w3.1"});
}

TEST_CASE("Split in uneven parts, and the split and concat of a C2f block") {
  require_groups(HEAD
                 "g (float[1,3] x) => (float[1,2] y)"
                 "<float[3,7] w1, int64[2] s = {3,4}, float[3,2] w2, float[4,2] w3> {"
                 "  a = MatMul(x, w1)  l, r = Split<axis=1>(a, s)  b = MatMul(l, w2)  c = MatMul(r, w3)"
                 "  y = Add(b, c) }",
                 {"MatMul->a: 3 neurons | w1.1 w2.0", "MatMul->a: 4 neurons | w1.1 w3.0"});
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[8,3,1,1] w1, float[4,4,3,3] w2, float[4,4,3,3] w3, float[2,12,1,1] w4> {"
                 "  a = Conv(x, w1)  l, r = Split<axis=1>(a)  b = Conv<pads=[1,1,1,1]>(r, w2)  c = Relu(b)"
                 "  d = Conv<pads=[1,1,1,1]>(c, w3)  e = Add(r, d)  f = Concat<axis=1>(l, r, e)  y = Conv(f, w4) }",
                 {"Conv->a: 4 channels | w1.0 w4.1", "Conv->a: 4 channels | w1.0 w2.1 w3.0 w4.1*2",
                  "Conv->b: 4 channels | w2.0 w3.1"});
}

TEST_CASE("Slice: negative bounds, steps, backwards") {
  require_groups(HEAD
                 "g (float[1,3] x) => (float[1,2] y)"
                 "<float[3,8] w1, int64[1] s = {-2}, int64[1] e = {-9}, int64[1] a1 = {-1}, int64[1] t = {-3},"
                 " float[3,2] w2, float[8,2] w3> {"
                 "  a = MatMul(x, w1)  b = Slice(a, s, e, a1, t)  c = MatMul(b, w2)  d = MatMul(a, w3)"
                 "  y = Add(c, d) }",
                 {"MatMul->a: 3 neurons | w1.1 w2.0 w3.0", "MatMul->a: 5 neurons | w1.1 w3.0"});
  CHECK(groups_of(HEAD "g (float[1,3] x, int64[1] e) => (float[1,2] y)"
                       "<float[3,8] w1, int64[1] s = {0}, int64[1] a1 = {1}, float[8,2] w3> {"
                       "  a = MatMul(x, w1)  b = Slice(a, s, e, a1)  c = ReduceMax<keepdims=1, axes=[1]>(b)"
                       "  d = MatMul(a, w3)  y = Add(c, d) }")
            .empty());
}

TEST_CASE("Gather: a list of channels follows, one channel holds all, live indices hold the rows of a table") {
  require_groups(HEAD
                 "g (float[1,3] x) => (float[1,2] y)"
                 "<float[3,4] w1, int64[6] i = {3,0,-3,2,0,1}, float[6,2] w2> {"
                 "  a = MatMul(x, w1)  b = Gather<axis=1>(a, i)  y = MatMul(b, w2) }",
                 {"MatMul->a: 2 neurons | w1.1 w2.0*2", "MatMul->a: 2 neurons | w1.1 w2.0"});
  constexpr std::string_view one = HEAD
      "g (float[1,3] x) => (float[1] y) <float[3,4] w1, int64 i = {1}> {"
      "  a = MatMul(x, w1)  y = Gather<axis=1>(a, i) }";
  CHECK(blocked_of(one) == Lines{"w1.1 4/4 Gather 'Gather->y': one index of it is selected"});
  require_groups(HEAD
                 "g (int64[2] ids) => (float[2,2] y) <float[9,6] table, float[6,2] w> {"
                 "  e = Gather(table, ids)  r = Relu(e)  y = MatMul(r, w) }",
                 {"Gather->e: 6 neurons | table.1 w.0"});
}

TEST_CASE("Pad: channels that are padded to belong to what they are added to") {
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                 "<float[4,3,1,1] w1, float[6,4,1,1] w2, int64[8] p = {0,1,0,0,0,1,0,0}, float[2,6,1,1] w3> {"
                 "  a = Conv(x, w1)  b = Conv(a, w2)  c = Pad(a, p)  d = Add(b, c)  y = Conv(d, w3) }",
                 {"Conv->a: 4 channels | w1.0 w2.0 w2.1 w3.1", "Conv->b: 2 channels | w2.0 w3.1"});
  CHECK(groups_of(HEAD "g (float[1,3,4,4] x) => (float[1,2,4,4] y)"
                       "<float[4,3,1,1] w1, int64[8] p = {0,1,0,0,0,1,0,0}, float[2,6,1,1] w3> {"
                       "  a = Conv(x, w1)  c = Pad<mode=\"reflect\">(a, p)  y = Conv(c, w3) }")
            .empty());
  require_groups(HEAD
                 "g (float[1,3,4,4] x) => (float[1,2,6,6] y)"
                 "<float[4,3,1,1] w1, int64[8] p = {0,0,1,1,0,0,1,1}, float[2,4,1,1] w3> {"
                 "  a = Conv(x, w1)  c = Pad<mode=\"reflect\">(a, p)  y = Conv(c, w3) }",
                 {"Conv->a: 4 channels | w1.0 w3.1"});
}

TEST_CASE("A triangle needs both its axes") {
  CHECK(groups_of(HEAD "g (float[4,3] x) => (float[4,2] y) <float[3,4] w1, float[4,2] w2> {"
                       "  a = MatMul(x, w1)  t = Trilu(a)  y = MatMul(t, w2) }")
            .empty());
}

}  // namespace onnxpress::testing
