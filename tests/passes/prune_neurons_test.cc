#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {

TEST_CASE("prune-neurons takes the neurons of least norm out of both matrices and the bias") {
  require_rewrite(HEAD
                  "g (float[2,2] x) => (float[2,1] y) <float[2,4] w1 = {1, 9, 2, 8, 1, 9, 2, 8},"
                  " float[4] b = {1, 2, 3, 4}, float[4,1] w2 = {1, 9, 2, 8}>"
                  "{ a = MatMul(x, w1)  c = Add(a, b)  r = Relu(c)  y = MatMul(r, w2) }",
                  "prune-neurons{ratio=0.5 round_to=1}",
                  HEAD
                  "g (float[2,2] x) => (float[2,1] y) <float[2,2] w1 = {9, 8, 9, 8},"
                  " float[2] b = {2, 4}, float[2,1] w2 = {9, 8}>"
                  "{ a = MatMul(x, w1)  c = Add(a, b)  r = Relu(c)  y = MatMul(r, w2) }");
}

TEST_CASE("prune-neurons: both projections of a gated unit") {
  require_rewrite(HEAD
                  "g (float[2,1] x) => (float[2,1] y) <float[1,4] up = {1, 9, 2, 8}, float[1,4] gate = {1, 5, 1, 5},"
                  " float[4,1] down = {1, 9, 2, 8}>"
                  "{ u = MatMul(x, up)  g = MatMul(x, gate)  s = Sigmoid(g)  m = Mul(u, s)  y = MatMul(m, down) }",
                  "prune-neurons{ratio=0.5 round_to=1 criterion=l1}",
                  HEAD
                  "g (float[2,1] x) => (float[2,1] y) <float[1,2] up = {9, 8}, float[1,2] gate = {5, 5},"
                  " float[2,1] down = {9, 8}>"
                  "{ u = MatMul(x, up)  g = MatMul(x, gate)  s = Sigmoid(g)  m = Mul(u, s)  y = MatMul(m, down) }");
}

TEST_CASE("prune-neurons leaves convolutions and what the graph hands out") {
  require_untouched("<ir_version: 8, opset_import: [\"\": 17]> g (float[1,1,2,2] x) => (float[1,1,2,2] y) <" +
                        float_tensor("w1", {8, 1, 1, 1}, 1) + ", " + float_tensor("w2", {1, 8, 1, 1}, 2) +
                        "> { a = Conv(x, w1)  r = Relu(a)  y = Conv(r, w2) }",
                    "prune-neurons{round_to=1}");
  require_untouched(HEAD
                    "g (float[2,2] x) => (float[2,4] a, float[2,1] y) <float[2,4] w1 = {1, 9, 2, 8, 1, 9, 2, 8},"
                    " float[4,1] w2 = {1, 9, 2, 8}> { a = MatMul(x, w1)  r = Relu(a)  y = MatMul(r, w2) }",
                    "prune-neurons{round_to=1}");
}

}  // namespace onnxpress::testing
