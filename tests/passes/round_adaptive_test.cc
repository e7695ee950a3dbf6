#include <catch2/catch_test_macros.hpp>

#include "support/coarse.h"
#include "support/journal.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Repaired {
  Model model;
  PassContext context = {};
  Outcome outcome = {};
};

Repaired round(const std::string& options = {}, std::size_t per_batch = 1, unsigned jobs = 1) {
  Repaired out{.model = coarse_quantized()};
  out.context.reference = std::make_shared<const Model>(coarse_reference());
  out.outcome = repair(out.model, "round-adaptive" + options, out.context, smooth_samples(30, per_batch), jobs);
  return out;
}

std::vector<std::int8_t> codes_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().initializer(name).read();
  REQUIRE(tensor);
  return {tensor->as<std::int8_t>().begin(), tensor->as<std::int8_t>().end()};
}

std::vector<float> floats_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().initializer(name).read();
  REQUIRE(tensor);
  return {tensor->as<float>().begin(), tensor->as<float>().end()};
}

}  // namespace

TEST_CASE("round-adaptive brings coarse weights close to the float outputs") {
  const double before = coarse_sqnr(coarse_quantized());
  const Repaired full = round();
  CHECK(full.outcome.changed);
  INFO(before << " dB -> " << coarse_sqnr(full.model) << " dB");
  CHECK(coarse_sqnr(full.model) > before + 10);
  CHECK(coarse_sqnr(round("{sequential=false}").model) > before + 6);
  CHECK(coarse_sqnr(round("{scales=false}").model) > before + 6);
  CHECK(coarse_sqnr(round("{damping=0.05 positions=8}").model) > before + 6);
  // Structure and types are those of before, but for the bias that the Gemm lacked.
  CHECK(ops_of(full.model) == ops_of(coarse_quantized()));
  CHECK(full.model.main().nodes().back().input_count() == 3);
  CHECK(floats_of(full.model, "w1_s") != floats_of(coarse_quantized(), "w1_s"));
  CHECK(codes_of(full.model, "w2_q") != codes_of(coarse_quantized(), "w2_q"));
}

TEST_CASE("round-adaptive keeps what its options fix") {
  const Repaired fixed = round("{scales=false max_move=1}");
  const Model before = coarse_quantized();
  for (const char* name : {"w1", "w2", "w3"}) {
    CHECK(floats_of(fixed.model, std::string(name) + "_s") == floats_of(before, std::string(name) + "_s"));
    const auto from = codes_of(before, std::string(name) + "_q"), to = codes_of(fixed.model, std::string(name) + "_q");
    for (std::size_t i = 0; i < from.size(); ++i) CHECK(std::abs(from[i] - to[i]) <= 1);
  }
  const Repaired skipped = round("{skip=op:Gemm}");
  CHECK(codes_of(skipped.model, "w3_q") == codes_of(before, "w3_q"));
  CHECK(codes_of(skipped.model, "w1_q") != codes_of(before, "w1_q"));
}

TEST_CASE("round-adaptive gives the same bytes at any batch size and thread count") {
  const std::string expected = round().model.fingerprint().value();
  for (const std::size_t per_batch : {7UZ, 30UZ})
    for (const unsigned jobs : {1U, 3U}) CHECK(round({}, per_batch, jobs).model.fingerprint().value() == expected);
}

TEST_CASE("round-adaptive behind quant-static: all convolutions stay integer") {
  Model model = coarse_reference();
  PassContext context;
  CHECK(repair(model, "quant-static,round-adaptive", context, smooth_samples(30, 1)).changed);
  REQUIRE(context.reference);
  const OpCounts ops = runtime_ops(model);
  INFO(text(ops));
  CHECK(count(ops, "QLinearConv") == 2);
  CHECK(count(ops, "com.microsoft.QGemm") == 1);
  CHECK(count(ops, "Conv") == 0);
  Model plain = coarse_reference();
  PassContext other;
  repair(plain, "quant-static", other, smooth_samples(30, 1));
  INFO(coarse_sqnr(plain) << " dB -> " << coarse_sqnr(model) << " dB");
  CHECK(coarse_sqnr(model) > coarse_sqnr(plain));
  // Pairs that could not saturate still cannot.
  Model guarded = coarse_reference();
  repair(guarded, "quant-static{target=ort-x86},round-adaptive", other, smooth_samples(30, 1));
  const auto codes = codes_of(guarded, "w3_quantized");
  for (std::size_t i = 0; i < codes.size(); i += 2)
    if ((codes[i] < 0) == (codes[i + 1] < 0)) CHECK(std::abs(codes[i] + codes[i + 1]) <= 128);
}

TEST_CASE("round-adaptive leaves a model alone that has no float original, and what others read") {
  Model model = coarse_quantized();
  PassContext context;
  CHECK_FALSE(repair(model, "round-adaptive", context, smooth_samples(10, 1)).changed);
  CHECK(dump(model) == dump(coarse_quantized()));
  REQUIRE(context.journal.warnings().size() == 1);
  CHECK(context.journal.warnings()[0].find("no float model") != std::string::npos);

  const std::string float_text = HEAD
      "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <float[2, 2] w = {0.4, 1, 2, 3}> { y = MatMul(x, w) z = "
      "MatMul(y, w) }";
  const std::string shared_text = HEAD
      "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <int8[2, 2] q = {0, 1, 2, 3}, float s = {1}> "
      "{ w = DequantizeLinear(q, s) y = MatMul(x, w) z = MatMul(y, w) }";
  Model shared = parse(shared_text);
  PassContext second;
  second.reference = std::make_shared<const Model>(parse(float_text));
  std::vector<Batch> samples;
  for (unsigned seed = 0; seed < 6; ++seed) samples.push_back(random_batch("x", {1, 2}, seed));
  CHECK_FALSE(repair(shared, "round-adaptive", second, samples).changed);
  CHECK(dump(shared) == dump(parse(shared_text)));
  CHECK(skip_reason(second, "MatMul->y").find("also read by") != std::string::npos);
}

TEST_CASE("round-adaptive does not touch bodies") {
  const auto text = [](const std::string& weight, const std::string& constants) {
    return HEAD "g (float[1, 2] x, bool c) => (float[1, 2] y) <" + constants + "> { " + weight +
           "y = If(c) <then_branch = p () => (float[1, 2] q) { q = MatMul(x, w) }, "
           "else_branch = e () => (float[1, 2] r) { r = Identity(x) }> }";
  };
  const std::string quantized = text("w = DequantizeLinear(k, s) ", "int8[2, 2] k = {1, 2, 3, 4}, float s = {0.5}");
  Model model = parse(quantized);
  PassContext context;
  context.reference = std::make_shared<const Model>(parse(text("", "float[2, 2] w = {0.6, 1, 1.4, 2}")));
  Batch batch = random_batch("x", {1, 2}, 1);
  batch.inputs.push_back({"c", Tensor::scalar<bool>(DType::boolean, true)});
  CHECK_FALSE(repair(model, "round-adaptive", context, {batch}).changed);
  CHECK(dump(model) == dump(parse(quantized)));
}

}  // namespace onnxpress::testing
