#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

#define IN HEAD "g (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y) <float[2, 1, 1, 1] w = {1, 2}"

TEST_CASE("fold-bias makes an Add behind a Conv its bias") {
  const char* folded = IN ", float[2] b = {4, 6}> { y = Conv(x, w, b) }";
  require_rewrite(IN ", float[2] b = {1, 2}, float[2, 1, 1] k = {3, 4}> { t = Conv(x, w, b) y = Add(t, k) }",
                  "fold-bias", folded);
  require_rewrite(IN ", float[2] b = {1, 2}, float[1, 2, 1, 1] k = {3, 4}> { t = Conv(x, w, b) y = Add(k, t) }",
                  "fold-bias", folded);
  require_rewrite(IN ", float[2] b = {1, 2}, float k = {3}> { t = Conv(x, w, b) y = Add(t, k) }", "fold-bias",
                  IN ", float[2] b = {4, 5}> { y = Conv(x, w, b) }");
  require_rewrite(IN ", float[2, 1, 1] k = {3, 4}> { t = Conv(x, w) y = Add(t, k) }", "fold-bias",
                  IN ", float[2] y_bias = {3, 4}> { y = Conv(x, w, y_bias) }");
}

TEST_CASE("fold-bias: ConvTranspose counts channels its own way; two Adds in a row") {
  require_rewrite(
      HEAD
      "g (float[1, 2, 2, 2] x) => (float[1, 4, 2, 2] y) <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[4, 1, 1] k = {1, "
      "2, 3, 4}> { t = ConvTranspose <group = 2> (x, w) y = Add(t, k) }",
      "fold-bias",
      HEAD
      "g (float[1, 2, 2, 2] x) => (float[1, 4, 2, 2] y) <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[4] y_bias = {1, "
      "2, 3, 4}> { y = ConvTranspose <group = 2> (x, w, y_bias) }");
  require_rewrite(IN
                  ", float[2] b = {1, 2}, float[2, 1, 1] k = {3, 4}, float l = {1}> { t = Conv(x, w, b) u = Add(t, k) "
                  "y = Add(u, l) }",
                  "fold-bias", IN ", float[2] b = {5, 7}> { y = Conv(x, w, b) }");
}

TEST_CASE("fold-bias behind a Gemm: beta goes into the bias") {
#define GEMM HEAD "g (float[3, 2] x) => (float[3, 2] y) <float[2, 2] w = {1, 2, 3, 4}"
  require_rewrite(GEMM
                  ", float[2] b = {1, 2}, float[2] k = {3, 4}> { t = Gemm <alpha = 2.0, beta = 0.5> (x, w, b) y = "
                  "Add(t, k) }",
                  "fold-bias", GEMM ", float[2] b = {3.5, 5}> { y = Gemm <alpha = 2.0> (x, w, b) }");
  require_rewrite(GEMM ", float[1, 2] k = {3, 4}> { t = Gemm <transB = 1> (x, w) y = Add(t, k) }", "fold-bias",
                  GEMM ", float[2] y_bias = {3, 4}> { y = Gemm <transB = 1> (x, w, y_bias) }");
  require_untouched(GEMM ", float[3, 1] k = {3, 4, 5}> { t = Gemm(x, w) y = Add(t, k) }", "fold-bias");
}

TEST_CASE("fold-bias keeps shared biases for their other readers") {
  require_rewrite(HEAD
                  "g (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y, float[1, 2, 2, 2] z) <float[2, 1, 1, 1] w = {1, "
                  "2}, float[2] b = {1, 2}, float[2, 1, 1] k = {3, 4}> { t = Conv(x, w, b) y = Add(t, k) z = "
                  "Conv(x, w, b) }",
                  "fold-bias",
                  HEAD
                  "g (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y, float[1, 2, 2, 2] z) <float[2, 1, 1, 1] w = {1, "
                  "2}, float[2] b = {1, 2}, float[2] b_1 = {4, 6}> { y = Conv(x, w, b_1) z = Conv(x, w, b) }");
}

TEST_CASE("fold-bias does not: what is no bias, what others read") {
  require_untouched(IN ", float[1, 2] k = {3, 4}> { t = Conv(x, w) y = Add(t, k) }", "fold-bias");  // along the width
  require_untouched(IN ", float[2, 2, 2] k = {1, 2, 3, 4, 5, 6, 7, 8}> { t = Conv(x, w) y = Add(t, k) }", "fold-bias");
  require_untouched(IN "> { t = Conv(x, w) y = Add(t, x) }", "fold-bias");
  require_untouched(IN ", float k = {1}> { t = Relu(x) u = Add(t, k) y = Conv(u, w) }", "fold-bias");
  require_untouched(HEAD
                    "g (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y, float[1, 2, 2, 2] t) <float[2, 1, 1, 1] w = "
                    "{1, 2}, float k = {1}> { t = Conv(x, w) y = Add(t, k) }",
                    "fold-bias");
  require_untouched(IN ", float k = {1}> { t = Conv(x, w) u = Add(t, k) y = Mul(u, t) }", "fold-bias");
  require_untouched(HEAD
                    "g (float[1, 1, 2, 2] x, float k = {1}) => (float[1, 2, 2, 2] y) <float[2, 1, 1, 1] w = {1, 2}> "
                    "{ t = Conv(x, w) y = Add(t, k) }",
                    "fold-bias");
  require_untouched(IN ", float k = {1}> { t = Conv(x, w) y = Add(t, k) }", "fold-bias{skip=op:Add}");
}

TEST_CASE("fold-bias in a body, with a weight from outside") {
  require_rewrite(HEAD
                  "g (bool c, float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y) <float[2, 1, 1, 1] w = {1, 2}, float k = "
                  "{1}> { y = If(c) <then_branch = a () => (float[1, 2, 2, 2] u) { t = Conv(x, w) u = Add(t, k) }, "
                  "else_branch = e () => (float[1, 2, 2, 2] v) { v = Conv(x, w) }> }",
                  "fold-bias",
                  HEAD
                  "g (bool c, float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y) <float[2, 1, 1, 1] w = {1, 2}, float k = "
                  "{1}> { y = If(c) <then_branch = a () => (float[1, 2, 2, 2] u) <float[2] u_bias = {1, 1}> { u = "
                  "Conv(x, w, u_bias) }, else_branch = e () => (float[1, 2, 2, 2] v) { v = Conv(x, w) }> }");
}

}  // namespace
}  // namespace onnxpress::testing
