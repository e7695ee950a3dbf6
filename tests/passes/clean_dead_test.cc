#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

#define CUSTOM "<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> "

TEST_CASE("clean-dead removes nodes and initializers that nothing reads, transitively") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> "
                  "{ y = Add(x, a) p = Mul(x, b) q = Neg(p) }",
                  "clean-dead", HEAD "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { y = Add(x, a) }");
}

TEST_CASE("clean-dead leaves a model alone in which everything is read") {
  require_untouched(HEAD "g (float[4] x) => (float[4] y) <float[4] a = {1, 2, 3, 4}> { t = Add(x, a) y = Relu(t) }",
                    "clean-dead");
}

TEST_CASE("clean-dead keeps a node of which one output is read, and its unused outputs") {
  require_untouched(HEAD "g (float[4] x) => (float[2] y) { p, q = Split(x) y = Relu(q) }", "clean-dead");
}

TEST_CASE("clean-dead removes a dead If with its bodies, and what only they read") {
  require_rewrite(
      HEAD
      "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> { t = Exp(x) "
      "r = If (c) <then_branch = p () => (float[2] u) { u = Add(t, a) }, else_branch = q () => (float[2] v) "
      "{ v = Neg(x) }> y = Relu(x) }",
      "clean-dead", HEAD "g (float[2] x, bool c) => (float[2] y) { y = Relu(x) }");
}

TEST_CASE("clean-dead works inside bodies and respects what they capture") {
  require_rewrite(HEAD
                  "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> { t = Exp(x) d = Abs(x) "
                  "y = If (c) <then_branch = p () => (float[2] u) { dead = Neg(d) u = Add(t, a) }, "
                  "else_branch = q () => (float[2] v) { v = Neg(x) }> }",
                  "clean-dead",
                  HEAD
                  "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> { t = Exp(x) "
                  "y = If (c) <then_branch = p () => (float[2] u) { u = Add(t, a) }, "
                  "else_branch = q () => (float[2] v) { v = Neg(x) }> }");
}

TEST_CASE("clean-dead keeps all parts of a live Loop body") {
  require_untouched(HEAD
                    "g (float[2] x, int64 n, bool c) => (float[2] y) { t = Exp(x) "
                    "y = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] r) "
                    "{ co = Identity(ci) r = Add(s, t) }> }",
                    "clean-dead");
}

TEST_CASE("clean-dead keeps an unused op of an unknown domain and what it reads, and says why") {
  Model model = parse(CUSTOM "g (float[2] x) => (float[2] y) { t = Exp(x) z = my.Log(t) y = Relu(x) }");
  const std::string before = dump(model);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-dead", &context).changed);
  CHECK(dump(model) == before);
  CHECK(skip_reason(context, "my.Log->z").empty());
  CHECK(skip_reason(context, "Log->z").find("side effects") != std::string::npos);
}

TEST_CASE("clean-dead keeps a dead If when a body of it holds an op of an unknown domain") {
  require_untouched(CUSTOM
                    "g (float[2] x, bool c) => (float[2] y) { t = Exp(x) "
                    "r = If (c) <then_branch = p () => (float[2] u) { e = my.Log(t) u = Neg(x) }, "
                    "else_branch = q () => (float[2] v) { v = Neg(x) }> y = Relu(x) }",
                    "clean-dead");
}

TEST_CASE("clean-dead keeps an unused initializer that is also a graph input or output") {
  Model model = parse(HEAD
                      "g (float[2] x, float[2] a) => (float[2] y, float[2] b) "
                      "<float[2] a = {1, 2}, float[2] b = {3, 4}> { y = Relu(x) }");
  const std::string before = dump(model);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-dead", &context).changed);
  CHECK(dump(model) == before);
  CHECK(has_note(context, "'a' kept: unused, but also a graph input"));
  CHECK_FALSE(has_note(context, "'b'"));
}

TEST_CASE("clean-dead works inside functions") {
  const auto model = [](const char* extra) {
    return std::string(
               "<ir_version: 8, opset_import: [\"\": 17, \"local\": 1]> g (float[2] x) => (float[2] y) "
               "{ y = local.f(x) } <domain: \"local\", opset_import: [\"\": 17]> f (x) => (y) { ") +
           extra + " y = Relu(x) }";
  };
  require_rewrite(model("d = Exp(x)"), "clean-dead", model(""));
}

TEST_CASE("clean-dead keeps what skip= names and what that reads") {
  require_rewrite(HEAD "g (float[2] x) => (float[2] y) { t = Exp(x) u = Neg(t) v = Abs(t) y = Relu(x) }",
                  "clean-dead{skip=op:Neg}",
                  HEAD "g (float[2] x) => (float[2] y) { t = Exp(x) u = Neg(t) y = Relu(x) }");
}

}  // namespace
}  // namespace onnxpress::testing
