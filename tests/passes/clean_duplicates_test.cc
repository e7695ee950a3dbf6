#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

TEST_CASE("clean-duplicates merges initializers with equal bytes") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}, float[2] c = {1, 2}> "
                  "{ t = Add(x, a) u = Mul(t, b) y = Sub(u, c) }",
                  "clean-duplicates",
                  HEAD
                  "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { t = Add(x, a) u = Mul(t, a) y = Sub(u, a) }");
}

TEST_CASE("clean-duplicates keeps initializers apart that differ in bytes, shape or type") {
  require_untouched(
      HEAD
      "g (float[2] x) => (float[2] y, int32[2] z) <float[2] a = {1, 2}, float[2] b = {1, 3}, "
      "float[1, 2] c = {1, 2}, int32[2] d = {0, 0}, float[2] e = {0, 0}> "
      "{ s = Shape(x) t = Add(x, a) u = Mul(t, b) w = Reshape(c, s) v = Add(u, w) y = Add(v, e) z = Abs(d) }",
      "clean-duplicates");
}

TEST_CASE("clean-duplicates tells minus zero from zero") {
  require_untouched(HEAD
                    "g (float[1] x) => (float[1] y) <float[1] a = {0.0}, float[1] b = {-0.0}> "
                    "{ t = Div(x, a) y = Div(t, b) }",
                    "clean-duplicates");
}

TEST_CASE("clean-duplicates merges tensors that live outside the proto") {
  const auto values = [] {
    std::string text;
    for (int i = 0; i < 512; ++i) text += (i == 0 ? "" : ", ") + std::to_string(i % 7);
    return text;
  }();
  require_rewrite(
      HEAD "g (float[512] x) => (float[512] y) <float[512] a = {" + values + "}, float[512] b = {" + values +
          "}> { t = Add(x, a) y = Mul(t, b) }",
      "clean-duplicates",
      HEAD "g (float[512] x) => (float[512] y) <float[512] a = {" + values + "}> { t = Add(x, a) y = Mul(t, a) }");
}

TEST_CASE("clean-duplicates leaves overridable initializers alone") {
  require_untouched(HEAD
                    "g (float[2] x, float[2] a) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> "
                    "{ t = Add(x, a) y = Mul(t, b) }",
                    "clean-duplicates");
}

TEST_CASE("clean-duplicates keeps the copy that is a graph output") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y, float[2] b) <float[2] a = {1, 2}, float[2] b = {1, 2}> "
                  "{ y = Add(x, a) }",
                  "clean-duplicates",
                  HEAD "g (float[2] x) => (float[2] y, float[2] b) <float[2] b = {1, 2}> { y = Add(x, b) }");
}

TEST_CASE("clean-duplicates follows captured reads, but merges within one scope only") {
  require_rewrite(
      HEAD
      "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> { t = Add(x, a) "
      "y = If (c) <then_branch = p () => (float[2] u) <float[2] d = {1, 2}> { e = Add(t, b) u = Mul(e, d) }, "
      "else_branch = q () => (float[2] v) { v = Neg(t) }> }",
      "clean-duplicates",
      HEAD
      "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> { t = Add(x, a) "
      "y = If (c) <then_branch = p () => (float[2] u) <float[2] d = {1, 2}> { e = Add(t, a) u = Mul(e, d) }, "
      "else_branch = q () => (float[2] v) { v = Neg(t) }> }");
}

TEST_CASE("clean-duplicates keeps what a nested body hands out under its own name") {
  Model model =
      parse(HEAD
            "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> { t = Add(x, a) "
            "y = If (c) <then_branch = p () => (float[2] u) { u = Neg(t) }, else_branch = q () => (float[2] b) { }> }");
  const std::string before = dump(model);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-duplicates", &context).changed);
  CHECK(dump(model) == before);
  CHECK(has_note(context, "a nested body hands it out"));
}

TEST_CASE("clean-duplicates keeps two equal graph outputs apart") {
  Model model = parse(HEAD
                      "g (float[2] x) => (float[2] y, float[2] a, float[2] b) "
                      "<float[2] a = {1, 2}, float[2] b = {1, 2}> { y = Add(x, b) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-duplicates", &context).changed);
  CHECK(has_note(context, "it is a graph output"));
}

TEST_CASE("clean-duplicates gives a custom op the shared tensor, and skip= keeps its copy") {
  const std::string head = "<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> g (float[2] x) => (float[2] y) ";
  const std::string two = head + "<float[2] a = {1, 2}, float[2] b = {1, 2}> { t = Add(x, a) y = my.Op(t, b) }";
  require_rewrite(two, "clean-duplicates", head + "<float[2] a = {1, 2}> { t = Add(x, a) y = my.Op(t, a) }");
  Model model = parse(two);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-duplicates{skip=op:Op}", &context).changed);
  CHECK_FALSE(skip_reason(context, "Op->y").empty());
}

}  // namespace
}  // namespace onnxpress::testing
