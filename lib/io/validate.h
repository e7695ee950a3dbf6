// Structure checks on every loaded model, before anything else looks at it.
#pragma once

#include "ir/model.h"

namespace onnxpress {

// Values defined once per scope, every read resolvable and after its definition, opset imported, bounded depth.
// Error bad_input naming the node and the value.
Status validate_structure(const Model& model);

}  // namespace onnxpress
