#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// "x -> CANDIDATE -> Neg -> y" in opset 17 unless `head` says otherwise.
void require_removed(const std::string& input, const std::string& weights, const std::string& node,
                     const std::string& head = HEAD) {
  INFO(node);
  const std::string front = head + "g (" + input + " x) => (" + input + " y) " + weights + " { ";
  require_rewrite(front + node + " y = Neg(t) }", "clean-identity", front + "y = Neg(x) }");
}
void require_kept(const std::string& input, const std::string& output, const std::string& weights,
                  const std::string& node, const std::string& head = HEAD) {
  INFO(node);
  require_untouched(head + "g (" + input + " x) => (" + output + " y) " + weights + " { " + node + " y = Neg(t) }",
                    "clean-identity");
}

TEST_CASE("clean-identity removes Identity and chains of it") {
  require_removed("float[N]", "", "t = Identity(x)");
  require_removed("float[N]", "", "a = Identity(x) b = Identity(a) t = Identity(b)");
}

TEST_CASE("clean-identity removes Dropout in inference, at every opset") {
  require_removed("float[2]", "", "t = Dropout(x)");
  require_removed("float[2]", "", "t, mask = Dropout(x)");
  require_removed("float[2]", "<float r = {0.5}, bool f = {0}>", "t = Dropout(x, r, f)");
  require_removed("float[2]", "", "t = Dropout <ratio = 0.5> (x)", "<ir_version: 4, opset_import: [\"\": 9]> ");
  require_removed("float[2]", "", "t = Dropout <is_test = 1> (x)", "<ir_version: 4, opset_import: [\"\": 6]> ");
}

TEST_CASE("clean-identity keeps Dropout in training, with a mask in use, or undecided") {
  require_kept("float[2]", "float[2]", "<float r = {0.5}, bool f = {1}>", "t = Dropout(x, r, f)");
  require_kept("float[2]", "float[2]", "", "t = Dropout(x)", "<ir_version: 4, opset_import: [\"\": 6]> ");
  Model model = parse(HEAD
                      "g (float[2] x, bool f) => (float[2] y, bool[2] m) <float r = {0.5}> "
                      "{ y, m = Dropout(x) t, k = Dropout(x, r, f) z = Neg(t) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-identity", &context).changed);
  CHECK(skip_reason(context, "Dropout->y") == "its mask is used");
  CHECK(skip_reason(context, "Dropout->t") == "its training_mode is not constant");
}

TEST_CASE("clean-identity removes a Reshape to the same shape") {
  require_removed("float[2, 3]", "<int64[2] s = {2, 3}>", "t = Reshape(x, s)");
  require_removed("float[2, 3]", "<int64[2] s = {-1, 3}>", "t = Reshape(x, s)");
  require_removed("float[N, 3]", "<int64[2] s = {0, 3}>", "t = Reshape(x, s)");
  require_removed("float[N, 3]", "<int64[2] s = {-1, 3}>", "t = Reshape(x, s)");
  require_removed("float[N, M]", "<int64[2] s = {0, -1}>", "t = Reshape(x, s)");
}

TEST_CASE("clean-identity keeps a Reshape that may change the shape") {
  require_kept("float[2, 3]", "float[3, 2]", "<int64[2] s = {3, 2}>", "t = Reshape(x, s)");
  require_kept("float[N, 3]", "float[M, 3]", "<int64[2] s = {4, 3}>", "t = Reshape(x, s)");
  require_kept("float[N, M]", "float[A, B]", "<int64[2] s = {-1, 4}>", "t = Reshape(x, s)");
  require_kept("float[N, M]", "float[A, B]", "<int64[2] s = {0, 3}>", "t = Reshape <allowzero = 1> (x, s)");
  Model model = parse(HEAD "g (float[N, 3] x, int64[2] s) => (float[A, B] y) { t = Reshape(x, s) y = Neg(t) }");
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-identity", &context).changed);
  CHECK(skip_reason(context, "Reshape->t") == "its shape is not known");
}

