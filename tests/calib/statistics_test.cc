#include "calib/statistics.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <limits>
#include <thread>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinRel;

Tensor tensor(const std::vector<float>& values) {
  return Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values);
}

std::vector<std::vector<float>> samples(unsigned count) {
  std::vector<std::vector<float>> out;
  for (unsigned i = 0; i < count; ++i) {
    out.push_back(random_floats(1000 + 977 * i, i));
    for (float& value : out.back()) value *= static_cast<float>(1 << i);
  }
  return out;
}

ValueStatistics of(std::span<const std::vector<float>> some, bool with_histogram = true) {
  StatisticsAccumulator accumulator(with_histogram);
  for (const auto& sample : some) accumulator.merge(accumulator.reduce(tensor(sample).view()));
  return accumulator.take();
}

}  // namespace

TEST_CASE("statistics of samples") {
  const std::vector<std::vector<float>> all = {
      {1, -2, 0}, {}, {std::numeric_limits<float>::quiet_NaN()}, {5, std::numeric_limits<float>::infinity()}};
  const ValueStatistics statistics = of(all);
  CHECK(statistics.range == ValueRange{-2, 5, 4, 1, 1});
  CHECK(statistics.samples == 2);
  CHECK_THAT(statistics.mean_of_min(), WithinRel(1.5, 1e-12));
  CHECK(statistics.mean_of_max() == 3);
  CHECK(statistics.histogram.count() == 4);
  CHECK(of(all, false).histogram.empty());
  CHECK(of(all, false).mean_of_max() == 3);
  CHECK(ValueStatistics{}.mean_of_max() == 0);
}

TEST_CASE("threads and shards give the statistics of one run") {
  const auto all = samples(8);
  const ValueStatistics expected = of(all);
  for (const std::size_t cut : {1U, 3U, 7U}) {
    ValueStatistics merged = of(std::span(all).first(cut));
    merged.merge(of(std::span(all).subspan(cut)));
    CHECK(merged == expected);
  }
  StatisticsAccumulator accumulator(true);
  std::vector<std::any> partials(all.size());
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::size_t i = all.size() - t; i-- > 0;)
        if (i % 4 == 3 - t) partials[i] = accumulator.reduce(tensor(all[i]).view());
    });
  for (std::thread& thread : threads) thread.join();
  for (std::any& partial : partials) accumulator.merge(std::move(partial));
  CHECK(accumulator.bytes() > 2 * Histogram::kBins * sizeof(std::uint64_t));
  CHECK(accumulator.take() == expected);
}

TEST_CASE("half precision is counted by value") {
  const auto half = Tensor::of<std::uint16_t>(DType::f16, {3}, std::vector<std::uint16_t>{0x3c00, 0xc000, 0xfc00});
  StatisticsAccumulator accumulator(true);
  accumulator.merge(accumulator.reduce(half.view()));
  const ValueStatistics statistics = accumulator.take();
  CHECK(statistics.range == ValueRange{-2, 1, 2, 0, 1});
  CHECK(statistics.histogram.count() == 2);
}

}  // namespace onnxpress::testing
