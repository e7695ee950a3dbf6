#include "quant/layer_levels.h"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>

#include "ir/extract.h"

namespace onnxpress {
namespace {

Model prefix(const Model& model, std::span<const PairTap> taps, std::string PairTap::* value) {
  std::vector<std::string> values;
  for (const PairTap& tap : taps) values.push_back(tap.*value);
  return extract_prefix(model, values);
}

}  // namespace

std::vector<std::vector<QuantizedLayer>> layer_levels(const Model& model, PassContext& context, bool sequential) {
  std::map<std::size_t, std::vector<QuantizedLayer>> levels;
  std::unordered_map<std::string, std::size_t> depth;  // layers on the longest way to a value
  std::size_t deepest = 0;
  for (const Node& node : model.main().nodes()) {
    std::size_t at = node.has_subgraph() ? deepest : 0;  // a body may read anything
    for (const std::string& input : node.inputs())
      if (const auto known = depth.find(input); known != depth.end()) at = std::max(at, known->second);
    auto layer = find_quantized_layer(node, *context.reference);
    if (layer && context.selected(node)) {
      levels[sequential ? at : 0].push_back(std::move(*layer));
      ++at;
    } else if (!layer && !layer.error().empty() && context.selected(node)) {
      context.skipped(node, layer.error());
    }
    deepest = std::max(deepest, at);
    for (const std::string& output : node.outputs()) depth[output] = at;
  }
  std::vector<std::vector<QuantizedLayer>> ordered;
  for (auto& [at, layers] : levels) ordered.push_back(std::move(layers));
  return ordered;
}

Status collect_pairs_up_to(PassContext& context, const Model& model, std::span<const PairTap> taps) {
  const Model from = prefix(*context.reference, taps, &PairTap::a), to = prefix(model, taps, &PairTap::b);
  return context.activations->collect_pairs(from, to, taps);
}

Result<bool> in_groups(std::span<const QuantizedLayer> level, std::uint64_t budget,
                       const std::function<std::uint64_t(const QuantizedLayer&)>& bytes,
                       const std::function<Result<bool>(std::span<const QuantizedLayer>)>& repair) {
  bool changed = false;
  for (std::size_t begin = 0, end = 0; begin < level.size(); begin = end) {
    std::uint64_t total = 0;
    for (end = begin; end < level.size(); ++end) {
      total += bytes(level[end]);
      if (total > budget && end > begin) break;
    }
    OP_LET(const bool some, repair(level.subspan(begin, end - begin)));
    changed |= some;
  }
  return changed;
}

}  // namespace onnxpress
