// The layers of a pruned network that a repair refits, in the order in which it does.
#pragma once

#include <string>
#include <vector>

#include "depend/axes.h"
#include "ir/rewriter.h"
#include "pass/linear.h"
#include "pass/pass.h"
#include "repair/reconstruct.h"

namespace onnxpress {

// A Conv, Gemm or MatMul, or a BatchNormalization: one weight per channel then.
struct RepairLayer {
  Node node = {};
  bool normalizes = false;  // a BatchNormalization; `linear` is empty then
  Linear linear = {};
  Node norm_behind = {};  // the BatchNormalization that alone reads the result
  bool can_shift = false;
  // input, target and shortcut of it are still to be filled in.
  Regression regression = {};
  std::string input = {};     // value of the pruned model
  std::string target = {};    // value of the original: the result, or the sum with `shortcut`
  std::string shortcut = {};  // value of the pruned model; "" without one
  std::int64_t axis = -1;     // of the channels of target and shortcut
  Indices channels = {};      // of the target that are left; empty: all
};

// Layers of the main graph whose numbers are not the original's any more; with `behind` also those that only read such
// numbers. A level holds layers none of which depends on another of its own or a later one. Layers that cannot be
// refitted are journaled with the reason. Errors: io.
Result<std::vector<std::vector<RepairLayer>>> repair_levels(const Model& model, const Model& original,
                                                            const KeptAxes& kept, bool keep_zeros, bool behind,
                                                            PassContext& context);

// The node of `original`'s main graph that makes the value which `node` makes first; an empty handle when there is none
// of the same op.
Node counterpart(const Node& node, const Model& original);

Result<LinearWeights> read_weights(const RepairLayer& layer);
// False when a number does not fit the type of the layer: nothing is written then.
Result<bool> write_weights(const RepairLayer& layer, const LinearWeights& weights, bool with_weight,
                           Rewriter& rewriter);

// A convolution or matrix with where its bias lies or could lie; the reason why its weights cannot be changed.
OrReason<RepairLayer> changeable_layer(const Node& node, bool keep_size);

}  // namespace onnxpress
