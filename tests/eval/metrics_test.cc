#include "eval/metrics.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "support/models.h"

using namespace onnxpress;
using Catch::Approx;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

// Full sort, then look where the label is.
bool oracle_in_top_k(const std::vector<float>& scores, std::size_t label, std::size_t k) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  return std::ranges::find(order, label) - order.begin() < static_cast<std::ptrdiff_t>(k);
}

}  // namespace

TEST_CASE("Metric names are known both ways, others are refused with a suggestion") {
  for (const std::string& name : metric_names()) CHECK(metric_name(*metric_from_name(name)) == name);
  const auto wrong = metric_from_name("perplexty");
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().code == Code::usage);
  CHECK(wrong.error().text().contains("did you mean 'perplexity'?"));
}

TEST_CASE("A drop is positive when the second model is worse") {
  CHECK(*metric_drop(Metric::top1, 91.75, 91.5) == Approx(0.25));
  CHECK(*metric_drop(Metric::top1, 91.5, 91.75) == Approx(-0.25));
  CHECK(*metric_drop(Metric::agreement, 100, 99) == Approx(1));
  CHECK(*metric_drop(Metric::perplexity, 4.0, 5.0) == Approx(25));
  CHECK(*metric_drop(Metric::perplexity, 4.0, 3.0) == Approx(-25));
  CHECK_FALSE(metric_drop(Metric::sqnr, 1, 2));
}

TEST_CASE("arg_max takes the first largest and never NaN") {
  CHECK(arg_max(std::vector{1.0F, 3.0F, 3.0F}) == 1U);
  CHECK(arg_max(std::vector{kNan, -kInf}) == 1U);
  CHECK_FALSE(arg_max(std::vector{kNan, kNan}));
  CHECK_FALSE(arg_max(std::vector<float>{}));
}

TEST_CASE("in_top_k agrees with a full sort, ties included") {
  for (unsigned seed = 0; seed < 50; ++seed) {
    auto scores = testing::random_floats(9, seed);
    if (seed % 2 == 0)
      for (float& score : scores) score = std::round(score * 2);  // many ties
    for (std::size_t label = 0; label < scores.size(); ++label)
      for (std::size_t k = 1; k <= 6; ++k) CHECK(in_top_k(scores, label, k) == oracle_in_top_k(scores, label, k));
  }
  CHECK_FALSE(in_top_k(std::vector{kNan, 1.0F}, 0, 2));
}

TEST_CASE("Class scores are [N, C] with trailing ones, or [N, S, C] per position, in floats") {
  const auto shape = [](DType dtype, const Dims& dims, bool per_position) {
    return score_shape(TensorView{dtype, dims, {}}, per_position);
  };
  CHECK(shape(DType::f32, {4, 10}, false)->classes == 10);
  CHECK(shape(DType::f16, {4, 10, 1, 1}, false)->rows == 4);
  CHECK(shape(DType::f32, {2, 5, 7}, true)->rows == 10);
  CHECK(shape(DType::f32, {2, 5, 7}, true)->classes == 7);
  CHECK_FALSE(shape(DType::f32, {4, 1}, false));
  CHECK_FALSE(shape(DType::f32, {4, 10, 1}, false));
  CHECK_FALSE(shape(DType::f32, {4}, false));
  CHECK_FALSE(shape(DType::f32, {0, 10}, false));
  CHECK_FALSE(shape(DType::i64, {4, 10}, false));
  CHECK_FALSE(shape(DType::f32, {2, 3, 8, 8}, false));
  CHECK_FALSE(shape(DType::f32, {2, 3, 8, 8}, true));
}

TEST_CASE("TopK counts rows and refuses labels the model has no class for") {
  const std::vector scores = {0.1F, 0.9F, 0.0F, 0.5F, 0.4F, 0.3F};
  TopK top;
  REQUIRE(top.add(scores, 3, std::vector<std::int64_t>{1, 2}));
  CHECK(top.percent(Metric::top1) == 50);
  CHECK(top.percent(Metric::top5) == 100);
  TopK sum;
  sum.merge(top);
  sum.merge(top);
  CHECK(sum.rows == 4);
  CHECK(TopK().percent(Metric::top1) == 0);
  for (const std::int64_t label : {std::int64_t{3}, std::int64_t{-1}}) {
    const auto status = top.add(scores, 3, std::vector<std::int64_t>{label});
    REQUIRE_FALSE(status);
    CHECK(status.error().code == Code::bad_input);
    CHECK(status.error().text().contains("3 classes"));
  }
}

TEST_CASE("Agreement is equality of the chosen class") {
  Agreement agreement;
  agreement.add(std::vector{1.0F, 2.0F, 2.0F, 1.0F}, std::vector{0.0F, 9.0F, 0.0F, 1.0F}, 2);
  CHECK(agreement.rows == 2);
  CHECK(agreement.percent() == 50);
}

