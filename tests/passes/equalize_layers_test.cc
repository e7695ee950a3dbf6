#include <fmt/format.h>
#include <fmt/ranges.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "engine/activations.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

std::vector<Batch> samples_of(const Dims& dims, unsigned count = 4) {
  std::vector<Batch> samples;
  for (unsigned seed = 100; seed < 100 + count; ++seed) samples.push_back(random_batch("x", dims, seed));
  return samples;
}

struct Equalized {
  Model model = {};
  PassContext context = {};
  bool changed = false;
  double sqnr = 0;  // against the model before, the worst sample
};

Equalized equalize(const std::string& source, const Dims& input, const std::string& pipeline, bool data,
                   unsigned jobs = 1) {
  INFO(pipeline << ": " << source.substr(0, 300));
  const Model before = parse(source);
  Equalized out{.model = parse(source)};
  MemorySource samples(samples_of(input));
  EngineActivations activations(samples, jobs, 0);
  out.context.activations = data ? &activations : nullptr;
  out.context.jobs = jobs;
  out.changed = run_pipeline(out.model, pipeline, &out.context).changed;
  out.context.activations = nullptr;
  out.sqnr = HUGE_VAL;
  for (const Batch& batch : samples_of(input))
    out.sqnr = std::min(out.sqnr, sqnr_db(run_on(before, batch), run_on(out.model, batch)));
  CHECK(out.model.main().outputs() == before.main().outputs());
  return out;
}

// The pass applies, with samples and without, and the network computes what it did.
void require_equal(const std::string& source, const Dims& input) {
  for (const bool data : {false, true}) {
    const Equalized result = equalize(source, input, "equalize-layers", data);
    CHECK(result.changed);
    CHECK(result.sqnr > 100);
  }
}

// [outputs, inputs/groups, k, k] with output channel o scaled by one of 1, 8, 1/8, 64.
std::string uneven(std::string_view name, const Dims& dims, unsigned seed) {
  std::vector<float> values = random_floats(element_count(dims).value(), seed);
  const float sizes[] = {1, 8, 0.125F, 64};
  const std::size_t row = values.size() / static_cast<std::size_t>(dims[0]);
  for (std::size_t k = 0; k < values.size(); ++k) values[k] *= sizes[k / row % 4];
  return fmt::format("float[{}] {} = {{{}}}", fmt::join(dims, ", "), name, fmt::join(values, ", "));
}

const Dims kX = {1, 4, 8, 8};
const std::string kStart = HEAD "g (float[1, 4, 8, 8] x) => (float[N, C, H, W] y) <" + uneven("w1", {8, 4, 3, 3}, 1) +
                           ", " + float_tensor("b1", {8}, 2) + ", " + uneven("w2", {6, 8, 1, 1}, 3) + ", " +
                           float_tensor("b2", {6}, 4);

TEST_CASE("equalize-layers by hand: the geometric mean of both ranges") {
  // r1 = 4, 1; r2 = 1, 4: s = 2, 1/2.
  require_rewrite(
      HEAD
      "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[2, 1, 1, 1] w1 = {4, -1}, float[2] b1 = {2, 1}, "
      "float[1, 2, 1, 1] w2 = {1, 4}> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2) }",
      "equalize-layers",
      HEAD
      "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[2, 1, 1, 1] w1 = {2, -2}, float[2] b1 = {1, 2}, "
      "float[1, 2, 1, 1] w2 = {2, 2}> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2) }");
}

TEST_CASE("equalize-layers keeps what the network computes") {
  require_equal(kStart + "> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2, b2) }", kX);
  require_equal(
      kStart + "> { c = Conv(x, w1) r = LeakyRelu(c) p = MaxPool <kernel_shape = [2, 2]> (r) y = Conv(p, w2) }", kX);
  // Depthwise between two: a triple. Residual: both branches share their factors.
  require_equal(kStart + ", " + uneven("wd", {8, 1, 3, 3}, 5) +
                    "> { c = Conv(x, w1, b1) r = Relu(c) d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, wd) q = Relu(d) "
                    "s = Add(q, r) y = Conv(s, w2, b2) }",
                kX);
  require_equal(kStart + ", " + uneven("wt", {8, 3, 2, 2}, 5) +
                    "> { c = Conv(x, w1, b1) r = Relu(c) y = ConvTranspose <group = 2, strides = [2, 2]> (r, wt) }",
                kX);
  require_equal(
      kStart + ", " + uneven("w3", {6, 16, 1, 1}, 5) + ", " + uneven("w4", {8, 4, 3, 3}, 6) +
          "> { a = Conv(x, w1, b1) b = Conv(x, w4) j = Concat <axis = 1> (a, b) r = Relu(j) y = Conv(r, w3) }",
      kX);
}

