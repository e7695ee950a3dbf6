#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "engine/activations.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Corrected {
  Model model = {};
  PassContext context = {};
  bool changed = false;
};

Corrected correct(const std::string& source, const std::vector<Batch>& batches,
                  const std::string& pipeline = "correct-batchnorm", unsigned jobs = 1) {
  INFO(source);
  Corrected out{.model = parse(source)};
  MemorySource samples(batches);
  EngineActivations activations(samples, jobs, 0);
  out.context.activations = &activations;
  out.context.jobs = jobs;
  out.changed = run_pipeline(out.model, pipeline, &out.context).changed;
  const std::string once = out.model.fingerprint().value();
  PassContext again;
  again.activations = &activations;
  CHECK_FALSE(run_pipeline(out.model, pipeline, &again).changed);
  CHECK(out.model.fingerprint().value() == once);
  out.context.activations = nullptr;
  return out;
}

std::vector<Batch> two_samples() {
  std::vector<Batch> batches(2);
  batches[0].inputs.push_back({"x", Tensor::of_floats({1, 2, 1, 2}, std::vector<float>{1, 3, 10, 10})});
  batches[1].inputs.push_back({"x", Tensor::of_floats({1, 2, 1, 2}, std::vector<float>{5, 7, 20, 40})});
  return batches;
}

#define PARAMETERS "float[2] s = {1, 2}, float[2] b = {0, 1}"
#define X2 "g (float[1, 2, 1, 2] x) => (float[1, 2, 1, 2] y) <"

TEST_CASE("correct-batchnorm by hand") {
  // Channel 0: 1, 3, 5, 7; channel 1: 10, 10, 20, 40.
  const Corrected result = correct(
      HEAD X2 PARAMETERS ", float[2] m = {0, 0}, float[2] v = {1, 1}> { y = BatchNormalization(x, s, b, m, v) }",
      two_samples());
  CHECK(result.changed);
  CHECK(dump(result.model) ==
        dump(parse(HEAD X2 PARAMETERS
                   ", float[2] m = {4, 20}, float[2] v = {5, 150}> { y = BatchNormalization(x, s, b, m, v) }")));
}

TEST_CASE("correct-batchnorm goes front to back") {
  // The second sees what the corrected first makes: mean b, variance s^2 var / (var + epsilon).
  const Corrected result =
      correct(HEAD X2 PARAMETERS
              ", float[2] m = {0, 0}, float[2] v = {1, 1}, float[2] m2 = {9, 9}, float[2] v2 = {9, 9}> "
              "{ t = BatchNormalization(x, s, b, m, v) u = Identity(t) y = BatchNormalization(u, s, b, m2, v2) }",
              two_samples());
  const auto mean = result.model.main().initializer("m2").read(),
             variance = result.model.main().initializer("v2").read();
  REQUIRE((mean && variance));
  CHECK_THAT(mean->as<float>()[0], Catch::Matchers::WithinAbs(0, 1e-5));
  CHECK_THAT(mean->as<float>()[1], Catch::Matchers::WithinAbs(1, 1e-5));
  CHECK_THAT(variance->as<float>()[0], Catch::Matchers::WithinRel(1.0F, 1e-4F));
  CHECK_THAT(variance->as<float>()[1], Catch::Matchers::WithinRel(4.0F, 1e-4F));
}

TEST_CASE("correct-batchnorm copies parameters that others read") {
  const Corrected result =
      correct(HEAD "g (float[1, 2, 1, 2] x) => (float[1, 2, 1, 2] y, float[2] m) <" PARAMETERS
                   ", float[2] m = {0, 0}, float[2] v = {1, 1}> { y = BatchNormalization(x, s, b, m, v) }",
              two_samples());
  CHECK(result.changed);
  CHECK(result.model.main().initializer("m").read()->as<float>()[0] == 0);
  CHECK(result.model.main().initializer("m_1").read()->as<float>()[0] == 4);
}

