// Repairs a pruned network without training: what is left is fitted, layer by layer, to what the original network
// computed there.
//
//   W' = argmin  sum over samples ||Y - W' X||^2 + lambda ||W' - W||^2      X what the layer reads in the pruned
//   network,
//                                                                           Y what the original makes there, cut to the
//                                                                           outputs that are left
// Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168), with a ridge and
// targets of the original model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "pass/options.h"
#include "pass/pass.h"
#include "prune/axes.h"

namespace onnxpress {

// The options of every pass that repairs: `repair=auto` is on with --data.
struct RepairOptions {
  enum class When { automatic, on, off };
  When repair = When::automatic;
  std::optional<double> ridge = {};  // lambda over the mean of the diagonal of sum X X'; none: best of several
  std::int64_t positions = 64;

  static void describe(Schema<RepairOptions>& schema);
};

// `model` was pruned; `original` is what it was made from, with the same names of nodes and values; `kept` says what is
// left of the main graph's axes in terms of `original` (empty when only weights became zero). Front to back, each layer
// sees the repaired ones before it. Zeros of a weight stay zero when `keep_zeros` (unstructured sparsity): only biases,
// and a factor per output channel, are fitted then. Every change is accepted only if it lowers the error on every fifth
// sample, which is held out. Journals what was done to which layer. True when the model changed.
// Without data: context.activations null and repair=on is a usage error, repair=auto does nothing.
Result<bool> repair_pruned(Model& model, const Model& original, const KeptAxes& kept, bool keep_zeros,
                           PassContext& context, const RepairOptions& options);

}  // namespace onnxpress
