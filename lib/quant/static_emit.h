// Writes the codes of a plan into its scope: pairs on values and constant operands, and what float neighbours need.
#pragma once

#include <map>
#include <string>

#include "ir/rewriter.h"
#include "quant/qdq.h"
#include "quant/static_numbers.h"
#include "quant/static_plan.h"
#include "quant/static_shapes.h"

namespace onnxpress {

using RootParams = std::map<std::string, CodeParams>;  // by StaticPlan::root()

// Weights and biases are not among it.
Status emit_codes(const StaticPlan& plan, const RootParams& params, const SeenTypes& types, const CodeRules& rules,
                  QdqWriter& writer, Rewriter& rewriter);

}  // namespace onnxpress
