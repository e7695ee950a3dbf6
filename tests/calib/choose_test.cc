#include "calib/choose.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <random>

#include "calib/cost.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinRel;

ValueStatistics statistics_of(const std::vector<std::vector<float>>& samples) {
  StatisticsAccumulator accumulator(true);
  for (const auto& sample : samples)
    accumulator.merge(accumulator.reduce(Tensor::of_floats({static_cast<std::int64_t>(sample.size())}, sample).view()));
  return accumulator.take();
}

std::vector<float> bell(std::size_t count, unsigned seed, float mean = 0, float width = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(mean, width);
  std::vector<float> out(count);
  for (float& value : out) value = normal(random);
  return out;
}

std::vector<float> relu(std::vector<float> values) {
  for (float& value : values) value = std::max(value, 0.0F);
  return values;
}

// Through the codes and back, value by value.
double brute_mse(const std::vector<float>& values, AffineParams params, CodeRange codes) {
  double sum = 0;
  for (const float x : values) {
    const double error = static_cast<double>(dequantize_value(quantize_value(x, params, codes), params)) - x;
    sum += error * error;
  }
  return sum / static_cast<double>(values.size());
}

double brute_mse(const std::vector<float>& values, const ValueRange& range, DType dtype, bool symmetric) {
  const CodeRange codes = code_range(dtype, symmetric);
  return brute_mse(values, choose_affine(range.min, range.max, codes, symmetric), codes);
}

ValueRange choose(const std::vector<float>& values, RangeMethod method, DType dtype = DType::u8,
                  bool symmetric = false) {
  return choose_range(statistics_of({values}), {.method = method}, dtype, symmetric);
}

// The least error of a fine grid of both ends over the values themselves.
double best_mse(const std::vector<float>& values, DType dtype, bool symmetric) {
  const auto [low, high] = std::ranges::minmax(values);
  double best = HUGE_VAL;
  const int steps = symmetric || low >= 0 ? 400 : 40;
  for (int i = 1; i <= steps; ++i)
    for (int j = 1; j <= (symmetric || low >= 0 ? 1 : steps); ++j) {
      const float top = high * static_cast<float>(i) / static_cast<float>(steps);
      ValueRange range{.min = std::min(low, 0.0F) * static_cast<float>(j) / static_cast<float>(steps), .max = top};
      if (symmetric)
        range.min = -(range.max = std::max(-low, high) * static_cast<float>(i) / static_cast<float>(steps));
      best = std::min(best, brute_mse(values, range, dtype, symmetric));
    }
  return best;
}

}  // namespace

TEST_CASE("the error told by the histogram is that of the values") {
  const std::vector<std::vector<float>> tensors = {bell(20000, 1), relu(bell(20000, 2, 0.5F, 3)),
                                                   bell(20000, 3, 5, 0.1F)};
  for (const auto& values : tensors) {
    const ValueStatistics statistics = statistics_of({values});
    for (const auto& [dtype, symmetric] : {std::pair(DType::u8, false), std::pair(DType::i8, true),
                                           std::pair(DType::u4, false), std::pair(DType::i16, true)}) {
      for (const float part : {1.0F, 0.7F, 0.2F, 0.01F}) {
        ValueRange range = statistics.range;
        range.min = std::min(range.min, 0.0F) * part;
        range.max *= part;
        INFO(part << " " << dtype_name(dtype));
        CHECK_THAT(quantization_mse(statistics, range, dtype, symmetric),
                   WithinRel(brute_mse(values, range, dtype, symmetric), 0.03));
      }
    }
  }
}

TEST_CASE("mse finds what a search over the values finds") {
  auto outlier = bell(5000, 4);
  outlier.push_back(40);
  for (const auto& values : {bell(5000, 5), relu(bell(5000, 6)), outlier, bell(5000, 7, 2, 1)}) {
    for (const auto& [dtype, symmetric] :
         {std::pair(DType::u8, false), std::pair(DType::i8, true), std::pair(DType::u4, false)}) {
      const ValueRange range = choose(values, RangeMethod::mse, dtype, symmetric);
      INFO(range.min << " " << range.max << " " << dtype_name(dtype));
      CHECK(brute_mse(values, range, dtype, symmetric) <= 1.03 * best_mse(values, dtype, symmetric));
    }
  }
}

