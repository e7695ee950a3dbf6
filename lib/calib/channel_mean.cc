#include "calib/channel_mean.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "num/quantize.h"

namespace onnxpress {
namespace {

struct SampleSums {
  std::vector<std::vector<double>> sums;  // per sample, per channel
  std::uint64_t per_sample = 0;           // elements of each channel in one sample
  bool usable = false;
};

// A channel keeps its mean: flattening and reshaping keep the elements of a channel together in order.
constexpr std::array<std::string_view, 6> kMeanKept = {"GlobalAveragePool", "Flatten",  "Reshape",
                                                       "Squeeze",           "Identity", "Dropout"};

double density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }
double cumulative(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

std::optional<std::vector<double>> constant_floats(const Graph& graph, std::string_view value) {
  const auto tensor = graph.constant(value);
  if (!tensor || !*tensor) return std::nullopt;
  const auto values = to_floats((*tensor)->view());
  if (!values || !std::ranges::all_of(*values, [](float v) { return std::isfinite(v); })) return std::nullopt;
  return std::vector<double>(values->begin(), values->end());
}

}  // namespace

std::optional<Bounds> activation_bounds(const Node& node) {
  Bounds bounds;
  if (node.is("Relu")) return Bounds{0, bounds.high};
  if (!node.is("Clip")) return std::nullopt;
  if (node.graph().model().opset() < 11)
    return Bounds{node.attr_float("min", std::numeric_limits<float>::lowest()),
                  node.attr_float("max", std::numeric_limits<float>::max())};
  for (const std::size_t slot : {1UZ, 2UZ}) {
    if (node.input(slot).empty()) continue;
    const auto value = constant_floats(node.graph(), node.input(slot));
    if (!value || value->size() != 1) return std::nullopt;
    (slot == 1 ? bounds.low : bounds.high) = value->front();
  }
  return bounds;
}

std::any MeanDifference::reduce(const TensorView& a, const TensorView& b) const {
  SampleSums out;
  const auto layout = axis_layout(a.dims, axis_);
  const auto first = to_floats(a), second = to_floats(b);
  if (!layout || !first || !second || layout->channels != sums_.size() || !std::ranges::equal(a.dims, b.dims))
    return out;
  const std::size_t samples = a.dims.size() > 1 ? static_cast<std::size_t>(a.dims[0]) : 1;
  if (samples == 0 || layout->outer % samples != 0) return out;
  const std::size_t outer = layout->outer / samples;
  out.sums.assign(samples, std::vector<double>(sums_.size(), 0));
  out.per_sample = outer * layout->inner;
  std::size_t at = 0;
  for (std::size_t n = 0; n < samples; ++n)
    for (std::size_t o = 0; o < outer; ++o)
      for (std::size_t c = 0; c < sums_.size(); ++c)
        for (std::size_t i = 0; i < layout->inner; ++i, ++at)
          out.sums[n][c] += static_cast<double>((*first)[at]) - static_cast<double>((*second)[at]);
  out.usable = true;
  return out;
}

void MeanDifference::merge(std::any partial) {
  const SampleSums part = std::any_cast<SampleSums>(std::move(partial));
  usable_ = usable_ && part.usable;
  if (!usable_) return;
  for (const std::vector<double>& sample : part.sums) {
    for (std::size_t c = 0; c < sums_.size(); ++c) sums_[c] += sample[c];
    count_ += part.per_sample;
  }
}

std::optional<std::vector<double>> MeanDifference::mean() const {
  if (!usable_ || count_ == 0) return std::nullopt;
  std::vector<double> mean;
  for (const double sum : sums_) mean.push_back(sum / static_cast<double>(count_));
  if (!std::ranges::all_of(mean, [](double m) { return std::isfinite(m); })) return std::nullopt;
  return mean;
}

double clipped_normal_mean(double mean, double deviation, double low, double high) {
  if (deviation <= 0) return std::clamp(mean, low, high);
  const double a = (low - mean) / deviation, b = (high - mean) / deviation;
  double sum = mean * (cumulative(b) - cumulative(a)) + deviation * (density(a) - density(b));
  if (std::isfinite(low)) sum += low * cumulative(a);
  if (std::isfinite(high)) sum += high * cumulative(-b);
  return sum;
}

std::optional<std::vector<double>> mean_from_batchnorm(const Graph& graph, std::string_view value) {
  Node node = graph.producer(value);
  while (node && std::ranges::any_of(kMeanKept, [&](std::string_view op) { return node.is(op); }))
    node = graph.producer(node.input(0));
  if (!node) return std::nullopt;
  Bounds bounds;
  if (const auto clip = activation_bounds(node)) {
    bounds = *clip;
    node = graph.producer(node.input(0));
  }
  if (!node || !node.is("BatchNormalization") || node.attr_int("training_mode", 0) != 0) return std::nullopt;
  const auto scale = constant_floats(graph, node.input(1)), shift = constant_floats(graph, node.input(2));
  if (!scale || !shift || scale->size() != shift->size()) return std::nullopt;
  std::vector<double> means;
  for (std::size_t c = 0; c < scale->size(); ++c)
    means.push_back(clipped_normal_mean((*shift)[c], std::abs((*scale)[c]), bounds.low, bounds.high));
  return means;
}

}  // namespace onnxpress