TEST_CASE("equalize-layers: Gemm and MatMul with their attributes and biases") {
  const std::string start = HEAD "g (float[3, 8] x) => (float[3, 5] y) <" + uneven("w1", {16, 8}, 1) + ", " +
                            float_tensor("b1", {16}, 2) + ", " + uneven("w2", {16, 5}, 3) + ", " +
                            float_tensor("b2", {5}, 4);
  require_equal(
      start + "> { c = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w1, b1) r = Relu(c) y = Gemm(r, w2, b2) }",
      {3, 8});
  require_equal(start + ", " + uneven("w3", {8, 16}, 5) +
                    "> { m = MatMul(x, w3) c = Add(m, b1) r = Relu(c) n = MatMul(r, w2) y = Add(b2, n) }",
                {3, 8});
  require_equal(HEAD "g (float[1, 4, 2, 2] x) => (float[1, 5] y) <" + uneven("w1", {8, 4, 1, 1}, 1) + ", " +
                    uneven("w2", {32, 5}, 2) + "> { c = Conv(x, w1) r = Relu(c) f = Flatten(r) y = Gemm(f, w2) }",
                {1, 4, 2, 2});
}

TEST_CASE("equalize-layers rescues weights that share one scale") {
  const std::string source = kStart + "> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2, b2) }";
  const double alone = equalize(source, kX, "quant-static{per_channel=false placement=all}", true).sqnr;
  const double range =
      equalize(source, kX, "equalize-layers{objective=range},quant-static{per_channel=false placement=all}", true).sqnr;
  const double noise = equalize(source, kX, "equalize-layers,quant-static{per_channel=false placement=all}", true).sqnr;
  INFO(alone << " " << range << " " << noise);
  CHECK(range > alone);
  CHECK(noise > alone);
}

TEST_CASE("equalize-layers for weights with a scale per channel evens out activations") {
  // Channel 0 is a hundred times as large as the other, which the reader makes up for.
  const std::string source = HEAD
      "g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y) <float[2, 1, 1, 1] w1 = {100, -1}, float[2] b1 = {1, 1}, "
      "float[1, 2, 1, 1] w2 = {0.01, 1}> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2) }";
  const double alone = equalize(source, {1, 1, 8, 8}, "quant-static{placement=all}", true).sqnr;
  const double after =
      equalize(source, {1, 1, 8, 8}, "equalize-layers{weights=channel},quant-static{placement=all}", true).sqnr;
  INFO(alone << " " << after);
  CHECK(after > alone + 10);
}

#define RELU6 "> { c = Conv(x, w1, b1) r = Clip(c, low, high) y = Conv(r, w2, b2) }"
const std::string kBounds = ", float low = {0}, float high = {6}";

TEST_CASE("equalize-layers: a Clip stays exact where samples reach its bound") {
  // Weights of up to 64 push a quarter of the channels far beyond 6.
  const Equalized kept = equalize(kStart + kBounds + RELU6, kX, "equalize-layers{saturation=0}", true);
  CHECK(kept.changed);
  CHECK(count(ops_of(kept.model), "Clip") == 1);
  CHECK(kept.sqnr > 100);
}

TEST_CASE("equalize-layers: a Clip that never clips becomes Relu, unless relu6=keep") {
  const std::string wide = kStart + ", float low = {0}, float high = {60000}" RELU6;
  const Equalized opened = equalize(wide, kX, "equalize-layers", true);
  CHECK(count(ops_of(opened.model), "Relu") == 1);
  CHECK(count(ops_of(opened.model), "Clip") == 0);
  CHECK(opened.sqnr > 100);
  const Equalized kept = equalize(wide, kX, "equalize-layers{relu6=keep saturation=0}", true);
  CHECK(count(ops_of(kept.model), "Clip") == 1);
  CHECK(kept.sqnr > 100);
}

TEST_CASE("equalize-layers without samples: a Clip holds its channels, relu6=relu frees them") {
  const Equalized held = equalize(kStart + kBounds + RELU6, kX, "equalize-layers", false);
  CHECK_FALSE(held.changed);
  CHECK(skip_reason(held.context, "Conv->c").find("relu6=relu") != std::string::npos);
  const Equalized free = equalize(kStart + kBounds + RELU6, kX, "equalize-layers{relu6=relu}", false);
  CHECK(free.changed);
  CHECK(count(ops_of(free.model), "Clip") == 0);
}

