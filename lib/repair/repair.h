// Repairs a pruned network without training: what is left is fitted, layer by layer, to what the original network
// computed there.
//
//   W', b' = argmin  sum over samples |c(t) - c(W x + b + s)|^2 + lambda |W - W0|^2
//
// x is what the layer reads in the pruned network, repaired up to there; t what the original has there, cut to the
// outputs that are left; s the other side of a residual connection behind it, so that errors which come that way are
// made up for; c the Relu or Clip behind. reconstruct.h says how it is solved.
// Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168), section 3.1 and
// its residual targets of section 3.2, with a ridge; Zhang et al. (arXiv 1505.06798) for c.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "depend/axes.h"
#include "pass/options.h"
#include "pass/pass.h"

namespace onnxpress {

// The options of every pass that repairs: `repair=auto` is on with --data.
struct RepairOptions {
  enum class When { automatic, on, off };
  When repair = When::automatic;
  std::optional<double> ridge = {};  // lambda over the mean of the diagonal of sum x x'; none: best of several
  bool behind = true;                // also refit layers that were not cut themselves
  std::int64_t positions = 128;      // output positions of a sample

  static void describe(Schema<RepairOptions>& schema);
};

// `model` was pruned; `original` is what it was made from, with the same names of nodes and values; `kept` says what is
// left of the main graph's axes in terms of `original` (empty when only weights became zero). Front to back, each layer
// sees the repaired ones before it: every Conv, Gemm and MatMul with a constant weight whose numbers are not the
// original's any more, and every BatchNormalization that reads what no such layer has put right. With `keep_zeros`
// (unstructured sparsity) weights that are 0 stay 0, and the others are fitted around them. Every change is accepted
// only if it lowers the error on every fifth sample, which is held out; the whole, only if the outputs of the model
// come closer to the original's there. Journals what was done to which layer. True when the model changed: its nodes
// may then be others than before. Bodies of If, Loop and Scan are left.
//
// Without data: repair=on is a usage error; repair=auto shifts the biases of layers that lost inputs by what these gave
// on average, where BatchNormalization or constant channels in front tell it.
Result<bool> repair_pruned(Model& model, const Model& original, const KeptAxes& kept, bool keep_zeros,
                           PassContext& context, const RepairOptions& options);

}  // namespace onnxpress
