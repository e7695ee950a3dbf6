// The factors of cross-layer equalization: which scale to give each channel so that rounding hurts least.
#pragma once

#include <cstddef>
#include <vector>

#include "calib/channel_stats.h"
#include "pass/channel_graph.h"

namespace onnxpress {

// What the samples say of a layer, by channel.
struct LayerActivity {
  std::vector<double> in_power;     // E[x^2]
  std::vector<double> in_peak;      // max |x|
  std::vector<double> out_spread;   // variance of the result
  std::vector<double> out_passing;  // share of the results that the activation behind lets through with a slope
};

struct EqualizeSettings {
  bool per_channel = false;    // weights will have one scale per output channel, not one per tensor
  double largest_factor = 1e3;  // factors stay between 1/largest and largest
};

// Limits of the factor of a class (index: root id).
struct FactorLimits {
  std::vector<double> low, high;
};

// From weights alone, after Nagel et al. (arXiv 1906.04721, equation 11), all classes in turn until nothing moves:
//   s[c] = sqrt(r1[c] / r2[c]),   r1, r2 = largest |weight| that makes, that reads channel c
// Returns the factor of each id's root.
Result<std::vector<double>> equalize_ranges(const ChannelGraph& channels, const FactorLimits& limits,
                                            const EqualizeSettings& settings);

// With activations: the factors that make the expected error of 8-bit rounding least. To layer k with weights W it adds
//   N = (R / 127)^2 / 12 * sum_o g[o] s[o]^2 sum_i E[x_i^2] / s[i]^2     R = max |W[o,i]| s[i] / s[o]
// for its weights, and for its input
//   A = (T / 255)^2 / 12 * sum_i h[i] s[i]^2                             T = max_i max|x_i| / s[i]
// where h[i] = sum_o W[o,i]^2 passing[o] / spread[o] / outputs is how strongly the layers that read channel i pass its
// error on, relative to what they compute, and g[o] the same for an output, times the share that its activation lets
// through. The sum over all layers is brought down one layer's channels at a time, never up: for given ceilings on R and
// T the best factors have a closed form within bounds, and the ceilings are searched on a grid.
Result<std::vector<double>> equalize_noise(const ChannelGraph& channels, const std::vector<LayerActivity>& activity,
                                           const FactorLimits& limits, const EqualizeSettings& settings);

}  // namespace onnxpress
