// New codes, scales and biases for a whole layer from the second moments of its input and its wanted output.
#pragma once

#include <optional>
#include <vector>

#include "calib/gram.h"
#include "quant/quantized_layer.h"

namespace onnxpress {

struct RoundLayerSettings {
  std::optional<double> damping = {};  // RoundingSolver's; none: the best of several on samples held out
  std::int64_t max_move = 0;           // RoundingLimits::max_move
  bool scales = true;                  // also choose scales, where there is one per channel
  unsigned jobs = 0;
};

struct RoundLayerResult {
  LayerNumbers numbers;
  double error_before = 0, error_after = 0;  // squared error of the outputs over their power; on held-out rows if any
  double damping = 0;                        // that was used
  bool rounded = false;                      // new codes; else the old ones were better on held-out samples
  bool shifted = false;                      // new bias
};

// Among the layer as it is, with a new bias, and rounded anew at each damping, all fitted on `fitted`, the one with the
// least error on `held_out` is chosen and then fitted on both. Without held-out rows it is rounded anew. Errors: those
// of RoundingSolver::make.
Result<RoundLayerResult> round_layer(const QuantizedLayer& layer, const LayerNumbers& numbers, const Gram& fitted,
                                     const Gram& held_out, const RoundLayerSettings& settings);

// sum over rows of (y - s q x - b)^2 for every channel.
std::vector<double> output_errors(const LayerNumbers& numbers, const Gram& gram);

// The bias with which the mean error over the rows is zero.
std::vector<double> fitted_bias(const LayerNumbers& numbers, const Gram& gram);

}  // namespace onnxpress
