#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "support/coarse.h"
#include "support/journal.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinAbs;

Model corrected(PassContext& context, std::size_t per_batch = 1, unsigned jobs = 1) {
  Model model = coarse_quantized();
  context.reference = std::make_shared<const Model>(coarse_reference());
  CHECK(repair(model, "correct-bias", context, smooth_samples(30, per_batch), jobs).changed);
  return model;
}

// Mean of each output over the calibration samples.
std::vector<double> output_means(const Model& model) {
  const Batch batch = smooth_samples(30, 30).front();
  const auto outputs = run_on(model, batch);
  const auto y = outputs[0].as<float>();
  std::vector<double> means(5, 0);
  for (std::size_t i = 0; i < y.size(); ++i) means[i % 5] += double{y[i]} / 30;
  return means;
}

const std::string kBatchNorm =
    "float[2] g = {0, 2}, float[2] h = {1.5, -1}, float[2] m = {0, 0}, float[2] v = {1, 1}, float[2] b = {1, 2}";
std::string bn_text(const std::string& constants, const std::string& weight, const std::string& between = "Relu") {
  return HEAD "n (float[1, 2, 3, 3] x) => (float[1, 2, 3, 3] y) <" + kBatchNorm + ", " + constants + "> { " + weight +
         "n = BatchNormalization(x, g, h, m, v) r = " + between + "(n) y = Conv(r, w, b) }";
}
const std::string kFloat = "float[2, 2, 1, 1] w = {1.25, 2, 3, 3.5}";
const std::string kCodes = "int8[2, 2, 1, 1] q = {1, 2, 3, 4}, float s = {1}";

}  // namespace

TEST_CASE("correct-bias gives outputs the float model's means and lowers their error") {
  PassContext context;
  const Model model = corrected(context);
  const auto wanted = output_means(coarse_reference()), got = output_means(model),
             before = output_means(coarse_quantized());
  for (std::size_t c = 0; c < 5; ++c) {
    CHECK_THAT(got[c], WithinAbs(wanted[c], 1e-2 * std::abs(before[c] - wanted[c])));
    CHECK(std::abs(before[c] - wanted[c]) > 1e-3);
  }
  INFO(coarse_sqnr(coarse_quantized()) << " dB -> " << coarse_sqnr(model) << " dB");
  CHECK(coarse_sqnr(model) > coarse_sqnr(coarse_quantized()) + 3);
  CHECK(ops_of(model) == ops_of(coarse_quantized()));
  for (const std::size_t per_batch : {7UZ, 30UZ}) {
    PassContext other;
    CHECK(corrected(other, per_batch, 3).fingerprint().value() == model.fingerprint().value());
  }
}

TEST_CASE("correct-bias behind quant-static: int32 biases, also where there was none, and everything still fuses") {
  Model model = coarse_reference();
  PassContext context;
  CHECK(repair(model, "quant-static,correct-bias", context, smooth_samples(30, 1)).changed);
  const OpCounts ops = runtime_ops(model);
  INFO(text(ops));
  CHECK(count(ops, "QLinearConv") == 2);
  CHECK(count(ops, "com.microsoft.QGemm") == 1);
  const Node gemm = nodes_of(model, "Gemm").at(0);
  const Node bias = model.main().producer(gemm.input(2));
  REQUIRE(bias);
  CHECK(bias.is("DequantizeLinear"));
  CHECK(model.main().constant_type(bias.input(0))->first == DType::i32);
}

TEST_CASE("correct-bias without data: means from BatchNormalization") {
  // Channel 0 is 1.5 always; channel 1 has mean -1 and deviation 2, behind Relu 0.39577... (a clipped normal).
  const double second =
      -1 * 0.5 * std::erfc(0.5 / std::sqrt(2.0)) + 2 * std::exp(-0.125) / std::sqrt(2 * 3.14159265358979);
  Model model = parse(bn_text(kCodes, "w = DequantizeLinear(q, s) "));
  PassContext context;
  context.reference = std::make_shared<const Model>(parse(bn_text(kFloat, "")));
  CHECK(repair(model, "correct-bias", context, {}).changed);
  const auto bias = model.main().initializer("b").read();
  REQUIRE(bias);
  CHECK_THAT(double{bias->as<float>()[0]}, WithinAbs(1 + 0.25 * 1.5, 3e-4));
  CHECK_THAT(double{bias->as<float>()[1]}, WithinAbs(2 - 0.5 * second, 3e-4));
}

TEST_CASE("correct-bias without data leaves layers whose input it knows nothing of") {
  const std::string quantized = bn_text(kCodes, "w = DequantizeLinear(q, s) ", "Sigmoid");
  Model model = parse(quantized);
  PassContext context;
  context.reference = std::make_shared<const Model>(parse(bn_text(kFloat, "", "Sigmoid")));
  CHECK_FALSE(repair(model, "correct-bias", context, {}).changed);
  CHECK(dump(model) == dump(parse(quantized)));
  CHECK(skip_reason(context, "Conv->y").find("no BatchNormalization") != std::string::npos);
}

TEST_CASE("correct-bias leaves a MatMul without Add, a shared bias, and a model without a float original") {
  const std::string matmul = HEAD
      "g (float[n, 2] x) => (float[n, 2] y) <int8[2, 2] q = {0, 1, 2, 3}, float s = {1}> "
      "{ w = DequantizeLinear(q, s) y = MatMul(x, w) }";
  std::vector<Batch> samples;
  for (unsigned seed = 0; seed < 3; ++seed) samples.push_back(random_batch("x", {1, 2}, seed));
  Model model = parse(matmul);
  PassContext context;
  context.reference = std::make_shared<const Model>(
      parse(HEAD "g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {0.4, 1, 2, 3}> { y = MatMul(x, w) }"));
  CHECK_FALSE(repair(model, "correct-bias", context, samples).changed);
  CHECK(skip_reason(context, "MatMul->y") == "nothing behind it adds a bias");
  PassContext alone;
  CHECK_FALSE(repair(model, "correct-bias", alone, samples).changed);
  CHECK(dump(model) == dump(parse(matmul)));
  CHECK(alone.journal.warnings().size() == 1);

  // The float bias of two layers: the corrected one gets its own.
  const auto two = [](const std::string& weight, const std::string& constants) {
    return HEAD
           "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <float[2] b = {1, 2}, float[2, 2] v = {1, 2, 3, 4}, " +
           constants + "> { " + weight + "y = Gemm(x, w, b) z = Gemm(x, v, b) }";
  };
  Model shared = parse(two("w = DequantizeLinear(q, s) ", "int8[2, 2] q = {0, 1, 2, 3}, float s = {1}"));
  PassContext third;
  third.reference = std::make_shared<const Model>(parse(two("", "float[2, 2] w = {0.4, 1, 2, 3}")));
  CHECK(repair(shared, "correct-bias", third, samples).changed);
  CHECK(shared.main().initializer("b").read()->as<float>()[0] == 1);
  CHECK(shared.main().producer("z").input(2) == "b");
  CHECK(shared.main().producer("y").input(2) == "b_1");
}

}  // namespace onnxpress::testing
