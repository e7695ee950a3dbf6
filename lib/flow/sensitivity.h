// Which nodes of a model suffer from quantization, from files to a table: what `onnxpress sensitivity` does.
#pragma once

#include <string>

#include "flow/trial.h"
#include "quant/sensitivity.h"

namespace onnxpress {

// The pipeline is what will run before quant-static; ranges are measured on `data`, models compared on `eval`.
struct SensitivityRequest : TrialRequest {
  StaticSettings quantization = {};
  std::string cache = {};  // JSON file that is continued and kept up to date; "" = none
  bool fresh = false;      // overwrite the file instead of continuing it
};

// Errors: usage (no data), bad_input (the model; a cache that is not one, or of other inputs), io, engine. What was
// measured before an interruption is in the cache.
Result<SensitivityTable> sensitivity(const SensitivityRequest& request);

// For people: nodes worst first, then pipelines to paste. `pipeline` is what ran first.
std::string sensitivity_text(const SensitivityTable& table, const std::string& pipeline, bool markdown);

}  // namespace onnxpress
