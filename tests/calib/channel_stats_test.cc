#include "calib/channel_stats.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

void feed(Accumulator& accumulator, const Dims& dims, std::span<const float> values) {
  const Tensor tensor = Tensor::of_floats(dims, values);
  accumulator.merge(accumulator.reduce(tensor.view()));
}

// The statistics of channel c of x [outer, channels, inner], term by term.
struct Slow {
  double mean = 0, mean_square = 0;
  float min = std::numeric_limits<float>::infinity(), max = -min;
  std::uint64_t count = 0, passing = 0, above = 0;
};
Slow slow(std::span<const float> x, std::size_t channels, std::size_t inner, std::size_t c, float upper) {
  Slow found;
  for (std::size_t k = 0; k < x.size(); ++k) {
    if (k / inner % channels != c) continue;
    const double value = x[k];
    found.mean += value;
    found.mean_square += value * value;
    found.min = std::min(found.min, x[k]);
    found.max = std::max(found.max, x[k]);
    ++found.count;
    found.passing += x[k] > 0 && x[k] < upper ? 1U : 0U;
    found.above += x[k] >= upper ? 1U : 0U;
  }
  found.mean /= static_cast<double>(found.count);
  found.mean_square /= static_cast<double>(found.count);
  return found;
}

TEST_CASE("channel statistics against a slow oracle, on every axis") {
  const Dims dims = {3, 4, 5};
  const std::vector<float> x = random_floats(60, 1);
  for (const std::int64_t axis : {0, 1, 2, -1, -2}) {
    INFO("axis " << axis);
    const std::size_t at = static_cast<std::size_t>(axis < 0 ? axis + 3 : axis);
    const auto channels = static_cast<std::size_t>(dims[at]);
    const std::size_t inner = at == 0 ? 20 : at == 1 ? 5 : 1;
    ChannelStatsAccumulator accumulator(axis, 0.5F);
    feed(accumulator, dims, x);
    CHECK(accumulator.trouble().empty());
    REQUIRE(accumulator.stats().channels.size() == channels);
    for (std::size_t c = 0; c < channels; ++c) {
      const ChannelStats::Channel& got = accumulator.stats().channels[c];
      const Slow expected = slow(x, channels, inner, c, 0.5F);
      CHECK(got.count == expected.count);
      CHECK(got.passing == expected.passing);
      CHECK(got.above == expected.above);
      CHECK(got.min == expected.min);
      CHECK(got.max == expected.max);
      CHECK_THAT(got.mean(), Catch::Matchers::WithinAbs(expected.mean, 1e-12));
      CHECK_THAT(got.mean_square(), Catch::Matchers::WithinAbs(expected.mean_square, 1e-12));
      const double variance = expected.mean_square - expected.mean * expected.mean;
      CHECK_THAT(got.variance(), Catch::Matchers::WithinAbs(variance, 1e-12));
    }
  }
}

TEST_CASE("channel statistics do not depend on batches or their order") {
  const std::vector<float> x = random_floats(8 * 3 * 4, 2);
  ChannelStatsAccumulator whole(1), single(1), backwards(1);
  feed(whole, {8, 3, 4}, x);
  for (std::size_t i = 0; i < 8; ++i) {
    feed(single, {1, 3, 4}, std::span(x).subspan(i * 12, 12));
    feed(backwards, {1, 3, 4}, std::span(x).subspan((7 - i) * 12, 12));
  }
  for (std::size_t c = 0; c < 3; ++c) {
    CHECK(whole.stats().channels[c].sum == single.stats().channels[c].sum);
    CHECK(whole.stats().channels[c].squares == backwards.stats().channels[c].squares);
    CHECK(whole.stats().channels[c].mean() == backwards.stats().channels[c].mean());
  }
}

TEST_CASE("channel statistics leave out what is not finite or absurd and count it") {
  ChannelStatsAccumulator accumulator(0);
  feed(accumulator, {2, 3}, std::vector<float>{1, NAN, 3, INFINITY, -1e30F, -2});
  CHECK(accumulator.stats().left_out == 3);
  CHECK(accumulator.stats().channels[0].mean() == 2);
  CHECK(accumulator.stats().channels[1].mean() == -2);
  CHECK(accumulator.stats().channels[1].absmax() == 2);
}

TEST_CASE("channel statistics of large and of tiny values keep their precision") {
  ChannelStatsAccumulator accumulator(0);
  feed(accumulator, {2, 2}, std::vector<float>{1e6F, -3e6F, 1e-4F, 3e-4F});
  CHECK(accumulator.stats().channels[0].mean() == -1e6);
  CHECK(accumulator.stats().channels[0].variance() == 4e12);
  CHECK_THAT(accumulator.stats().channels[1].variance(), Catch::Matchers::WithinRel(1e-8, 1e-4));
}

TEST_CASE("channel statistics say why there are none") {
  ChannelStatsAccumulator accumulator(2);
  feed(accumulator, {2, 2}, std::vector<float>{1, 2, 3, 4});
  CHECK(accumulator.trouble().find("channel axis") != std::string::npos);
  ChannelStatsAccumulator changing(1);
  feed(changing, {1, 2}, std::vector<float>{1, 2});
  feed(changing, {1, 3}, std::vector<float>{1, 2, 3});
  CHECK(changing.trouble().find("2 channels") != std::string::npos);
}

TEST_CASE("row samples are evenly spaced and the same for every batch size") {
  std::vector<float> x(6 * 4 * 2);
  for (std::size_t k = 0; k < x.size(); ++k) x[k] = static_cast<float>(k);
  RowSampleAccumulator whole(2, 100), single(2, 100);
  feed(whole, {6, 4, 2}, x);
  for (std::size_t i = 0; i < 6; ++i) feed(single, {1, 4, 2}, std::span(x).subspan(i * 8, 8));
  CHECK(whole.length() == 2);
  CHECK(whole.rows().size() == 6 * 2 * 2);
  CHECK(whole.rows() == single.rows());
  std::vector<float> first = whole.rows();
  first.resize(4);
  CHECK(first == std::vector<float>{0, 1, 4, 5});
}

TEST_CASE("row samples leave out rows that are not finite") {
  RowSampleAccumulator sample(4, 100);
  feed(sample, {1, 3, 2}, std::vector<float>{1, 2, NAN, 3, 4, INFINITY});
  CHECK(sample.rows() == std::vector<float>{1, 2});
}

TEST_CASE("row samples thin out by dropping every other sample") {
  RowSampleAccumulator sample(1, 4);
  for (std::size_t i = 0; i < 16; ++i) feed(sample, {1, 1}, std::vector<float>{static_cast<float>(i)});
  CHECK(sample.rows() == std::vector<float>{0, 4, 8, 12});
}

}  // namespace
}  // namespace onnxpress::testing
