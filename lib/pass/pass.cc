#include "pass/pass.h"

namespace onnxpress {

bool PassContext::selected(const Node& node) {
  for (const Selection* selection : selections) {
    if (std::string refusal = selection->refusal(node); !refusal.empty()) {
      skipped(node, std::move(refusal));
      return false;
    }
  }
  return true;
}

}  // namespace onnxpress
