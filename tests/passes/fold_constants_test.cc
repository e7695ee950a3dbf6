#include <catch2/catch_test_macros.hpp>

#include "engine/session.h"
#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// Runs the pass with the real engine and keeps the journal.
struct Run {
  EngineRunner runner;
  PassContext context;
  Model model;
  bool changed = false;

  Run(const std::string& text, const std::string& pipeline) : model(parse(text)) {
    context.runner = &runner;
    changed = run_pipeline(model, pipeline, &context).changed;
  }
  std::string reason(std::string_view label) const { return skip_reason(context, label); }
};

// An engine that fails whenever a node of type `op` is in the model.
class FailingRunner : public Runner {
 public:
  explicit FailingRunner(std::string op) : op_(std::move(op)) {}
  Result<std::vector<Tensor>> run(const Model& model, std::span<const NamedTensor> inputs) override {
    ++runs;
    for (const Node& node : model.main().nodes())
      if (node.is(op_)) return fail(Code::engine, "no kernel for {}", op_);
    return engine_.run(model, inputs);
  }
  int runs = 0;

 private:
  std::string op_;
  EngineRunner engine_;
};

TEST_CASE("fold-constants evaluates a region and keeps what the rest reads") {
  require_rewrite(HEAD
                  "g (float[2, 3] x) => (float[2, 2] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> { "
                  "t = Transpose <perm = [1, 0]> (w) n = Neg(t) m = Abs(n) p = MatMul(x, m) q = Add(p, p) "
                  "y = Relu(q) }",
                  "fold-constants",
                  HEAD
                  "g (float[2, 3] x) => (float[2, 2] y) <float[3, 2] m = {1, 4, 2, 5, 3, 6}> { "
                  "p = MatMul(x, m) q = Add(p, p) y = Relu(q) }");
}

TEST_CASE("fold-constants keeps every value of a region that something else reads, and shared constants") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y) <float[2] w = {1, -2}> { "
                  "a = Neg(w) b = Abs(a) s = Add(x, a) t = Add(s, b) y = Mul(t, w) }",
                  "fold-constants",
                  HEAD
                  "g (float[2] x) => (float[2] y) <float[2] w = {1, -2}, float[2] a = {-1, 2}, float[2] b = {1, 2}> "
                  "{ s = Add(x, a) t = Add(s, b) y = Mul(t, w) }");
}

TEST_CASE("fold-constants takes Constant nodes as input and removes them when spent") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y) { c = Constant <value = float[2] {1, 2}> () d = Neg(c) "
                  "y = Add(x, d) }",
                  "fold-constants", HEAD "g (float[2] x) => (float[2] y) <float[2] d = {-1, -2}> { y = Add(x, d) }");
}

TEST_CASE("fold-constants leaves nodes with unknown inputs and overridable initializers alone") {
  require_untouched(HEAD
                    "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { t = Neg(w) y = Add(x, t) }",
                    "fold-constants");
}

TEST_CASE("fold-constants answers Shape and Size of fully known shapes only") {
  require_rewrite(
      HEAD
      "g (float[2, 3] x) => (float[6] y) { s = Shape(x) n = Size(x) m = Neg(s) k = Abs(m) "
      "p = ReduceProd <keepdims = 1> (k) y = Reshape(x, p) z = Neg(n) }",
      "fold-constants",
      HEAD "g (float[2, 3] x) => (float[6] y) <int64[1] p = {6}, int64 n = {6}> { y = Reshape(x, p) z = Neg(n) }");
  require_untouched(HEAD
                    "g (float[N, 3] x) => (float[M] y) { s = Shape(x) p = ReduceProd <keepdims = 1> (s) "
                    "y = Reshape(x, p) }",
                    "fold-constants");
}

TEST_CASE("fold-constants honours start and end of Shape") {
  require_rewrite(HEAD
                  "g (float[2, 3, 4] x) => (float[2, 3, 4] y) { s = Shape <start = -2, end = 9> (x) "
                  "f = Cast <to = 1> (s) c = ReduceSum <keepdims = 0> (f) y = Add(x, c) }",
                  "fold-constants",
                  HEAD "g (float[2, 3, 4] x) => (float[2, 3, 4] y) <float c = {7}> { y = Add(x, c) }");
}

TEST_CASE("fold-constants reaches the fixpoint in one run when a folded shape makes another known") {
  require_rewrite(HEAD
                  "g (float[N, 6] x) => (float[A, B] y) <int64[2] s = {4, 3}, int64[1] two = {2}> { "
                  "d = Mul(s, two) t = Reshape(x, d) q = Shape(t) r = Abs(q) u = Neg(t) y = Reshape(u, r) }",
                  "fold-constants",
                  HEAD
                  "g (float[N, 6] x) => (float[A, B] y) <int64[2] d = {8, 6}, int64[2] r = {8, 6}> { "
                  "t = Reshape(x, d) u = Neg(t) y = Reshape(u, r) }");
}

