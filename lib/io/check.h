// The ONNX checker over a Model, payloads left on disk.
#pragma once

#include "ir/model.h"

namespace onnxpress {

// onnx::checker on the structure (tensor payload sizes are checked at load). Error bad_input with its message.
Status check_model(const Model& model);

}  // namespace onnxpress
