#include "eval/evaluate.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "support/memory_source.h"
#include "support/models.h"

using namespace onnxpress;
using Catch::Approx;
using testing::MemorySource;

namespace {

// Scores are the input itself, so the right answers can be read off the samples.
const char* kScores = HEAD "g (float[N, 3] x) => (float[N, 3] y) { y = Identity(x) }";
// The same with class 2 raised: wrong wherever another class leads by less than 0.5.
const char* kBiased = HEAD "g (float[N, 3] x) => (float[N, 3] y) <float[3] b = {0.0, 0.0, 0.5}> { y = Add(x, b) }";

Batch sample(std::vector<float> values, std::vector<std::int64_t> labels) {
  Batch batch;
  batch.inputs.push_back({"x", Tensor::of_floats({1, 3}, values)});
  batch.labels = std::move(labels);
  return batch;
}

std::vector<Batch> four_samples(bool labelled = true) {
  const auto labels = [&](std::int64_t label) {
    return labelled ? std::vector<std::int64_t>{label} : std::vector<std::int64_t>{};
  };
  return {sample({1, 0, 0}, labels(0)), sample({0, 1, 0.75F}, labels(1)), sample({0.2F, 0, 0}, labels(0)),
          sample({1, 0, 0}, labels(2))};
}

}  // namespace

TEST_CASE("Top-1 of one model") {
  MemorySource source(four_samples());
  const auto result = evaluate(testing::parse(kScores), source);
  REQUIRE(result);
  CHECK(result->metric == Metric::top1);
  CHECK(result->samples == 4);
  REQUIRE(result->scores.size() == 1);  // three classes: no top-5
  CHECK(result->scores[0].value == 75);
  CHECK(result->scores[0].output == "y");
  CHECK(result->scores[0].count == 4);
  CHECK(result->warnings.empty());
}

TEST_CASE("Two models on the same samples, at any number of jobs") {
  for (const unsigned jobs : {1U, 2U, 5U}) {
    MemorySource source(four_samples());
    const auto result = compare(testing::parse(kScores), testing::parse(kBiased), source, {.jobs = jobs});
    REQUIRE(result);
    CHECK(result->metric == Metric::top1);
    REQUIRE(result->headline() != nullptr);
    CHECK(result->headline()->before == 75);
    CHECK(result->headline()->after == 25);
    CHECK(*result->headline()->drop == 50);
    REQUIRE(result->scores.size() == 2);
    CHECK(result->scores[1].metric == Metric::agreement);
    CHECK(result->scores[1].after == 50);
    // Each sample is off by 0.5 in one place.
    const double signal = 1 + (1 + 0.75 * 0.75) + static_cast<double>(0.2F) * static_cast<double>(0.2F) + 1;
    CHECK(*result->worst_sqnr() == Approx(10 * std::log10(signal / 1.0)));
    CHECK(result->outputs[0].closeness.max_abs_error == 0.5);
  }
}

TEST_CASE("A model against itself is equal, infinitely close") {
  MemorySource source(four_samples(false));
  const auto result = compare(testing::parse(kScores), testing::parse(kScores), source);
  REQUIRE(result);
  CHECK(result->metric == Metric::agreement);
  CHECK(result->headline()->after == 100);
  CHECK(*result->headline()->drop == 0);
  CHECK(*result->worst_sqnr() == std::numeric_limits<double>::infinity());
}

TEST_CASE("Without classes the headline is the SQNR and there is no drop") {
  const char* vector = HEAD "g (float[N] x) => (float[N] y) { y = Neg(x) }";
  Batch batch;
  batch.inputs.push_back({"x", Tensor::of_floats({2}, std::vector{1.0F, 2.0F})});
  MemorySource source({batch});
  const auto result = compare(testing::parse(vector), testing::parse(vector), source);
  REQUIRE(result);
  CHECK(result->metric == Metric::sqnr);
  CHECK(result->headline() == nullptr);
}

TEST_CASE("Positions of a detector agree only when asked") {
  const char* boxes = HEAD "g (float[N, 4, 2] x) => (float[N, 4, 2] y) { y = Neg(x) }";
  Batch batch;
  batch.inputs.push_back({"x", Tensor::of_floats({1, 4, 2}, testing::random_floats(8, 1))});
  MemorySource source({batch});
  const auto unasked = compare(testing::parse(boxes), testing::parse(boxes), source);
  REQUIRE(unasked);
  CHECK(unasked->metric == Metric::sqnr);
  CHECK(unasked->scores.empty());
  const auto asked = compare(testing::parse(boxes), testing::parse(boxes), source, {.metric = Metric::agreement});
  REQUIRE(asked);
  CHECK(asked->headline()->count == 4);
}

