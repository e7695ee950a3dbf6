#include "engine/ort_env.h"

#include "base/text.h"
#include "engine/schema_registry.h"

namespace onnxpress {

Ort::Env& ort_env() {
  // Never destroyed: the order of static destructors across libraries is not ours to choose. Failures come back as
  // exceptions, so the runtime's own log would only say them twice.
  static Ort::Env* const env = [] {
    Ort::Env* made = nullptr;
    with_schemas_handed_over([&] { made = new Ort::Env(ORT_LOGGING_LEVEL_FATAL, "onnxpress"); });
    return made;
  }();
  return *env;
}

Error engine_error(const std::exception& exception) {
  std::string text(trim(exception.what()));
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return Error{Code::engine, "ONNX Runtime: " + text, {}};
}

}  // namespace onnxpress
