// Means of values per channel: measured on samples, or known from BatchNormalization.
#pragma once

#include <any>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress {

// The mean of (a - b) for each index of `axis` (negative: from the end) over all samples. Sums are in double and in
// sample order.
class MeanDifference : public PairAccumulator {
 public:
  MeanDifference(std::int64_t axis, std::size_t channels) : axis_(axis), sums_(channels, 0) {}
  std::any reduce(const TensorView& a, const TensorView& b) const override;
  void merge(std::any partial) override;
  // nullopt when the shapes were not those of `channels` or differed, when a value was not finite, or nothing came.
  std::optional<std::vector<double>> mean() const;

 private:
  std::int64_t axis_;
  std::vector<double> sums_;
  std::uint64_t count_ = 0;  // elements of each channel
  bool usable_ = true;
};

// The mean of clip(x, low, high) for x normal with this mean and standard deviation.
double clipped_normal_mean(double mean, double deviation, double low, double high);

// What a Relu or Clip lets through; nullopt: another op, or bounds that are no constants.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
};
std::optional<Bounds> activation_bounds(const Node& node);

// What the mean of `value` is for each channel, when it comes from a BatchNormalization through Relu, Clip and ops that
// do not change a channel's mean: BatchNormalization makes channels of mean B and deviation |scale|, taken as normal
// (Nagel et al., arXiv 1906.04721, appendix C). nullopt: it comes from elsewhere.
std::optional<std::vector<double>> mean_from_batchnorm(const Graph& graph, std::string_view value);

}  // namespace onnxpress
