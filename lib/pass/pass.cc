#include "pass/pass.h"

namespace onnxpress {

Status Activations::collect_pairs(const Model&, const Model&, std::span<const PairTap>) {
  return fail(Code::unsupported, "these samples cannot be run through two models");
}

Status Activations::probe(const Model&, std::span<const Tap>) {
  return fail(Code::unsupported, "these samples cannot be looked at one by one");
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