TEST_CASE("clean-identity removes a Transpose that keeps the order, and no other") {
  require_removed("float[2, 2]", "", "t = Transpose <perm = [0, 1]> (x)");
  require_removed("float[2]", "", "t = Transpose(x)");
  require_kept("float[2, 2]", "float[2, 2]", "", "t = Transpose <perm = [1, 0]> (x)");
  require_kept("float[2, 2]", "float[2, 2]", "", "t = Transpose(x)");
}

TEST_CASE("clean-identity removes a Cast to the same type, and no other") {
  require_removed("float[2]", "", "t = Cast <to = 1> (x)");
  require_kept("float[2]", "float16[2]", "", "t = Cast <to = 10> (x)");
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y) { a = Cast <to = 10> (x) b = Cast <to = 10> (a) "
                  "t = Cast <to = 1> (b) y = Neg(t) }",
                  "clean-identity",
                  HEAD "g (float[2] x) => (float[2] y) { a = Cast <to = 10> (x) t = Cast <to = 1> (a) y = Neg(t) }");
}

TEST_CASE("clean-identity removes a Pad by nothing, at every opset") {
  require_removed("float[2, 3]", "<int64[4] p = {0, 0, 0, 0}>", "t = Pad(x, p)");
  require_removed("float[2, 3]", "", "t = Pad <pads = [0, 0, 0, 0]> (x)", "<ir_version: 4, opset_import: [\"\": 9]> ");
  require_kept("float[2, 3]", "float[2, 4]", "<int64[4] p = {0, 0, 0, 1}>", "t = Pad(x, p)");
  require_kept("float[2, 3]", "float[2, 4]", "", "t = Pad <pads = [0, 0, 0, 1]> (x)",
               "<ir_version: 4, opset_import: [\"\": 9]> ");
}

TEST_CASE("clean-identity removes a Slice that takes everything, at every opset") {
  require_removed("float[N, 3]", "<int64[2] s = {0, 0}, int64[2] e = {9223372036854775807, 3}>", "t = Slice(x, s, e)");
  require_removed("float[N, 3]", "<int64[1] s = {-3}, int64[1] e = {5}, int64[1] a = {-1}, int64[1] k = {1}>",
                  "t = Slice(x, s, e, a, k)");
  require_removed("float[N, 3]", "", "t = Slice <starts = [0], ends = [2147483647], axes = [0]> (x)",
                  "<ir_version: 4, opset_import: [\"\": 9]> ");
}

TEST_CASE("clean-identity keeps a Slice that may drop or reorder something") {
  require_kept("float[N, 3]", "float[N, 2]", "<int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {1}>",
               "t = Slice(x, s, e, a)");
  require_kept("float[N, 3]", "float[M, 3]", "<int64[1] s = {0}, int64[1] e = {100}, int64[1] a = {0}>",
               "t = Slice(x, s, e, a)");
  require_kept("float[N, 3]", "float[N, 2]", "<int64[1] s = {0}, int64[1] e = {3}, int64[1] a = {1}, int64[1] k = {2}>",
               "t = Slice(x, s, e, a, k)");
}

TEST_CASE("clean-identity removes a Concat of one value only") {
  require_removed("float[2]", "", "t = Concat <axis = 0> (x)");
  require_kept("float[2]", "float[4]", "", "t = Concat <axis = 0> (x, x)");
}

TEST_CASE("clean-identity hands a graph output to the node before") {
  require_rewrite(HEAD "g (float[2] x) => (float[2] y, float[2] z) { t = Relu(x) y = Identity(t) z = Neg(t) }",
                  "clean-identity", HEAD "g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Neg(y) }");
  require_rewrite(HEAD "g (float[2] x) => (float[2] y) { s = Relu(x) t = Identity(s) u = Identity(t) y = Identity(u) }",
                  "clean-identity", HEAD "g (float[2] x) => (float[2] y) { y = Relu(x) }");
}

