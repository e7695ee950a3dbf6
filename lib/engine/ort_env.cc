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

namespace {

// The runtime's checks put "./onnxruntime/<file>:<line> <C++ signature> " before what they have to say; the signature
// ends at the first space outside brackets that follows its parameter list.
std::string without_location(std::string text) {
  const std::size_t begin = text.find("./onnxruntime/");
  if (begin == std::string::npos) return text;
  int depth = 0;
  bool parameters = false;
  for (std::size_t at = begin; at < text.size(); ++at) {
    const char c = text[at];
    parameters = parameters || c == '(';
    if (c == '(' || c == '[' || c == '<')
      ++depth;
    else if (c == ')' || c == ']' || c == '>')
      --depth;
    if (c != ' ' || depth != 0 || !parameters) continue;
    const std::string_view rest = std::string_view(text).substr(at + 1);
    if (rest.starts_with("const ") || rest.starts_with("[with ")) continue;
    return text.erase(begin, at + 1 - begin);
  }
  return text;
}

}  // namespace

Error engine_error(const std::exception& exception) {
  std::string text = without_location(std::string(trim(exception.what())));
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return Error{Code::engine, "ONNX Runtime: " + text, {}};
}

}  // namespace onnxpress