TEST_CASE("fewer codes clip more") {
  const auto values = bell(20000, 8);
  const float wide = choose(values, RangeMethod::mse, DType::i16, true).max;
  const float middle = choose(values, RangeMethod::mse, DType::i8, true).max;
  const float narrow = choose(values, RangeMethod::mse, DType::i4, true).max;
  CHECK(narrow < middle);
  CHECK(middle <= wide);
  // The optimum for a bell curve, from the literature (Banner et al., arXiv 1810.05723, table 1): 2.55 sigma at 4 bits.
  CHECK_THAT(narrow, WithinRel(2.55F, 0.1F));
}

TEST_CASE("percentiles are those of the sorted values, to the width of a bin") {
  auto values = bell(100001, 9, 0.3F, 2);
  const ValueStatistics statistics = statistics_of({values});
  auto sorted = values;
  std::ranges::sort(sorted);
  const auto at = [&](double share) {
    return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
  };
  for (const double percentile : {99.0, 99.9, 90.0}) {
    const ValueRange range =
        choose_range(statistics, {.method = RangeMethod::percentile, .percentile = percentile}, DType::u8, false);
    CHECK_THAT(range.max, WithinRel(at(1 - (1 - percentile / 100) / 2), 0.003F));
    CHECK_THAT(range.min, WithinRel(at((1 - percentile / 100) / 2), 0.003F));
  }
  const ValueRange all =
      choose_range(statistics, {.method = RangeMethod::percentile, .percentile = 100}, DType::u8, false);
  CHECK(all.min == sorted.front());
  CHECK(all.max == sorted.back());
  // Symmetric: of the magnitudes.
  std::ranges::transform(values, values.begin(), [](float v) { return std::abs(v); });
  std::ranges::sort(values);
  const ValueRange symmetric =
      choose_range(statistics, {.method = RangeMethod::percentile, .percentile = 99}, DType::i8, true);
  CHECK_THAT(symmetric.max, WithinRel(values[static_cast<std::size_t>(0.99 * 100000)], 0.003F));
  CHECK(symmetric.min == -symmetric.max);
}

TEST_CASE("an outlier does not take the codes of the bulk") {
  auto values = relu(bell(100000, 10));
  values[77] = 1000;
  CHECK(choose(values, RangeMethod::minmax).max == 1000);
  const RangeSettings settings{.method = RangeMethod::percentile, .percentile = 99.99};
  CHECK(choose_range(statistics_of({values}), settings, DType::u8, false).max < 10);
  CHECK(choose(values, RangeMethod::entropy).max < 20);
  // One value of 1000 has more energy than all others: least squares must keep it.
  CHECK(choose(values, RangeMethod::mse).max > 100);
}

TEST_CASE("entropy keeps a range that has no tails, and both signs count") {
  std::mt19937 random(11);
  std::uniform_real_distribution<float> even(-2, 6);
  std::vector<float> values(50000);
  for (float& value : values) value = even(random);
  const ValueRange range = choose(values, RangeMethod::entropy);
  CHECK_THAT(range.max, WithinRel(6.0F, 0.02F));
  CHECK_THAT(range.min, WithinRel(-2.0F, 0.05F));
  values.assign(values.size(), 0.0F);
  values.resize(60000, 3.0F);
  CHECK(choose(values, RangeMethod::entropy).max == 3);
}

TEST_CASE("the divergence is never negative, and clipping costs") {
  const ValueStatistics statistics = statistics_of({bell(30000, 12)});
  const Density density(statistics);
  const CodeRange codes = code_range(DType::i8, true);
  double before = 0;
  for (const float bound : {3.0F, 2.0F, 1.0F, 0.5F, 0.25F}) {
    const double lost = divergence(density, choose_affine(-bound, bound, codes, true), codes);
    CHECK(lost >= 0);
    if (bound < 3) CHECK(lost > before);
    before = lost;
  }
  // No value lies near the outermost code, although some lie beyond it.
  auto gap = bell(1000, 13);
  gap.push_back(100);
  const ValueStatistics with_gap = statistics_of({gap});
  CHECK(std::isinf(divergence(Density(with_gap), choose_affine(-50, 50, codes, true), codes)));
}