TEST_CASE("fold-constants keeps random ops, quantized weights, graph outputs and other domains, and says why") {
  const Run run(
      "<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> g (float[2] x) => (float[2] y, float[2] z) "
      "<float[2] w = {1, 2}, int8[2] q = {3, 4}, float s = {0.5}, int8 k = {0}> { "
      "r = RandomNormalLike(w) d = DequantizeLinear(q, s, k) c = my.Op(w) z = Neg(w) "
      "t = Add(x, r) u = Add(t, d) y = Add(u, c) }",
      "fold-constants");
  CHECK_FALSE(run.changed);
  CHECK(run.reason("RandomNormalLike->r") == "its result may be random");
  CHECK(run.reason("DequantizeLinear->d") == "folding it would undo the compression of its weights");
  CHECK(run.reason("Op->c") == "op of domain 'my'");
  CHECK(run.reason("Neg->z") == "its output is an output of the graph");
}

TEST_CASE("fold-constants folds DequantizeLinear when asked") {
  require_rewrite(HEAD
                  "g (float[2] x) => (float[2] y) <int8[2] q = {3, 4}, float s = {0.5}, int8 k = {1}> { "
                  "d = DequantizeLinear(q, s, k) y = Add(x, d) }",
                  "fold-constants{dequantize=true}",
                  HEAD "g (float[2] x) => (float[2] y) <float[2] d = {1, 1.5}> { y = Add(x, d) }");
}

TEST_CASE("fold-constants keeps a Cast of weights to a wider type, unless asked; it folds a Cast of a few numbers") {
  std::string values;
  for (int i = 0; i < 2049; ++i) values += (i == 0 ? "" : ", ") + std::to_string(i % 5);
  const auto model = [&](const std::string& n, const std::string& list) {
    return HEAD "g (float[" + n + "] x) => (float[" + n + "] y) <float16[" + n + "] w = {" + list +
           "}> { c = Cast <to = 1> (w) y = Add(x, c) }";
  };
  const Run kept(model("2049", values), "fold-constants");
  CHECK_FALSE(kept.changed);
  CHECK(kept.reason("Cast->c").find("undo the compression") != std::string::npos);
  CHECK(Run(model("2049", values), "fold-constants{dequantize=true}").changed);
  CHECK(Run(model("2", "0, 15360"), "fold-constants").changed);
}

TEST_CASE("fold-constants does not let the file grow by more than max_bytes") {
  const std::string model = HEAD
      "g (float[N] x) => (float[M] y) <int64[1] n = {64}, int64[1] half = {32}> { "
      "k = Add(n, half) m = Sub(k, half) c = ConstantOfShape(m) y = Add(x, c) }";
  const Run run(model, "fold-constants{max_bytes=100}");
  CHECK(run.changed);
  CHECK(run.reason("ConstantOfShape->c").find("more than max_bytes=100") != std::string::npos);
  CHECK(dump(run.model) == dump(parse(HEAD "g (float[N] x) => (float[M] y) <int64[1] m = {64}> { "
                                           "c = ConstantOfShape(m) y = Add(x, c) }")));
  CHECK(Run(model, "fold-constants{max_bytes=256}").model.main().nodes().size() == 1);
}

TEST_CASE("fold-constants counts a constant as freed once, for all that is made of it") {
  std::string values;
  for (int i = 0; i < 2048; ++i) values += (i == 0 ? "" : ", ") + std::to_string(i % 5);
  const std::string model = HEAD "g (float[2048] x) => (float[2048] y) <float[2048] w = {" + values +
                            "}> { a = Neg(w) b = Exp(w) t = Add(x, a) y = Add(t, b) }";
  CHECK_FALSE(Run(model, "fold-constants{max_bytes=8191}").changed);
  CHECK(Run(model, "fold-constants{max_bytes=8192}").model.main().nodes().size() == 2);
}

TEST_CASE("fold-constants folds inside bodies, from captured constants too") {
  require_rewrite(
      HEAD
      "g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> { "
      "y = If (c) <then_branch = p () => (float[2] u) <float[2] v = {3, 4}> { a = Mul(w, v) u = Add(x, a) }, "
      "else_branch = q () => (float[2] z) { z = Add(x, w) }> }",
      "fold-constants",
      HEAD
      "g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> { "
      "y = If (c) <then_branch = p () => (float[2] u) <float[2] a = {3, 8}> { u = Add(x, a) }, "
      "else_branch = q () => (float[2] z) { z = Add(x, w) }> }");
}

