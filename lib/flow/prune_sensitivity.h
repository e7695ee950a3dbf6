// Which parts of a model suffer from pruning, from files to a table: what `onnxpress sensitivity --method prune-…`
// does.
#pragma once

#include <string>
#include <vector>

#include "flow/trial.h"
#include "prune/prune_sensitivity.h"

namespace onnxpress {

struct PruneSensitivityRequest : TrialRequest {
  PruneMethod method = PruneMethod::magnitude;
  std::vector<double> ratios = {0.25, 0.5, 0.75};
};

struct PruneSensitivityResult {
  PruneSensitivityTable table;
  std::string model, data, samples;  // fingerprint of the model, digest of the samples, what they were
};

// Errors: usage (no data, ratios), bad_input (the model), io, engine.
Result<PruneSensitivityResult> prune_sensitivity(const PruneSensitivityRequest& request);

// For people: parts, worst first, then what to paste. `pipeline` is what ran first.
std::string prune_sensitivity_text(const PruneSensitivityResult& result, const std::string& pipeline, bool markdown);
std::string prune_sensitivity_json(const PruneSensitivityResult& result);

}  // namespace onnxpress