TEST_CASE("costs stop early only where they are too high anyway") {
  const ValueStatistics statistics = statistics_of({bell(20000, 14, 0.4F)});
  const Density density(statistics);
  const CodeRange codes = code_range(DType::u8, false);
  for (const float low : {-4.0F, -2.0F, -0.3F, 0.0F}) {
    for (const float high : {4.0F, 2.0F, 1.0F, 0.1F}) {
      const AffineParams params = choose_affine(low, high, codes, false);
      for (const auto cost : {squared_error, divergence}) {
        const double full = cost(density, params, codes, HUGE_VAL);
        CHECK(cost(density, params, codes, std::nextafter(full, HUGE_VAL) * 1.000001) == full);
        CHECK(cost(density, params, codes, full / 2) >= full / 2);
      }
    }
  }
}

TEST_CASE("moving average is the mean of the samples' extremes") {
  const ValueStatistics statistics = statistics_of({{-1, 2}, {-3, 10}, {0, 0.5F, 3}});
  const ValueRange range = choose_range(statistics, {.method = RangeMethod::moving_average}, DType::u8, false);
  CHECK_THAT(range.min, WithinRel(-4.0F / 3, 1e-6F));
  CHECK(range.max == 5);
}

TEST_CASE("global takes one threshold for the signs that occur") {
  const RangeSettings settings{.method = RangeMethod::global, .threshold = 6};
  const ValueRange both = choose_range(statistics_of({{-1, 20}}), settings, DType::u8, false);
  CHECK(both.min == -6);
  CHECK(both.max == 6);
  const ValueRange one = choose_range(statistics_of({{1, 2}}), settings, DType::u8, false);
  CHECK(one.min == 0);
  CHECK(one.max == 6);
  CHECK(RangeSettings{.method = RangeMethod::global}.check().error().code == Code::usage);
  CHECK(settings.check());
}

TEST_CASE("auto does not spend its codes on a few odd samples, and keeps what every sample has") {
  std::vector<std::vector<float>> odd, common;
  for (unsigned i = 0; i < 40; ++i) {
    odd.push_back(bell(500, i));
    common.push_back(bell(500, i));
    common.back().front() = 60;
  }
  for (float& value : odd[5]) value *= 60;
  const RangeSettings automatic;
  CHECK(choose_range(statistics_of(odd), automatic, DType::u8, false).max < 60);
  CHECK(choose_range(statistics_of(odd), {.method = RangeMethod::mse}, DType::u8, false).max > 60);
  CHECK(choose_range(statistics_of(common), automatic, DType::u8, false).max > 50);
  // Nothing to gain from clipping: everything is kept, to the last bit.
  std::vector<float> even(1000);
  for (std::size_t i = 0; i < even.size(); ++i) even[i] = static_cast<float>(i) / 999;
  CHECK(choose(even, RangeMethod::automatic).max == 1);
}

TEST_CASE("every method keeps 0, the counts and what was seen") {
  for (const auto& values : {std::vector<float>{2, 3}, {-3, -2}, {0, 0}, {5}, {-1e30F, 1e30F, 1e-30F}, {1e-40F}}) {
    const ValueStatistics statistics = statistics_of({values});
    for (const auto method : {RangeMethod::automatic, RangeMethod::minmax, RangeMethod::moving_average,
                              RangeMethod::percentile, RangeMethod::entropy, RangeMethod::mse}) {
      for (const bool symmetric : {false, true}) {
        const ValueRange range =
            choose_range(statistics, {.method = method}, symmetric ? DType::i8 : DType::u8, symmetric);
        INFO(static_cast<int>(method) << " " << values.front());
        CHECK(range.finite == statistics.range.finite);
        CHECK(range.min <= 0);
        CHECK(range.max >= 0);
        CHECK(range.min >= std::min(statistics.range.min, 0.0F));
        CHECK(range.max <= std::max(statistics.range.max, 0.0F));
      }
    }
  }
  CHECK(choose_range({}, {}, DType::u8, false).empty());
}

TEST_CASE("without a histogram everything that was seen is kept") {
  StatisticsAccumulator accumulator(false);
  accumulator.merge(accumulator.reduce(Tensor::of_floats({2}, std::vector<float>{-1, 7}).view()));
  const ValueStatistics statistics = accumulator.take();
  CHECK(choose_range(statistics, {.method = RangeMethod::mse}, DType::u8, false).max == 7);
}

}  // namespace onnxpress::testing
