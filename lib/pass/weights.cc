#include "pass/weights.h"

#include <fmt/format.h>

#include <algorithm>

namespace onnxpress {

std::string not_constant_reason(const Node& node, std::size_t slot) {
  const std::string_view weight = node.input(slot);
  const Graph* scope = weight.empty() ? nullptr : node.graph().scope_of(weight);
  if (scope == nullptr || !scope->initializer(weight)) return std::string(kWeightNotConstant);
  return fmt::format("weight '{}' is also a graph input, so that callers can replace it", weight);
}

std::string foreign_reader(const Graph& scope, std::string_view weight, std::span<const Use> readers) {
  if (scope.is_output(weight)) return fmt::format("weight '{}' is also a graph output", weight);
  for (const Use& use : scope.uses(weight)) {
    if (!use.node) return fmt::format("weight '{}' is also handed out by a nested body", weight);
    const auto same = [&](const Use& reader) { return reader.node == use.node && reader.slot == use.slot; };
    if (!std::ranges::any_of(readers, same))
      return fmt::format("weight '{}' is also read by {}, which keeps it", weight, use.node.label());
  }
  return {};
}

std::uint64_t weight_bytes(const Model& model) {
  std::uint64_t bytes = 0;
  for (const Graph* graph : model.graphs())
    for (const Initializer& initializer : graph->initializers()) bytes += initializer.bytes();
  return bytes;
}

}  // namespace onnxpress
