#include "num/histogram.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "num/histogram_simd.h"

namespace onnxpress {
namespace {

constexpr unsigned kShift = 23 - Histogram::kMantissaBits;
constexpr std::uint32_t kMagnitude = 0x7fffffffU;
// Fewer values are counted one by one: reading the tables back would cost more than it saves.
constexpr std::size_t kFew = std::size_t{1} << 12;
// A 32-bit counter cannot overflow in between.
constexpr std::size_t kMost = std::size_t{1} << 30;
// Room for the bins, one counter below and one above, on cache lines of their own.
constexpr std::uint32_t kStride = Histogram::kBins + 16;

constexpr std::uint32_t kInfinity = 255U << Histogram::kMantissaBits;

// Bins of the window whose upper octave is `top`. Octave 0 holds the denormal numbers, whose bits mean something else:
// they always count as zero.
std::uint32_t window_start(std::uint32_t top) {
  const std::uint32_t octaves = Histogram::kOctaves;
  return (top > octaves ? top - octaves + 1 : 1) << Histogram::kMantissaBits;
}
std::uint32_t window_end(std::uint32_t top) { return (top + 1) << Histogram::kMantissaBits; }

// The octave of a magnitude, at least 1.
std::uint32_t octave_of(float magnitude) {
  return std::max<std::uint32_t>(std::bit_cast<std::uint32_t>(magnitude) >> 23, 1);
}

// From the large magnitudes, where the counts are.
void drop_if_empty(std::vector<std::uint64_t>& side) {
  if (std::all_of(side.rbegin(), side.rend(), [](std::uint64_t count) { return count == 0; })) side = {};
}

std::uint32_t* count_tables() {
  thread_local const auto tables = std::make_unique<std::uint32_t[]>(kCountTables * 2 * kStride);
  return tables.get();
}

}  // namespace

std::uint32_t Histogram::first_bin() const { return window_start(top_); }

float Histogram::edge(std::size_t i) const {
  return std::bit_cast<float>((first_bin() + static_cast<std::uint32_t>(i)) << kShift);
}

std::size_t Histogram::bin(float magnitude) const {
  return (std::bit_cast<std::uint32_t>(magnitude) >> kShift) - first_bin();
}

std::uint64_t Histogram::count() const {
  std::uint64_t total = zeros_;
  for (const auto& side : sides_) total = std::accumulate(side.begin(), side.end(), total);
  return total;
}

std::uint64_t Histogram::bytes() const {
  return sizeof(*this) + (sides_[0].capacity() + sides_[1].capacity()) * sizeof(std::uint64_t);
}

Histogram Histogram::from_parts(std::uint32_t top, std::uint64_t zeros,
                                std::array<std::vector<std::uint64_t>, 2> sides) {
  Histogram histogram;
  histogram.top_ = top;
  histogram.zeros_ = zeros;
  for (const auto& side : sides) assert(side.empty() || side.size() == kBins);
  histogram.sides_ = std::move(sides);
  return histogram;
}

std::vector<std::uint64_t>& Histogram::need(Side which) {
  if (sides_[which].empty()) sides_[which].resize(kBins);
  return sides_[which];
}

// Moves the window up: what falls below it joins the zeros.
void Histogram::raise_to(std::uint32_t top) {
  if (top <= top_) return;
  const std::size_t dropped = top_ == 0 ? 0 : std::min<std::size_t>(window_start(top) - first_bin(), kBins);
  top_ = top;
  if (dropped == 0) return;
  for (auto& side : sides_) {
    if (side.empty()) continue;
    const auto cut = side.begin() + static_cast<std::ptrdiff_t>(dropped);
    zeros_ = std::accumulate(side.begin(), cut, zeros_);
    std::fill(std::move(cut, side.end(), side.begin()), side.end(), 0);
    drop_if_empty(side);
  }
}

void Histogram::add_few(std::span<const float> x) {
  const std::uint32_t first = first_bin();
  for (const float value : x) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t bin = (bits & kMagnitude) >> kShift;
    if (bin < first)
      ++zeros_;
    else if (bin < kInfinity)
      ++need(bits >> 31 != 0 ? negative : positive)[bin - first];
  }
}

// Moves what count_bins() counted with its window at `top` here.
void Histogram::take_tables(std::uint32_t* tables, std::uint32_t top, const MinMax& range) {
  const std::size_t table = 2 * std::size_t{kStride};
  const std::size_t used = window_end(top) - window_start(top);
  const std::size_t dropped = first_bin() - window_start(top);  // bins that the window here has left behind
  std::vector<std::uint64_t> low(std::min(dropped, used));
  for (const Side which : {positive, negative}) {
    std::uint32_t* const block = tables + (which == negative ? kStride : 0);
    for (std::size_t t = 0; t < kCountTables; ++t) {
      zeros_ += std::exchange(block[t * table], 0);
      block[t * table + used + 1] = 0;  // NaN and infinities
    }
    const bool occupied = which == positive ? range.max > 0 : range.min < 0;
    if (!occupied) continue;
    drain_counts(block + 1, table, low);
    if (dropped < used) drain_counts(block + 1 + dropped, table, std::span(need(which)).first(used - dropped));
    drop_if_empty(sides_[which]);
  }
  zeros_ = std::accumulate(low.begin(), low.end(), zeros_);
}

void Histogram::add(std::span<const float> x, const MinMax& range, std::mutex* shared) {
  if (range.finite == 0) return;
  const auto guard = [&] { return shared == nullptr ? std::unique_lock<std::mutex>() : std::unique_lock(*shared); };
  if (range.absmax() == 0) {
    const auto held = guard();
    zeros_ += range.finite;
    return;
  }
  const std::uint32_t top = octave_of(range.absmax());
  for (; !x.empty(); x = x.subspan(std::min(x.size(), kMost))) {
    const auto part = x.first(std::min(x.size(), kMost));
    if (part.size() < kFew) {
      const auto held = guard();
      raise_to(top);
      add_few(part);
      continue;
    }
    std::uint32_t* const tables = count_tables();
    count_bins(part.data(), part.size(),
               {.counts = tables, .first = window_start(top), .end = window_end(top), .stride = kStride});
    const auto held = guard();
    raise_to(top);
    take_tables(tables, top, range);
  }
}

void Histogram::merge(const Histogram& other) {
  zeros_ += other.zeros_;
  if (other.top_ == 0) return;
  raise_to(other.top_);
  const std::size_t dropped = first_bin() - other.first_bin();
  for (const Side which : {positive, negative}) {
    const auto& from = other.sides_[which];
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (from[i] == 0) continue;
      if (i < dropped)
        zeros_ += from[i];
      else
        need(which)[i - dropped] += from[i];
    }
  }
}

}  // namespace onnxpress
