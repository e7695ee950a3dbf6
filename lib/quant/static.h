// Static quantization as a call: what quant-static runs, and what passes that try several precisions run many times.
#pragma once

#include <map>
#include <string>

#include "calib/ranges.h"
#include "pass/pass.h"
#include "quant/node_format.h"
#include "quant/static_plan.h"
#include "quant/target.h"
#include "quant/weight.h"

namespace onnxpress {

enum class WeightFormat { int8, uint8, int4 };

struct StaticSettings {
  bool per_channel = true;  // one weight scale per output channel (opset 13 and later)
  Target target = Target::automatic;
  Placement placement = Placement::all;
  ActivationFormat activations = ActivationFormat::automatic;
  WeightFormat weights = WeightFormat::int8;
  WeightClip clip = WeightClip::minmax;
  bool store = true;       // weights of nodes that stay float for speed are stored as int8, folded back when loaded
  bool attention = false;  // products of two activations and Softmax too
  RangeSettings ranges = {};
  const RangeTable* known = nullptr;                // ranges measured earlier; what it lacks is measured
  std::map<std::string, NodeFormat> per_node = {};  // by node label: instead of what the rest says
};

// Quantizes the nodes that context.selected() lets it touch, in the main graph and in bodies of If, Loop and Scan;
// every other node with an integer form is journaled with the reason why it stays float. A model whose opset is too old
// is converted up first when something is to be quantized. Needs context.activations unless `known` holds every range.
// True when the model changed. Errors: those of Activations::collect, bad_input (a weight or bias that is not finite),
// io.
Result<bool> quantize_static(Model& model, PassContext& context, const StaticSettings& settings);

}  // namespace onnxpress
