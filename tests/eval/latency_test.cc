#include "eval/latency.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

using namespace onnxpress;
using Catch::Approx;

TEST_CASE("Quantiles interpolate between neighbours") {
  CHECK(quantile({4, 1, 3, 2}, 0) == 1);
  CHECK(quantile({4, 1, 3, 2}, 1) == 4);
  CHECK(quantile({4, 1, 3, 2}, 0.5) == Approx(2.5));
  CHECK(quantile({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 0.9) == Approx(10));
  CHECK(quantile({7}, 0.9) == 7);
  CHECK(quantile({}, 0.5) == 0);
}

TEST_CASE("Latency statistics of given times") {
  const auto stats = latency_stats(std::vector{3.0, 1.0, 2.0});
  CHECK(stats.p50 == 2);
  CHECK(stats.min == 1);
  CHECK(stats.mean == 2);
  CHECK(stats.runs == 3);
  CHECK(latency_stats({}).runs == 0);
}

TEST_CASE("Both models are run as often as asked; wrong inputs are refused") {
  const Model model = testing::parse(HEAD "g (float[2] x) => (float[2] y) { y = Neg(x) }");
  const std::vector<NamedTensor> inputs = {{"x", Tensor(DType::f32, {2})}};
  const auto both = compare_latency(model, model, inputs, {.runs = 7, .warmup = 1});
  REQUIRE(both);
  CHECK(both->before.runs == 7);
  CHECK(both->after.runs == 7);
  CHECK(both->before.min > 0);
  CHECK(both->before.min <= both->before.p50);
  CHECK(both->before.p50 <= both->before.p90);
  const auto stopped = measure_latency(model, inputs, {.runs = 100, .warmup = 0, .max_seconds = 0});
  REQUIRE(stopped);
  CHECK(stopped->runs == 5);
  CHECK_FALSE(measure_latency(model, {}, {}));
}
