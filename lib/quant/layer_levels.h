// The quantized layers of a model in the order in which a repair goes through them.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ir/rewriter.h"
#include "pass/pass.h"
#include "quant/quantized_layer.h"

namespace onnxpress {

// Selected layers of the main graph. A level holds layers none of which depends on another of its own or a later one;
// not sequential: one level. Layers that cannot be repaired are journaled with the reason. Needs context.reference.
std::vector<std::vector<QuantizedLayer>> layer_levels(const Model& model, PassContext& context, bool sequential);

// Runs the float reference and the model beside each other over the calibration samples, no further than the taps.
Status collect_pairs_up_to(PassContext& context, const Model& model, std::span<const PairTap> taps);

// Cuts a level into runs of layers whose `bytes` stay below the budget (at least one layer each) and calls `repair` on
// each. True when any call says that it changed something.
Result<bool> in_groups(std::span<const QuantizedLayer> level, std::uint64_t budget,
                       const std::function<std::uint64_t(const QuantizedLayer&)>& bytes,
                       const std::function<Result<bool>(std::span<const QuantizedLayer>)>& repair);

}  // namespace onnxpress
