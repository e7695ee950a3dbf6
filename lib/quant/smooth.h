// What 8-bit matrix products lose to outlier channels of their input, and factors against it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "num/channels.h"

namespace onnxpress {

// A sample of x and the weights it is multiplied with. x is quantized as uint8 with one range, weights as int8.
struct SmoothProblem {
  bool per_channel = true;    // weights: one scale per output channel, or one per tensor
  std::vector<float> rows;    // of x: [n, channels]
  std::vector<float> min, max;  // of each channel of x over all samples

  // `values` in the layout's order; kept as [inputs, outputs].
  void add_weight(std::span<const float> values, const ChannelLayout& layout);

  // max|x[j]|^alpha / max_k|W[j,k]|^(1-alpha) over all weights, scaled to a geometric mean of 1; 1 for dead channels.
  std::vector<double> factors(double alpha) const;
  // |Q(x / s) Q(s W) - x W|^2 / |x W|^2 over rows and weights.
  double error(const std::vector<double>& s) const;

 private:
  struct Weight {
    std::vector<double> values;  // [inputs, outputs]
    std::size_t outputs = 0;
  };
  std::vector<Weight> weights_;
};

}  // namespace onnxpress
