#include "pass/pass.h"

namespace onnxpress {

Status Activations::collect_pairs(const Model&, const Model&, std::span<const PairTap>) {
  return fail(Code::unsupported, "these samples cannot be run through two models");
}

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
