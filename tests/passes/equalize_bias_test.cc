#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "engine/activations.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Absorbed {
  Model model = {};
  PassContext context = {};
  bool changed = false;
  double sqnr = 0;
};

Absorbed absorb(const std::string& source, const Dims& input, bool data,
                const std::string& pipeline = "equalize-bias") {
  INFO(source);
  const Model before = parse(source);
  std::vector<Batch> batches;
  for (unsigned seed = 100; seed < 104; ++seed) batches.push_back(random_batch("x", input, seed));
  MemorySource samples(batches);
  EngineActivations activations(samples, 1, 0);
  Absorbed out{.model = parse(source)};
  out.context.activations = data ? &activations : nullptr;
  out.changed = run_pipeline(out.model, pipeline, &out.context).changed;
  PassContext again;
  again.activations = out.context.activations;
  CHECK_FALSE(run_pipeline(out.model, pipeline, &again).changed);
  out.context.activations = nullptr;
  out.sqnr = HUGE_VAL;
  for (const Batch& batch : batches)
    out.sqnr = std::min(out.sqnr, sqnr_db(run_on(before, batch), run_on(out.model, batch)));
  return out;
}

const Dims kX = {1, 2, 4, 4};
// Channel 0 of c lies around 50, channel 1 around 0.
const std::string kStart = HEAD "g (float[1, 2, 4, 4] x) => (float[N, C, H, W] y) <" +
                           float_tensor("w1", {2, 2, 1, 1}, 1) + ", float[2] b1 = {50, 0}, " +
                           float_tensor("w2", {3, 2, 2, 2}, 2) + ", " + float_tensor("b2", {3}, 3);

TEST_CASE("equalize-bias by hand, from a BatchNormalization") {
  // B - 3 |scale| = 10 - 6 = 4 for channel 0, below zero for channel 1; W2 c = 5 * 4.
  require_rewrite(
      HEAD
      "g (float[1, 2, 1, 1] x) => (float[1, 1, 1, 1] y) <float[2] s = {-2, 1}, float[2] b = {10, 2}, float[2] m = "
      "{0, 0}, float[2] v = {1, 1}, float[1, 2, 1, 1] w2 = {5, 7}, float[1] b2 = {1}> "
      "{ n = BatchNormalization(x, s, b, m, v) r = Relu(n) y = Conv(r, w2, b2) }",
      "equalize-bias",
      HEAD
      "g (float[1, 2, 1, 1] x) => (float[1, 1, 1, 1] y) <float[2] s = {-2, 1}, float[2] b = {6, 2}, float[2] m = "
      "{0, 0}, float[2] v = {1, 1}, float[1, 2, 1, 1] w2 = {5, 7}, float[1] b2 = {21}> "
      "{ n = BatchNormalization(x, s, b, m, v) r = Relu(n) y = Conv(r, w2, b2) }");
}

TEST_CASE("equalize-bias from samples keeps what the network computes") {
  for (const std::string reader :
       {"y = Conv(r, w2, b2)", "y = Conv(r, w2)", "a = Conv(r, w2) b = Conv(r, w2, b2) y = Add(a, b)"}) {
    const Absorbed result = absorb(kStart + "> { c = Conv(x, w1, b1) r = Relu(c) " + reader + " }", kX, true);
    CHECK(result.changed);
    CHECK(result.sqnr > 90);
    CHECK(result.model.main().initializer("b1").read()->as<float>()[0] < 10);
    CHECK(result.model.main().initializer("b1").read()->as<float>()[1] == 0);
  }
}