TEST_CASE("Perplexity by hand") {
  SECTION("uniform logits: the size of the vocabulary") {
    Perplexity perplexity;
    REQUIRE(
        perplexity.add(std::vector<float>(2 * 3 * 4, 7.0F), 2, 3, 4, std::vector<std::int64_t>{0, 1, 2, 3, 0, 1}, {}));
    CHECK(perplexity.tokens == 4);
    CHECK(perplexity.value() == Approx(4.0));
  }
  SECTION("two predictions with probabilities 1/2 and 1/8: sqrt(16)") {
    const auto ln = [](double p) { return static_cast<float>(std::log(p)); };
    const std::vector logits = {ln(0.25), ln(0.5), ln(0.25), ln(0.125), ln(0.5), ln(0.375), 0.0F, 0.0F, 0.0F};
    Perplexity perplexity;
    REQUIRE(perplexity.add(logits, 1, 3, 3, std::vector<std::int64_t>{2, 1, 0}, {}));
    CHECK(perplexity.value() == Approx(4.0).epsilon(1e-6));
  }
  SECTION("large logits do not overflow, the last position predicts nothing") {
    Perplexity perplexity;
    REQUIRE(
        perplexity.add(std::vector{5000.0F, 5000.0F, -9000.0F, 9000.0F}, 1, 2, 2, std::vector<std::int64_t>{0, 1}, {}));
    CHECK(perplexity.tokens == 1);
    CHECK(perplexity.value() == Approx(2.0));
  }
  SECTION("masked targets are left out") {
    const std::vector logits = {0.0F, 0.0F, 50.0F, 0.0F, 0.0F, 0.0F};
    Perplexity perplexity;
    REQUIRE(perplexity.add(logits, 1, 3, 2, std::vector<std::int64_t>{0, 1, 1}, std::vector<std::int64_t>{1, 1, 0}));
    CHECK(perplexity.tokens == 1);
    CHECK(perplexity.value() == Approx(2.0));
  }
  SECTION("no tokens: NaN") { CHECK(std::isnan(Perplexity().value())); }
  SECTION("a token outside the vocabulary is refused") {
    Perplexity perplexity;
    const auto status = perplexity.add(std::vector<float>(4, 0.0F), 1, 2, 2, std::vector<std::int64_t>{0, 2}, {});
    REQUIRE_FALSE(status);
    CHECK(status.error().code == Code::bad_input);
  }
}

TEST_CASE("Closeness agrees with the formulas written out") {
  const auto a = testing::random_floats(1000, 1);
  auto b = testing::random_floats(1000, 2);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = a[i] + 0.01F * b[i];
  double signal = 0, other = 0, noise = 0, dot = 0, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    signal += x * x, other += y * y, dot += x * y, noise += (x - y) * (x - y);
    worst = std::max(worst, std::fabs(x - y));
  }
  Closeness whole;
  whole.add(a, b);
  CHECK(whole.sqnr_db() == Approx(10 * std::log10(signal / noise)));
  CHECK(whole.cosine() == Approx(dot / std::sqrt(signal * other)));
  CHECK(whole.max_abs_error == worst);
  CHECK_FALSE(whole.equal());

  Closeness first, second;
  first.add(std::span(a).first(300), std::span(b).first(300));
  second.add(std::span(a).subspan(300), std::span(b).subspan(300));
  first.merge(second);
  CHECK(first.elements == whole.elements);
  CHECK(first.sqnr_db() == Approx(whole.sqnr_db()));
}

TEST_CASE("Closeness at its limits") {
  const auto of = [](std::vector<float> a, std::vector<float> b) {
    Closeness closeness;
    closeness.add(a, b);
    return closeness;
  };
  const Closeness equal = of({1, kNan, kInf, 0}, {1, kNan, kInf, -0.0F});
  CHECK(equal.equal());
  CHECK(equal.sqnr_db() == std::numeric_limits<double>::infinity());
  CHECK(equal.cosine() == 1);
  CHECK(equal.nan_other == 1);
  CHECK(of({0, 0}, {0, 1}).sqnr_db() == -std::numeric_limits<double>::infinity());
  CHECK(of({0, 0}, {0, 1}).cosine() == 0);
  const Closeness broken = of({1, 2, kInf}, {1, kNan, -kInf});
  CHECK(broken.broken == 2);
  CHECK(std::isnan(broken.sqnr_db()));
  CHECK(std::isnan(broken.cosine()));
  CHECK(broken.max_abs_error == 0);
}

TEST_CASE("Tensors of other types: integers exactly, halves as floats, strings never") {
  const std::vector<std::int64_t> big = {(std::int64_t{1} << 53) + 1, 5}, near = {std::int64_t{1} << 53, 5};
  Closeness integers;
  REQUIRE(integers.add(Tensor::of_int64s({2}, big).view(), Tensor::of_int64s({2}, near).view()));
  CHECK(integers.unequal == 1);
  Closeness mixed;
  const std::vector<std::uint16_t> halves = {0x3c00, 0xc000};  // 1, -2
  REQUIRE(mixed.add(Tensor::of_floats({2}, std::vector{1.0F, -2.0F}).view(),
                    Tensor::of<std::uint16_t>(DType::f16, {2}, halves).view()));
  CHECK(mixed.equal());
  Closeness refused;
  const auto shapes = refused.add(Tensor(DType::f32, {2, 3}).view(), Tensor(DType::f32, {3, 2}).view());
  REQUIRE_FALSE(shapes);
  CHECK(shapes.error().text() == "shapes differ: [2, 3] and [3, 2]");
  const Dims one = {1};
  const auto text = refused.add(TensorView{DType::string, one, {}}, TensorView{DType::string, one, {}});
  REQUIRE_FALSE(text);
  CHECK(text.error().code == Code::unsupported);
}
