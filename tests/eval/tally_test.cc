#include "eval/tally.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <limits>

using namespace onnxpress;
using Catch::Approx;

namespace {

Tensor floats(Dims dims, std::vector<float> values) { return Tensor::of_floats(std::move(dims), values); }
Tensor ints(Dims dims, std::vector<std::int64_t> values) { return Tensor::of_int64s(std::move(dims), values); }

Status add(ModelTally& tally, const Batch& batch, const std::vector<std::string>& names,
           const std::vector<Tensor>& outputs, bool with_perplexity = false) {
  std::vector<ValueInfo> infos;
  for (const std::string& name : names) infos.push_back({name, {}});
  return tally.add(batch, infos, outputs, with_perplexity);
}

}  // namespace

TEST_CASE("The first output with a row of classes per label is scored") {
  Batch batch;
  batch.labels = {1, 0};
  batch.samples = 2;
  ModelTally tally;
  REQUIRE(add(tally, batch, {"ids", "one", "pooled", "more"},
              {ints({2, 2}, {0, 0, 0, 0}), floats({1, 2}, {0, 1}), floats({2, 2, 1, 1}, {0, 1, 0, 1}),
               floats({2, 2}, {0, 1, 1, 0})}));
  REQUIRE(tally.classes.size() == 1);
  CHECK(tally.classes.at("pooled").top.percent(Metric::top1) == 50);
  CHECK(tally.nans.empty());
}

TEST_CASE("Rows beyond the labels are padding") {
  Batch batch;
  batch.labels = {1};
  ModelTally tally;
  REQUIRE(add(tally, batch, {"y"}, {floats({2, 2}, {0, 1, 5, 5})}));
  CHECK(tally.classes.at("y").top.rows == 1);
}

TEST_CASE("Tokens come from input_ids and are masked by attention_mask") {
  Batch batch;
  batch.inputs = {{"other", ints({1, 3}, {9, 9, 9})},
                  {"input_ids", ints({1, 3}, {0, 1, 1})},
                  {"attention_mask", ints({1, 3}, {1, 1, 0})}};
  ModelTally tally;
  REQUIRE(add(tally, batch, {"logits"}, {floats({1, 3, 2}, {0, 0, 9, 0, 0, 0})}, true));
  CHECK(tally.perplexity.at("logits").tokens == 1);
  CHECK(tally.perplexity.at("logits").value() == Approx(2));
  ModelTally without;
  REQUIRE(add(without, {}, {"logits"}, {floats({1, 3, 2}, {0, 0, 9, 0, 0, 0})}, true));
  CHECK(without.perplexity.empty());
}

TEST_CASE("Expected outputs go by name, without one by position; misfits are counted") {
  Batch batch;
  batch.expected = {{"b", floats({1}, {3})}, {"", floats({1}, {4})}, {"stranger", floats({1}, {5})}};
  ModelTally tally;
  REQUIRE(add(tally, batch, {"a", "b", "c"}, {floats({1}, {1}), floats({1}, {4}), floats({1}, {1})}));
  CHECK(tally.expected.size() == 1);
  CHECK(tally.expected.at("b").elements == 2);
  CHECK(tally.expected.at("b").max_abs_error == 1);
  batch.expected = {{"a", floats({2}, {3, 3})}};
  ModelTally misfit;
  REQUIRE(add(misfit, batch, {"a"}, {floats({1}, {1})}));
  CHECK(misfit.misfits.at("a") == 1);
}

TEST_CASE("Merged tallies are the tally of both") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Batch batch;
  batch.labels = {1};
  ModelTally first, second;
  REQUIRE(add(first, batch, {"y"}, {floats({1, 2}, {0, 1})}));
  REQUIRE(add(second, batch, {"y"}, {floats({1, 2}, {1, kNan})}));
  first.merge(second);
  CHECK(first.classes.at("y").top.rows == 2);
  CHECK(first.classes.at("y").top.top1 == 1);
  CHECK(first.classes.at("y").classes == 2);
  CHECK(first.nans.at("y") == 1);
}

TEST_CASE("Outputs of two models that do not fit are counted, not compared") {
  const Tensor a = floats({2, 2}, {0, 1, 1, 0}), b = floats({1, 2}, {0, 1});
  const std::vector<const Tensor*> before = {&a, &a}, after = {&b, &a};
  PairTally tally;
  REQUIRE(tally.add({}, {"x", "y"}, before, after, false));
  CHECK(tally.misfits.at("x") == 1);
  CHECK_FALSE(tally.misfits.contains("y"));
  CHECK(tally.outputs.at("y").equal());
  CHECK(tally.agreement.at("y").rows == 2);
  CHECK_FALSE(tally.agreement.contains("x"));
}