TEST_CASE("clean-identity gives one of two outputs of the same value to the node before") {
  require_rewrite(HEAD "g (float[2] x) => (float[2] y, float[2] z) { t = Relu(x) y = Identity(t) z = Identity(t) }",
                  "clean-identity", HEAD "g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Identity(y) }");
}

TEST_CASE("clean-identity keeps what joins a graph output to an input, an initializer or an output") {
  Model model = parse(HEAD
                      "g (float[2] x) => (float[2] a, float[2] b, float[2] r, float[2] c) <float[2] w = {1, 2}> "
                      "{ a = Identity(x) b = Identity(w) r = Relu(x) c = Identity(r) }");
  const std::string before = dump(model);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-identity", &context).changed);
  CHECK(dump(model) == before);
  CHECK(skip_reason(context, "Identity->a").find("no node of the graph makes") != std::string::npos);
  CHECK(skip_reason(context, "Identity->b").find("no node of the graph makes") != std::string::npos);
  CHECK(skip_reason(context, "Identity->c").find("both graph outputs") != std::string::npos);
}

TEST_CASE("clean-identity lets nodes read an initializer or an input that shadows one") {
  require_rewrite(HEAD
                  "g (float[2] x, float[2] v) => (float[2] y) <float[2] w = {1, 2}, float[2] v = {3, 4}> "
                  "{ a = Identity(w) b = Identity(v) t = Add(x, a) y = Mul(t, b) }",
                  "clean-identity",
                  HEAD
                  "g (float[2] x, float[2] v) => (float[2] y) <float[2] w = {1, 2}, float[2] v = {3, 4}> "
                  "{ t = Add(x, w) y = Mul(t, v) }");
}

TEST_CASE("clean-identity follows captured reads and works inside bodies") {
  require_rewrite(HEAD
                  "g (float[2] x, bool c) => (float[2] y) { t = Relu(x) s = Identity(t) "
                  "y = If (c) <then_branch = p () => (float[2] u) { d = Abs(s) e = Identity(d) u = Identity(e) }, "
                  "else_branch = q () => (float[2] v) { v = Identity(s) }> }",
                  "clean-identity",
                  HEAD
                  "g (float[2] x, bool c) => (float[2] y) { t = Relu(x) "
                  "y = If (c) <then_branch = p () => (float[2] u) { u = Abs(t) }, "
                  "else_branch = q () => (float[2] v) { v = Identity(t) }> }");
}

TEST_CASE("clean-identity keeps a value that a nested body hands out under its own name") {
  Model model =
      parse(HEAD
            "g (float[2] x, bool c) => (float[2] y) { t = Relu(x) s = Identity(t) "
            "y = If (c) <then_branch = p () => (float[2] u) { u = Neg(t) }, else_branch = q () => (float[2] s) { }> }");
  const std::string before = dump(model);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-identity", &context).changed);
  CHECK(dump(model) == before);
  CHECK(skip_reason(context, "Identity->s").find("nested body") != std::string::npos);
}

TEST_CASE("clean-identity keeps the Identity that a Loop needs for its condition") {
  require_untouched(HEAD
                    "g (float[2] x, int64 n, bool c) => (float[2] y) { "
                    "y = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] r) "
                    "{ co = Identity(ci) r = Add(s, x) }> }",
                    "clean-identity");
}

TEST_CASE("clean-identity works beside custom ops, whose namesakes it does not touch") {
  const std::string head = "<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> g (float[2] x) => (float[2] y) ";
  require_rewrite(head + "{ a = my.Identity(x) b = Identity(a) y = my.Op(b) }", "clean-identity",
                  head + "{ a = my.Identity(x) y = my.Op(a) }");
}

TEST_CASE("clean-identity respects skip=") {
  require_untouched(HEAD "g (float[2] x) => (float[2] y) { t = Identity(x) y = Neg(t) }",
                    "clean-identity{skip=op:Identity}");
}

}  // namespace
}  // namespace onnxpress::testing
