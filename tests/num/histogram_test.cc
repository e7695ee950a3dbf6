#include "num/histogram.h"

#include <algorithm>
#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <random>
#include <thread>

namespace onnxpress::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void add(Histogram& histogram, std::span<const float> values) { histogram.add(values, min_max(values)); }

Histogram of(std::span<const float> values) {
  Histogram histogram;
  add(histogram, values);
  return histogram;
}

// Bell-shaped values over many octaves, a third of them zero, with an outlier here and there.
std::vector<float> samples(std::size_t count, unsigned seed, double scale = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> bell(0, scale);
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    out[i] = i % 3 == 0 ? 0.0F : static_cast<float>(bell(random));
    if (i % 4001 == 4000) out[i] *= 1000;
  }
  return out;
}

// The definition: bins of (1 + m / 512) 2^e, 24 octaves down from the largest magnitude, the rest zeros.
struct Naive {
  std::map<std::pair<bool, double>, std::uint64_t> bins;  // by sign and lower edge
  std::uint64_t zeros = 0;
};
Naive naive(std::span<const float> values) {
  double most = 0;
  for (const float v : values)
    if (std::isfinite(v)) most = std::max<double>(most, std::abs(v));
  Naive out;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    const double magnitude = std::abs(v);
    const double least = std::exp2(std::floor(std::log2(most)) - 23);
    if (magnitude < std::max(least, std::exp2(-126.0))) {
      ++out.zeros;
      continue;
    }
    const double octave = std::exp2(std::ilogb(magnitude));
    ++out.bins[{v < 0, octave * (1 + std::floor((magnitude / octave - 1) * 512) / 512)}];
  }
  return out;
}

void require_like(const Histogram& histogram, const Naive& expected) {
  REQUIRE(histogram.zeros() == expected.zeros);
  std::map<std::pair<bool, double>, std::uint64_t> bins;
  for (const auto side : {Histogram::positive, Histogram::negative}) {
    const auto& counts = histogram.side(side);
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      bins[{side == Histogram::negative, histogram.edge(i)}] = counts[i];
      CHECK(histogram.bin(histogram.edge(i)) == i);
    }
  }
  CHECK(bins == expected.bins);
}

}  // namespace

TEST_CASE("a histogram counts what a naive one counts") {
  for (const std::size_t count : {0U, 1U, 63U, 64U, 65U, 4000U, 4096U, 4097U, 50000U}) {
    INFO(count);
    auto values = samples(count, static_cast<unsigned>(count));
    require_like(of(values), naive(values));
    if (count < 10) continue;
    values[3] = kNan;
    values[4] = -kNan;
    values[5] = kInf;
    values[6] = -kInf;
    values[7] = -0.0F;
    values[8] = std::numeric_limits<float>::denorm_min();
    require_like(of(values), naive(values));
    CHECK(of(values).count() == count - 4);
    values[9] = std::numeric_limits<float>::max();
    require_like(of(values), naive(values));
  }
}

TEST_CASE("zeros, denormal numbers and lone values") {
  const std::vector<float> zeros(5000, 0.0F);
  CHECK(of(zeros).zeros() == 5000);
  CHECK(of(zeros).top() == 0);
  CHECK_FALSE(of(zeros).empty());
  CHECK(Histogram().empty());
  CHECK(of(std::vector<float>{kNan, kInf}).empty());
  CHECK(of(std::vector<float>{1e-40F}).zeros() == 1);
  const std::vector<float> same(5000, -6.0F);
  CHECK(of(same).side(Histogram::positive).empty());
  CHECK(of(same).side(Histogram::negative)[of(same).bin(6)] == 5000);
  require_like(of(std::vector<float>{1.2e-38F, 3e-38F, -2e-38F}), naive(std::vector<float>{1.2e-38F, 3e-38F, -2e-38F}));
}

TEST_CASE("order, grouping and growth of the range do not matter") {
  auto values = samples(60000, 5);
  for (std::size_t i = 0; i < 20000; ++i) values[i] *= 1e-6F;
  for (std::size_t i = 40000; i < 60000; ++i) values[i] *= 3e4F;
  const Histogram expected = of(values);
  require_like(expected, naive(values));
  for (const std::size_t part : {777U, 6000U, 25000U}) {
    Histogram rising, falling, merged;
    for (std::size_t at = 0; at < values.size(); at += part) {
      const auto piece = std::span(values).subspan(at, std::min(part, values.size() - at));
      add(rising, piece);
      merged.merge(of(piece));
    }
    std::vector<float> turned(values.rbegin(), values.rend());
    for (std::size_t at = 0; at < turned.size(); at += part)
      add(falling, std::span(turned).subspan(at, std::min(part, turned.size() - at)));
    CHECK(rising == expected);
    CHECK(falling == expected);
    CHECK(merged == expected);
  }
}

TEST_CASE("a side whose values all fall below the window is gone") {
  Histogram histogram = of(std::vector<float>{-1e-3F, 1e-3F});
  CHECK_FALSE(histogram.side(Histogram::negative).empty());
  add(histogram, std::vector<float>{1e30F});
  CHECK(histogram.zeros() == 2);
  CHECK(histogram.side(Histogram::negative).empty());
  CHECK(histogram == of(std::vector<float>{1e30F, -1e-3F, 1e-3F}));
  std::vector<float> many(6000, 1e-3F);
  add(histogram, many);
  many.front() = -1e-4F;
  add(histogram, many);
  CHECK(histogram.zeros() == 12002);
  CHECK(histogram.side(Histogram::negative).empty());
}

TEST_CASE("threads may add side by side") {
  std::vector<std::vector<float>> parts;
  Histogram expected, shared;
  for (unsigned i = 0; i < 16; ++i) {
    parts.push_back(samples(3000 + 1000 * i, i, std::exp2(i)));
    add(expected, parts.back());
  }
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < parts.size(); i += 4) shared.add(parts[i], min_max(parts[i]), &mutex);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(shared == expected);
}

TEST_CASE("a histogram goes into parts and back") {
  const Histogram histogram = of(samples(9000, 2));
  CHECK(Histogram::from_parts(histogram.top(), histogram.zeros(),
                              {histogram.side(Histogram::positive), histogram.side(Histogram::negative)}) == histogram);
  CHECK(histogram.bytes() >= 2 * Histogram::kBins * sizeof(std::uint64_t));
}

}  // namespace onnxpress::testing