TEST_CASE("Perplexity of a token model") {
  // The logits are a fixed row of log probabilities: 1/2, 1/4, 1/4.
  const char* text = HEAD
      "g (int64[N, S] input_ids) => (float[N, S, 3] logits)"
      " <float[3, 3] table = {-0.6931472, -1.3862944, -1.3862944, -0.6931472, -1.3862944, -1.3862944,"
      " -0.6931472, -1.3862944, -1.3862944}> { logits = Gather(table, input_ids) }";
  Batch batch;
  batch.inputs.push_back({"input_ids", Tensor::of_int64s({1, 3}, std::vector<std::int64_t>{2, 0, 1})});
  MemorySource source({batch});
  const auto result = evaluate(testing::parse(text), source, {.metric = Metric::perplexity});
  REQUIRE(result);
  CHECK(result->scores[0].value == Approx(std::sqrt(8.0)).epsilon(1e-6));
  CHECK(result->scores[0].count == 2);
  const auto both = compare(testing::parse(text), testing::parse(text), source, {.metric = Metric::perplexity});
  REQUIRE(both);
  CHECK(both->headline()->metric == Metric::perplexity);
  CHECK(*both->headline()->drop == 0);
  SECTION("it is not taken unasked") {
    const auto unasked = compare(testing::parse(text), testing::parse(text), source);
    REQUIRE(unasked);
    CHECK(unasked->metric == Metric::agreement);
    CHECK(unasked->headline()->count == 3);
  }
}

TEST_CASE("Expected outputs are a reference of their own") {
  auto batches = four_samples(false);
  batches.resize(1);
  batches[0].expected.push_back({"y", Tensor::of_floats({1, 3}, std::vector{1.0F, 0.0F, 0.5F})});
  MemorySource source(batches);
  const auto one = evaluate(testing::parse(kScores), source);
  REQUIRE(one);
  CHECK(one->metric == Metric::sqnr);
  REQUIRE(one->expected.size() == 1);
  CHECK(one->expected[0].closeness.max_abs_error == 0.5);
  const auto two = compare(testing::parse(kScores), testing::parse(kBiased), source);
  REQUIRE(two);
  CHECK_FALSE(two->expected_before[0].closeness.equal());
  CHECK(two->expected_after[0].closeness.equal());
}

TEST_CASE("NaN outputs are reported, not averaged away") {
  const char* log = HEAD
      "g (float[N, 3] x) => (float[N, 3] y) <float[3] m = {-1.0, -1.0, -1.0}>"
      " { z = Add(x, m)  y = Sqrt(z) }";
  MemorySource source(four_samples());
  const auto result = compare(testing::parse(kScores), testing::parse(log), source);
  REQUIRE(result);
  CHECK(std::isnan(*result->worst_sqnr()));
  REQUIRE(result->warnings.size() == 1);
  CHECK(result->warnings[0].contains("output y after: 9 NaN values"));
}

TEST_CASE("An output only one model has is warned of") {
  const char* two = HEAD "g (float[N, 3] x) => (float[N, 3] y, float[N, 3] z) { y = Identity(x)  z = Neg(x) }";
  MemorySource source(four_samples());
  const auto result = compare(testing::parse(two), testing::parse(kScores), source);
  REQUIRE(result);
  REQUIRE(result->warnings.size() == 1);
  CHECK(result->warnings[0].contains("output z exists only in the model before"));
}

TEST_CASE("What cannot be measured is refused") {
  const Model scores = testing::parse(kScores);
  const auto refused = [&](std::vector<Batch> batches, Metric metric, bool two, Code code, std::string_view why) {
    MemorySource source(std::move(batches));
    Error error;
    if (two) {
      const auto result = compare(scores, scores, source, {.metric = metric});
      REQUIRE_FALSE(result);
      error = result.error();
    } else {
      const auto result = evaluate(scores, source, {.metric = metric});
      REQUIRE_FALSE(result);
      error = result.error();
    }
    INFO(error.text());
    CHECK(error.code == code);
    CHECK(error.text().contains(why));
  };
  refused(four_samples(false), Metric::automatic, false, Code::usage, "neither labels nor expected outputs");
  refused(four_samples(false), Metric::top1, true, Code::usage, "no labels");
  refused(four_samples(), Metric::perplexity, true, Code::usage, "integer input");
  refused(four_samples(), Metric::agreement, false, Code::usage, "two models");
  refused(four_samples(), Metric::sqnr, false, Code::usage, "two models");
  refused({}, Metric::automatic, true, Code::bad_input, "no samples");
  refused({sample({1, 2, 3}, {7})}, Metric::automatic, false, Code::bad_input, "label 7");
  MemorySource source(four_samples());
  const auto strangers =
      compare(scores, testing::parse(HEAD "g (float[N, 3] x) => (float[N, 3] q) { q = Neg(x) }"), source);
  REQUIRE_FALSE(strangers);
  CHECK(strangers.error().text().contains("no output of the same name"));
}
