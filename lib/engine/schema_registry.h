// The operator-schema registry that libonnx and a runtime linked against the same libonnx share.
#pragma once

#include <functional>

namespace onnxpress {

// The runtime registers every ONNX schema when its first environment is made; those libonnx has registered by then
// make it print several hundred "Schema error" lines. Runs `make_environment` with the registry emptied of the
// domains the runtime brings itself, so that each schema is registered once, and puts libonnx's own back when the
// runtime turns out to use a private libonnx. Must run once, before anything else creates an environment, and not
// beside the checker or shape inference.
void with_schemas_handed_over(const std::function<void()>& make_environment);

}  // namespace onnxpress