TEST_CASE("correct-batchnorm undoes what pruning did to the statistics") {
  const std::string source = HEAD "g (float[1, 4, 8, 8] x) => (float[N, C, H, W] y) <" +
                             float_tensor("w", {6, 4, 3, 3}, 1) + ", " + float_tensor("s", {6}, 2) + ", " +
                             float_tensor("b", {6}, 3) +
                             ", float[6] m = {1, 1, 1, 1, 1, 1}, float[6] v = {9, 9, 9, 9, 9, 9}, float one = {1}> "
                             "{ p = Add(x, one) t = Conv(p, w) y = BatchNormalization(t, s, b, m, v) }";
  std::vector<Batch> batches;
  for (unsigned seed = 0; seed < 6; ++seed) batches.push_back(random_batch("x", {1, 4, 8, 8}, seed));
  const Corrected good = correct(source, batches);
  Model pruned = good.model.clone();
  run_pipeline(pruned, "prune-magnitude{sparsity=0.5 min_elements=0}");
  MemorySource samples(batches);
  EngineActivations activations(samples, 1, 0);
  PassContext context;
  context.activations = &activations;
  Model repaired = pruned.clone();
  CHECK(run_pipeline(repaired, "correct-batchnorm", &context).changed);
  double before = 0, after = 0;
  for (const Batch& batch : batches) {
    before += sqnr_db(run_on(good.model, batch), run_on(pruned, batch));
    after += sqnr_db(run_on(good.model, batch), run_on(repaired, batch));
  }
  CHECK(after > before);
}

TEST_CASE("correct-batchnorm: the same bytes at any thread count and batch size") {
  const std::string source =
      HEAD X2 PARAMETERS ", float[2] m = {0, 0}, float[2] v = {1, 1}> { y = BatchNormalization(x, s, b, m, v) }";
  CHECK(correct(source, two_samples(), "correct-batchnorm", 1).model.fingerprint().value() ==
        correct(source, two_samples(), "correct-batchnorm", 4).model.fingerprint().value());
}

TEST_CASE("correct-batchnorm does not: training mode, parameters that are inputs, bodies, excluded nodes") {
  const auto reason = [](const std::string& source, const std::string& pipeline, const std::string& label) {
    const Corrected result = correct(source, two_samples(), pipeline);
    CHECK_FALSE(result.changed);
    CHECK(dump(result.model) == dump(parse(source)));
    return skip_reason(result.context, label);
  };
  const std::string pair = "float[2] m = {0, 0}, float[2] v = {1, 1}";
  CHECK(reason(
            HEAD X2 PARAMETERS ", " + pair + "> { y, mm, vv = BatchNormalization <training_mode = 1> (x, s, b, m, v) }",
            "correct-batchnorm", "BatchNormalization->y")
            .find("training") != std::string::npos);
  CHECK(reason(HEAD "g (float[1, 2, 1, 2] x, float[2] s = {1, 2}) => (float[1, 2, 1, 2] y) <float[2] b = {0, 0}, " +
                   pair + "> { y = BatchNormalization(x, s, b, m, v) }",
               "correct-batchnorm", "BatchNormalization->y")
            .find("not constant") != std::string::npos);
  CHECK(reason(
            HEAD X2 PARAMETERS ", " + pair +
                ", bool yes = {1}> { y = If(yes) <then_branch = a () => (t) { t = BatchNormalization(x, s, b, m, v) }, "
                "else_branch = e () => (f) { f = Identity(x) }> }",
            "correct-batchnorm", "BatchNormalization->t")
            .find("body") != std::string::npos);
  CHECK_FALSE(reason(HEAD X2 PARAMETERS ", " + pair + "> { y = BatchNormalization(x, s, b, m, v) }",
                     "correct-batchnorm{skip=op:BatchNormalization}", "BatchNormalization->y")
                  .empty());
}

}  // namespace
}  // namespace onnxpress::testing
