// Counts of floats in bins whose width is a power of two: kOctaveBins equal bins in each [2^k, 2^(k+1)), for the
// kOctaves octaves below the largest magnitude seen, either sign. The bin of a value is the top of its bit pattern,
// whatever else is counted, so that
//   - a larger value only moves the window up: whole bins drop below it, none is ever split;
//   - the counts are a pure function of the multiset of values: order, grouping and threads do not matter;
//   - a bulk of values 1000 times below an outlier still lies in 14 octaves of 512 bins.
// (The log-linear bins of Gil Tene's HdrHistogram, with binary octaves and a moving window.)
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "num/quantize.h"

namespace onnxpress {

class Histogram {
 public:
  static constexpr unsigned kMantissaBits = 9;  // of the value, below its leading one
  static constexpr std::size_t kOctaveBins = std::size_t{1} << kMantissaBits;
  static constexpr std::size_t kOctaves = 24;
  static constexpr std::size_t kBins = kOctaves * kOctaveBins;
  enum Side : std::size_t { positive = 0, negative = 1 };

  // NaN and infinities are left out. `range` is min_max(x), which callers have anyway. Threads may add side by side
  // when they pass the same `shared`: it is held only while counts are added up.
  void add(std::span<const float> x, const MinMax& range, std::mutex* shared = nullptr);
  void merge(const Histogram& other);

  bool empty() const { return top_ == 0 && zeros_ == 0; }
  std::uint64_t zeros() const { return zeros_; }  // values that are 0, or lie below the window
  std::uint64_t count() const;                    // all values, zeros included
  // Counts by rising magnitude: kBins of them, none when the side has no value.
  const std::vector<std::uint64_t>& side(Side which) const { return sides_[which]; }
  // Bin i holds the magnitudes in [edge(i), edge(i + 1)). edge(kBins) may be infinite.
  float edge(std::size_t i) const;
  // The bin of a magnitude in [edge(0), edge(kBins)).
  std::size_t bin(float magnitude) const;
  std::uint64_t bytes() const;  // of memory

  // For files: the biased exponent of the window's upper octave (0 = only zeros), and back. from_parts expects sides
  // that are empty or hold kBins.
  std::uint32_t top() const { return top_; }
  static Histogram from_parts(std::uint32_t top, std::uint64_t zeros, std::array<std::vector<std::uint64_t>, 2> sides);
  bool operator==(const Histogram&) const = default;

 private:
  std::uint32_t first_bin() const;  // bit pattern >> kShift of edge(0)
  void raise_to(std::uint32_t top);
  std::vector<std::uint64_t>& need(Side which);
  void add_few(std::span<const float> x);
  void take_tables(std::uint32_t* tables, std::uint32_t top, const MinMax& range);

  std::uint32_t top_ = 0;
  std::uint64_t zeros_ = 0;
  std::array<std::vector<std::uint64_t>, 2> sides_;
};

}  // namespace onnxpress
