#include "base/result.h"

namespace onnxpress {

std::string Error::text() const {
  std::string text;
  for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) text += *frame + ": ";
  return text + what;
}

}  // namespace onnxpress
