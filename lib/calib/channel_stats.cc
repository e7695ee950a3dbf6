#include "calib/channel_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "num/quantize.h"

namespace onnxpress {
namespace {

constexpr int kFraction = 44;
constexpr float kLargest = 0x1p24F;

using Fixed = ChannelStats::Fixed;

// The high part and the rest by themselves, because no conversion from double to 128 bits is exact and fast.
Fixed to_fixed(double value) {
  const double high = std::floor(std::ldexp(value, kFraction - 60));
  const double low = std::nearbyint(std::ldexp(value, kFraction) - std::ldexp(high, 60));
  return static_cast<Fixed>(static_cast<std::int64_t>(high)) * (Fixed{1} << 60) + static_cast<std::int64_t>(low);
}

double from_fixed(Fixed value) {
  const Fixed unit = Fixed{1} << 60;
  const auto high = static_cast<std::int64_t>(value / unit), low = static_cast<std::int64_t>(value % unit);
  return std::ldexp(static_cast<double>(high), 60 - kFraction) + std::ldexp(static_cast<double>(low), -kFraction);
}

// Adds one run of elements of a channel.
std::uint64_t add_run(std::span<const float> run, float upper, ChannelStats::Channel& out) {
  ChannelStats::Channel mine;
  double sum = 0, squares = 0;
  for (const float value : run) {
    if (!(std::abs(value) < kLargest)) continue;
    mine.min = mine.count == 0 ? value : std::min(mine.min, value);
    mine.max = mine.count == 0 ? value : std::max(mine.max, value);
    ++mine.count;
    mine.passing += value > 0 && value < upper ? 1U : 0U;
    mine.above += value >= upper ? 1U : 0U;
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  mine.sum = to_fixed(sum);
  mine.squares = to_fixed(squares);
  out.merge(mine);
  return run.size() - mine.count;
}

}  // namespace

double ChannelStats::Channel::mean() const { return count == 0 ? 0 : from_fixed(sum) / static_cast<double>(count); }
double ChannelStats::Channel::mean_square() const {
  return count == 0 ? 0 : from_fixed(squares) / static_cast<double>(count);
}
double ChannelStats::Channel::variance() const { return std::max(0.0, mean_square() - mean() * mean()); }
double ChannelStats::Channel::share(std::uint64_t part) const {
  return count == 0 ? 0 : static_cast<double>(part) / static_cast<double>(count);
}

void ChannelStats::Channel::merge(const Channel& other) {
  if (other.count > 0) {
    min = count == 0 ? other.min : std::min(min, other.min);
    max = count == 0 ? other.max : std::max(max, other.max);
  }
  count += other.count;
  passing += other.passing;
  above += other.above;
  sum += other.sum;
  squares += other.squares;
}

void ChannelStats::merge(const ChannelStats& other) {
  for (std::size_t c = 0; c < channels.size(); ++c) channels[c].merge(other.channels[c]);
  left_out += other.left_out;
}

std::any ChannelStatsAccumulator::reduce(const TensorView& value) const {
  ChannelStats stats;
  const auto layout = axis_layout(value.dims, axis_);
  if (!is_float(value.dtype) || !layout) return stats;
  std::vector<float> converted;
  std::span<const float> x;
  if (value.dtype == DType::f32) {
    x = value.as<float>();
  } else if (auto floats = to_floats(value)) {
    converted = std::move(*floats);
    x = converted;
  }
  if (x.empty()) return stats;
  stats.channels.resize(layout->channels);
  for (std::size_t o = 0; o < layout->outer; ++o)
    for (std::size_t c = 0; c < layout->channels; ++c)
      stats.left_out +=
          add_run(x.subspan((o * layout->channels + c) * layout->inner, layout->inner), upper_, stats.channels[c]);
  return stats;
}

void ChannelStatsAccumulator::merge(std::any partial) {
  const auto& other = std::any_cast<const ChannelStats&>(partial);
  if (other.channels.empty()) {
    trouble_ = "its values are no floats with such a channel axis";
  } else if (stats_.channels.empty()) {
    stats_ = other;
  } else if (stats_.channels.size() != other.channels.size()) {
    trouble_ = fmt::format("it has {} channels in one sample and {} in another", stats_.channels.size(),
                           other.channels.size());
  } else {
    stats_.merge(other);
  }
}

std::any RowSampleAccumulator::reduce(const TensorView& value) const {
  std::vector<Sample> samples;
  if (value.dims.size() < 2 || value.dims.back() < 1 || value.dims.front() < 1) return samples;
  const auto floats = to_floats(value);
  if (!floats) return samples;
  const auto length = static_cast<std::size_t>(value.dims.back());
  const auto outer = static_cast<std::size_t>(value.dims.front());
  const std::size_t rows = floats->size() / length / outer, taken = std::min(rows, per_sample_);
  for (std::size_t o = 0; o < outer; ++o) {
    Sample sample{.length = length};
    for (std::size_t i = 0; i < taken; ++i) {
      const auto begin = floats->begin() + static_cast<std::ptrdiff_t>((o * rows + i * rows / taken) * length);
      sample.rows.insert(sample.rows.end(), begin, begin + static_cast<std::ptrdiff_t>(length));
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

void RowSampleAccumulator::merge(std::any partial) {
  for (Sample& sample : std::any_cast<std::vector<Sample>&>(partial)) {
    sample.index = seen_++;
    if (sample.rows.empty() || sample.index % stride_ != 0) continue;
    if (length_ == 0) length_ = sample.length;
    if (length_ != sample.length) continue;
    kept_ += sample.rows.size();
    samples_.push_back(std::move(sample));
    while (kept_ > most_ * length_ && samples_.size() > 1) {
      stride_ *= 2;
      std::erase_if(samples_, [&](const Sample& old) { return old.index % stride_ != 0; });
      kept_ = 0;
      for (const Sample& old : samples_) kept_ += old.rows.size();
    }
  }
}

std::vector<float> RowSampleAccumulator::rows() const {
  std::vector<float> all;
  for (const Sample& sample : samples_) all.insert(all.end(), sample.rows.begin(), sample.rows.end());
  return all;
}

}  // namespace onnxpress
