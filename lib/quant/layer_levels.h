// The quantized layers of a model in the order in which a repair goes through them.
#pragma once

#include <span>
#include <vector>

#include "calib/levels.h"
#include "pass/pass.h"
#include "quant/quantized_layer.h"

namespace onnxpress {

// Selected layers of the main graph. A level holds layers none of which depends on another of its own or a later one;
// not sequential: one level. Layers that cannot be repaired are journaled with the reason. Needs context.reference.
std::vector<std::vector<QuantizedLayer>> layer_levels(const Model& model, PassContext& context, bool sequential);

// Runs the float reference and the model beside each other over the calibration samples, no further than the taps.
Status collect_pairs_up_to(PassContext& context, const Model& model, std::span<const PairTap> taps);

}  // namespace onnxpress
