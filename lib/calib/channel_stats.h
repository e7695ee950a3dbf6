// Per-channel statistics of a stream of activations.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "pass/pass.h"

namespace onnxpress {

// Of the finite elements of each channel. Sums are kept in fixed point (units of 2^-44): what one channel of one sample
// adds up to is rounded once, and from there on addition is exact, so that neither the batch size nor the order of
// batches nor the thread count changes a bit. NaN, infinities and magnitudes of 2^24 and more are left out.
struct ChannelStats {
  __extension__ using Fixed = __int128;
  struct Channel {
    std::uint64_t count = 0;
    std::uint64_t passing = 0;  // elements in (0, upper): where a Clip(0, upper) has a slope
    std::uint64_t above = 0;    // elements of at least `upper`
    float min = 0, max = 0;     // 0 without elements
    Fixed sum = 0, squares = 0;

    double mean() const;
    double mean_square() const;
    double variance() const;  // of the population, never negative
    double absmax() const { return static_cast<double>(max > -min ? max : -min); }
    double share(std::uint64_t part) const;
    void merge(const Channel& other);
  };
  std::vector<Channel> channels;
  std::uint64_t left_out = 0;

  void merge(const ChannelStats& other);
};

class ChannelStatsAccumulator : public Accumulator {
 public:
  // Channels lie along `axis` (negative counts from the end).
  explicit ChannelStatsAccumulator(std::int64_t axis, float upper = std::numeric_limits<float>::infinity())
      : axis_(axis), upper_(upper) {}
  std::any reduce(const TensorView& value) const override;
  void merge(std::any partial) override;

  const ChannelStats& stats() const { return stats_; }
  // Why there are no usable statistics: not a float tensor, no such axis, another number of channels later on; or "".
  const std::string& trouble() const { return trouble_; }

 private:
  std::int64_t axis_;
  float upper_;
  ChannelStats stats_;
  std::string trouble_;
};

// Rows of a stream of matrices (the last axis; leading axes are rows): evenly spaced, `per_sample` of each index along
// axis 0; rows with NaN or infinity are left out. When more than `most` have come, every other sample is dropped, and
// so on: which rows remain depends on the samples alone.
class RowSampleAccumulator : public Accumulator {
 public:
  RowSampleAccumulator(std::size_t per_sample, std::size_t most) : per_sample_(per_sample), most_(most) {}
  std::any reduce(const TensorView& value) const override;
  void merge(std::any partial) override;

  std::size_t length() const { return length_; }
  std::vector<float> rows() const;  // [n, length]

 private:
  struct Sample {
    std::uint64_t index = 0;
    std::size_t length = 0;
    std::vector<float> rows = {};
  };
  std::size_t per_sample_, most_;
  std::size_t length_ = 0;
  std::uint64_t seen_ = 0, stride_ = 1;
  std::size_t kept_ = 0;  // floats
  std::vector<Sample> samples_;
};

}  // namespace onnxpress
