// Static quantization as a call: what quant-static runs, and what passes that try several precisions run many times.
#pragma once

#include "calib/ranges.h"
#include "pass/pass.h"
#include "quant/target.h"

namespace onnxpress {

struct StaticSettings {
  bool per_channel = true;  // one weight scale per output channel (opset 13 and later)
  Target target = Target::automatic;
  RangeSettings ranges = {};
  const RangeTable* known = nullptr;  // ranges measured earlier; what it lacks is measured
};

// Quantizes the nodes that context.selected() lets it touch; every other node with an integer form is journaled with
// the reason why it stays float. Needs context.activations unless `known` holds every range. True when the model
// changed. Errors: those of Activations::collect, bad_input (a weight or bias that is not finite), io.
Result<bool> quantize_static(Model& model, PassContext& context, const StaticSettings& settings);

}  // namespace onnxpress
