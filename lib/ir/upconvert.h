// Raises the opset of a model: every node of the default domain is rewritten to mean the same at the newer version.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

inline constexpr std::int64_t kOldestOpset = 7, kNewestOpset = 21;  // what upconvert() knows

// What a conversion did, or what was in its way.
struct UpconvertLog {
  std::vector<std::pair<Node, std::string>> converted;  // nodes that changed
  std::vector<std::pair<Node, std::string>> refused;
};

// Converts the default domain of all scopes to `opset` and raises the IR version as far as that opset needs. False
// when the model is at `opset` or above already. Error unsupported, with the nodes in the way named and the model
// unchanged: an op whose conversion is not known, a form that has no equal, model-local functions (inline them first),
// an opset outside [kOldestOpset, kNewestOpset].
Result<bool> upconvert(Model& model, std::int64_t opset, UpconvertLog* log = nullptr);

// The oldest IR version that may carry the opset.
std::int64_t ir_version_for(std::int64_t opset);

}  // namespace onnxpress