TEST_CASE("fold-constants keeps a value that only a body reads") {
  require_rewrite(HEAD
                  "g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(w) "
                  "y = If (c) <then_branch = p () => (float[2] u) { u = Add(x, a) }, "
                  "else_branch = q () => (float[2] z) { z = Neg(x) }> }",
                  "fold-constants",
                  HEAD
                  "g (float[2] x, bool c) => (float[2] y) <float[2] a = {-1, -2}> { "
                  "y = If (c) <then_branch = p () => (float[2] u) { u = Add(x, a) }, "
                  "else_branch = q () => (float[2] z) { z = Neg(x) }> }");
}

TEST_CASE("fold-constants does not fold an If, even with constant inputs") {
  const Run run(HEAD
                "g (float[2] x) => (float[2] y) <bool c = {1}> { "
                "t = If (c) <then_branch = p () => (float[2] u) { u = Neg(x) }, "
                "else_branch = q () => (float[2] z) { z = Abs(x) }> y = Neg(t) }",
                "fold-constants");
  CHECK_FALSE(run.changed);
  CHECK(run.reason("If->t") == "it has a body");
}

TEST_CASE("fold-constants skips a node that the engine refuses, and folds the others") {
  FailingRunner runner("Sinh");
  PassContext context;
  context.runner = &runner;
  Model model = parse(HEAD
                      "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(w) b = Sinh(a) c = Abs(b) "
                      "d = Abs(a) s = Add(x, c) y = Add(s, d) }");
  CHECK(run_pipeline(model, "fold-constants", &context).changed);
  CHECK(dump(model) == dump(parse(HEAD "g (float[2] x) => (float[2] y) <float[2] a = {-1, -2}, float[2] d = {1, 2}> "
                                       "{ b = Sinh(a) c = Abs(b) s = Add(x, c) y = Add(s, d) }")));
  CHECK(skip_reason(context, "Sinh->b").find("no kernel for Sinh") != std::string::npos);
}

TEST_CASE("fold-constants without an engine changes nothing and warns") {
  PassContext context;
  Model model = parse(HEAD "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(w) y = Add(x, a) }");
  CHECK_FALSE(run_pipeline(model, "fold-constants", &context).changed);
  CHECK(context.journal.warnings().size() == 1);
}

TEST_CASE("fold-constants evaluates a whole region in one run of the engine") {
  FailingRunner runner("None");
  PassContext context;
  context.runner = &runner;
  Model model = parse(HEAD
                      "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(w) b = Abs(a) c = Exp(b) "
                      "d = Log(c) y = Add(x, d) }");
  CHECK(run_pipeline(model, "fold-constants", &context).changed);
  CHECK(runner.runs == 1);
}

TEST_CASE("fold-constants writes Constant nodes where initializers would have to be inputs") {
  require_rewrite(
      "<ir_version: 3, opset_import: [\"\": 9]> g (float[2] x) => (float[2] y) "
      "{ a = Constant <value = float[2] {1, 2}> () b = Neg(a) y = Add(x, b) }",
      "fold-constants",
      "<ir_version: 3, opset_import: [\"\": 9]> g (float[2] x) => (float[2] y) "
      "{ b = Constant <value = float[2] {-1, -2}> () y = Add(x, b) }");
}

TEST_CASE("fold-constants leaves functions and strings alone, and respects skip=") {
  const Run function(
      "<ir_version: 8, opset_import: [\"\": 17, \"local\": 1]> g (float[2] x) => (float[2] y) "
      "{ y = local.f(x) } <domain: \"local\", opset_import: [\"\": 17]> f (x) => (y) "
      "{ a = Constant <value = float[2] {1, 2}> () b = Neg(a) y = Add(x, b) }",
      "fold-constants");
  CHECK_FALSE(function.changed);
  CHECK(function.reason("Neg->b") == "functions are not folded");
  const Run strings(HEAD
                    "g (float[2] x) => (float[2] y, int64[1] n) <float[2] w = {1, 2}> "
                    "{ s = Cast <to = 8> (w) n = Shape(s) y = Neg(x) }",
                    "fold-constants");
  CHECK(strings.reason("Cast->s") == "its result is not a tensor of numbers");
  require_untouched(HEAD "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg(w) y = Add(x, a) }",
                    "fold-constants{skip=op:Neg}");
}

}  // namespace
}  // namespace onnxpress::testing