TEST_CASE("equalize-bias: Gemm and MatMul with and without Add") {
  const std::string start = HEAD "g (float[3, 4] x) => (float[3, 5] y) <" + float_tensor("w1", {4, 8}, 1) +
                            ", float[8] b1 = {50, 0, 40, 0, 30, 0, 20, 0}, " + float_tensor("w2", {8, 5}, 2) + ", " +
                            float_tensor("b2", {5}, 3) + "> { ";
  for (const std::string nodes :
       {"c = Gemm <beta = 2.0> (x, w1, b1) r = Relu(c) y = Gemm <alpha = 0.5, beta = 3.0> (r, w2, b2)",
        "m = MatMul(x, w1) c = Add(m, b1) r = Relu(c) y = MatMul(r, w2)",
        "m = MatMul(x, w1) c = Add(b1, m) r = Relu(c) n = MatMul(r, w2) y = Add(n, b2)"}) {
    const Absorbed result = absorb(start + nodes + " }", {3, 4}, true);
    CHECK(result.changed);
    CHECK(result.sqnr > 90);
  }
}

TEST_CASE("equalize-bias makes room in the range of the activation") {
  const std::string source = kStart + "> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2, b2) }";
  CHECK(absorb(source, kX, true, "equalize-bias,quant-static{placement=all}").sqnr >
        absorb(source, kX, true, "quant-static{placement=all}").sqnr);
}

void require_skipped(const std::string& source, std::string_view label, std::string_view reason, bool data = true,
                     const std::string& pipeline = "equalize-bias") {
  const Absorbed result = absorb(source, kX, data, pipeline);
  INFO(skip_reason(result.context, label));
  CHECK_FALSE(result.changed);
  CHECK(dump(result.model) == dump(parse(source)));
  CHECK(skip_reason(result.context, label).find(reason) != std::string::npos);
}

TEST_CASE("equalize-bias does not: padding, other readers, outputs, no samples, nothing to move, bodies") {
  const std::string pair = "> { c = Conv(x, w1, b1) r = Relu(c) ";
  require_skipped(kStart + pair + "y = Conv <pads = [1, 1, 1, 1]> (r, w2, b2) }", "Relu->r", "pads");
  require_skipped(kStart + pair + "q = Conv(r, w2, b2) e = ReduceMean(r) y = Add(q, e) }", "Relu->r", "ReduceMean");
  require_skipped(HEAD "g (float[1, 2, 4, 4] x) => (float[N, C, H, W] y, float[A, B, D, E] r) <" +
                      float_tensor("w1", {2, 2, 1, 1}, 1) + ", float[2] b1 = {50, 0}, " +
                      float_tensor("w2", {3, 2, 2, 2}, 2) + pair + "y = Conv(r, w2) }",
                  "Relu->r", "output of the graph");
  require_skipped(kStart + "> { c = Conv(x, w1, b1) r = Relu(c) q = Conv(r, w2, b2) e = ReduceMean(c) y = Add(q, e) }",
                  "Relu->r", "something else");
  require_skipped(kStart + pair + "y = Conv(r, w2, b2) }", "Relu->r", "--data", false);
  require_skipped(kStart + "> { c = Conv(x, w1) r = Relu(c) y = Conv(r, w2, b2) }", "Conv->c", "clear of zero");
  require_skipped(kStart + pair + "y = Conv(r, w2, b2) }", "Relu->r", "", true, "equalize-bias{skip=op:Relu}");
  require_skipped(kStart +
                      ", bool yes = {1}> { c = Conv(x, w1, b1) r = Relu(c) y = If(yes) <then_branch = a () => (t) "
                      "{ t = Conv(r, w2) }, else_branch = e () => (f) { f = Conv(r, w2, b2) }> }",
                  "Relu->r", "nested body");
}

TEST_CASE("equalize-bias copies a bias that others read") {
  const Absorbed result = absorb(kStart +
                                     "> { c = Conv(x, w1, b1) d = Conv(x, w1, b1) r = Relu(c) q = Relu(d) "
                                     "t = Conv(r, w2, b2) u = Conv(q, w2, b2) y = Sub(t, u) }",
                                 kX, true);
  CHECK(result.changed);
  CHECK(result.model.main().initializer("b1_1"));
}

}  // namespace
}  // namespace onnxpress::testing
