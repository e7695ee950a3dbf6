// Bias compensation without data: what a removed channel gave on average moves into the biases of its readers.
//
//   y = W x + b    =>    y = W[:, kept] x[kept] + b + sum over removed c of W[:, c] E[x_c]
//
// E[x_c] follows from the BatchNormalization (and Relu or Clip) in front, whose output has mean B and deviation
// |scale|, taken as normal; it is exact for a channel that is constant, except where the layer pads. Source: Nagel et
// al. (arXiv 1906.04721), appendix C; Ye et al., "Rethinking the Smaller-Norm-Less-Informative Assumption" (arXiv
// 1802.00124) for constant channels.
#pragma once

#include "depend/axes.h"
#include "pass/pass.h"

namespace onnxpress {

// Of the main graph; the terms are those of repair_pruned(). True when the model changed.
Result<bool> compensate_means(Model& model, const Model& original, const KeptAxes& kept, PassContext& context);

}  // namespace onnxpress