TEST_CASE("equalize-layers needs samples for objective=noise") {
  Model model = parse(kStart + "> { c = Conv(x, w1, b1) y = Conv(c, w2, b2) }");
  PassContext context;
  auto pipeline = Pipeline::parse("equalize-layers{objective=noise}", all_passes());
  REQUIRE(pipeline);
  const auto outcome = pipeline->run(model, context, {}, nullptr);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code == Code::usage);
}

void require_skipped(const std::string& source, const Dims& input, std::string_view label, std::string_view reason,
                     const std::string& pipeline = "equalize-layers") {
  for (const bool data : {false, true}) {
    const Equalized result = equalize(source, input, pipeline, data);
    INFO(skip_reason(result.context, label));
    CHECK_FALSE(result.changed);
    CHECK(dump(result.model) == dump(parse(source)));
    CHECK(skip_reason(result.context, label).find(reason) != std::string::npos);
  }
}

TEST_CASE("equalize-layers does not: other readers, outputs, ops that are not homogeneous, bodies, excluded nodes") {
  require_skipped(kStart + "> { c = Conv(x, w1, b1) r = Sigmoid(c) y = Conv(r, w2, b2) }", kX, "Conv->c", "Sigmoid->r");
  require_skipped(kStart + "> { c = Conv(x, w1, b1) e = Exp(c) y = Conv(c, w2, b2) z = Neg(e) }", kX, "Conv->c",
                  "Exp->e");
  require_skipped(HEAD "g (float[1, 4, 8, 8] x) => (float[N, C, H, W] y, float[A, B, D, E] c) <" +
                      uneven("w1", {8, 4, 3, 3}, 1) + ", " + uneven("w2", {6, 8, 1, 1}, 3) +
                      "> { c = Conv(x, w1) y = Conv(c, w2) }",
                  kX, "Conv->c", "output of the graph");
  require_skipped(kStart + "> { c = Conv(x, w1, b1) y = Conv(c, w2, b2) }", kX, "Conv->y", "",
                  "equalize-layers{skip=*}");
  require_skipped(
      kStart +
          ", bool yes = {1}> { c = Conv(x, w1, b1) y = If(yes) <then_branch = a () => (t) { t = Conv(c, w2) }, "
          "else_branch = e () => (f) { f = Conv(c, w2, b2) }> }",
      kX, "Conv->c", "nested body");
}

TEST_CASE("equalize-layers does not: shared weights, weights that are graph inputs") {
  require_skipped(kStart + "> { c = Conv(x, w1, b1) d = Conv(x, w1) a = Add(c, d) y = Conv(a, w2, b2) }", kX, "Conv->y",
                  "output of the graph");
  const std::string text = HEAD "g (float[1, 4, 8, 8] x, float[8, 4, 1, 1] w1) => (float[N, C, H, W] y) <" +
                           uneven("w1", {8, 4, 1, 1}, 1) + ", " + uneven("w2", {6, 8, 1, 1}, 3) +
                           "> { c = Conv(x, w1) r = Relu(c) y = Conv(r, w2) }";
  Model model = parse(text);
  CHECK_FALSE(run_pipeline(model, "equalize-layers").changed);
  CHECK(dump(model) == dump(parse(text)));
}

TEST_CASE("equalize-layers inside a body") {
  const std::string source = kStart + ", bool yes = {1}> { y = If(yes) <then_branch = a () => (t) <" +
                             uneven("v1", {8, 4, 3, 3}, 7) + ", " + uneven("v2", {6, 8, 1, 1}, 8) +
                             "> { c = Conv(x, v1) r = Relu(c) t = Conv(r, v2) }, else_branch = e () => (f) { "
                             "f = Conv(x, w1, b1) }> }";
  const Equalized result = equalize(source, kX, "equalize-layers", true);
  CHECK(result.changed);
  CHECK(result.sqnr > 100);
}

TEST_CASE("equalize-layers: the same bytes at any thread count") {
  const std::string source = kStart + kBounds + RELU6;
  CHECK(equalize(source, kX, "equalize-layers", true, 1).model.fingerprint().value() ==
        equalize(source, kX, "equalize-layers", true, 4).model.fingerprint().value());
}

}  // namespace
}  // namespace onnxpress::testing
