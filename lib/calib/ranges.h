// Ranges of many values in one go.
#pragma once

#include <map>
#include <span>
#include <string>

#include "calib/min_max.h"
#include "pass/pass.h"

namespace onnxpress {

// The min-max range of each of `values` (of the main graph, duplicates welcome) over the calibration samples.
// NaN and infinities are warned about once per value. Errors are those of Activations::collect.
Result<std::map<std::string, ValueRange>> collect_min_max(Activations& activations, const Model& model,
                                                          std::span<const std::string> values);

}  // namespace onnxpress
