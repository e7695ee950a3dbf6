#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

TEST_CASE("clean-constants turns every numeric form of Constant into an initializer") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y, int64[2] z) { "
                  "a = Constant <value = float[2] {1, 2}> () b = Constant <value_float = 3.5> () "
                  "c = Constant <value_floats = [4.0, 5.0]> () d = Constant <value_int = 6> () "
                  "e = Constant <value_ints = [7, 8]> () "
                  "t = Add(x, a) u = Mul(t, b) y = Sub(u, c) z = Add(d, e) }",
                  "clean-constants",
                  HEAD
                  "g (float[2] x) => (float[2] y, int64[2] z) "
                  "<float[2] a = {1, 2}, float b = {3.5}, float[2] c = {4, 5}, int64 d = {6}, int64[2] e = {7, 8}> "
                  "{ t = Add(x, a) u = Mul(t, b) y = Sub(u, c) z = Add(d, e) }");
}

TEST_CASE("clean-constants leaves strings and models without Constant nodes alone") {
  require_untouched(HEAD "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { y = Add(x, a) }", "clean-constants");
  Model model = parse(HEAD "g (string[1] x) => (bool[1] y) { a = Constant <value_string = \"s\"> () y = Equal(x, a) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-constants", &context).changed);
  CHECK(skip_reason(context, "Constant->a").find("dense tensor of numbers") != std::string::npos);
}

TEST_CASE("clean-constants keeps a Constant that is a graph output") {
  Model model = parse(HEAD
                      "g (float[2] x) => (float[2] y, float[2] a) { a = Constant <value = float[2] {1, 2}> () "
                      "y = Add(x, a) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-constants", &context).changed);
  CHECK(skip_reason(context, "Constant->a") == "its value is an output of the graph");
}

TEST_CASE("clean-constants works inside bodies, captured or not") {
  require_rewrite(
      HEAD
      "g (float[2] x, bool c) => (float[2] y) { a = Constant <value = float[2] {1, 2}> () "
      "y = If (c) <then_branch = p () => (float[2] u) { b = Constant <value = float[2] {3, 4}> () e = Add(x, a) "
      "u = Mul(e, b) }, else_branch = q () => (float[2] v) { v = Constant <value = float[2] {5, 6}> () }> }",
      "clean-constants",
      HEAD
      "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> { "
      "y = If (c) <then_branch = p () => (float[2] u) <float[2] b = {3, 4}> { e = Add(x, a) u = Mul(e, b) }, "
      "else_branch = q () => (float[2] v) { v = Constant <value = float[2] {5, 6}> () }> }");
}

TEST_CASE("clean-constants keeps Constants of functions and says why") {
  Model model = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"local\": 1]> g (float[2] x) => (float[2] y) "
      "{ y = local.f(x) } <domain: \"local\", opset_import: [\"\": 17]> f (x) => (y) "
      "{ a = Constant <value = float[2] {1, 2}> () y = Add(x, a) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-constants", &context).changed);
  CHECK(skip_reason(context, "Constant->a") == "a function has no initializers");
}

TEST_CASE("clean-constants leaves models before IR version 4 alone") {
  Model model = parse(
      "<ir_version: 3, opset_import: [\"\": 9]> g (float[2] x) => (float[2] y) "
      "{ a = Constant <value = float[2] {1, 2}> () y = Add(x, a) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-constants", &context).changed);
  CHECK(skip_reason(context, "Constant->a").find("IR version 3") != std::string::npos);
}

TEST_CASE("clean-constants serves a custom op, and skip= keeps a node") {
  const std::string head = "<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> g (float[2] x) => (float[2] y) ";
  const std::string before = head + "{ a = Constant <value = float[2] {1, 2}> () y = my.Op(x, a) }";
  require_rewrite(before, "clean-constants", head + "<float[2] a = {1, 2}> { y = my.Op(x, a) }");
  require_untouched(before, "clean-constants{skip=op:Constant}");
}

TEST_CASE("clean-constants keeps the bytes of a Constant that lives outside the proto") {
  std::string values;
  for (int i = 0; i < 512; ++i) values += (i == 0 ? "" : ", ") + std::to_string(i);
  require_rewrite(
      HEAD "g (float[512] x) => (float[512] y) { a = Constant <value = float[512] {" + values + "}> () y = Add(x, a) }",
      "clean-constants", HEAD "g (float[512] x) => (float[512] y) <float[512] a = {" + values + "}> { y = Add(x, a) }");
}

}  // namespace
}  // namespace onnxpress::testing
