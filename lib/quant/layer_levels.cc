#include "quant/layer_levels.h"

#include <string>
#include <unordered_map>

#include "calib/levels.h"

namespace onnxpress {

std::vector<std::vector<QuantizedLayer>> layer_levels(const Model& model, PassContext& context, bool sequential) {
  std::unordered_map<const void*, QuantizedLayer> found;
  const auto is_layer = [&](const Node& node) {
    auto layer = find_quantized_layer(node, *context.reference);
    if ((!layer && layer.error().empty()) || !context.selected(node)) return false;
    if (!layer) {
      context.skipped(node, layer.error());
      return false;
    }
    found.emplace(node.proto(), std::move(*layer));
    return true;
  };
  std::vector<std::vector<QuantizedLayer>> ordered;
  for (const std::vector<Node>& nodes : node_levels(model, is_layer, sequential)) {
    ordered.emplace_back();
    for (const Node& node : nodes) ordered.back().push_back(std::move(found.at(node.proto())));
  }
  return ordered;
}

Status collect_pairs_up_to(PassContext& context, const Model& model, std::span<const PairTap> taps) {
  return collect_pairs_up_to(*context.activations, *context.reference, model, taps);
}

}  // namespace onnxpress
