#include "calib/levels.h"

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

std::vector<std::vector<Node>> node_levels(const Model& model, const std::function<bool(const Node&)>& is_layer,
                                           bool sequential) {
  std::map<std::size_t, std::vector<Node>> levels;
  std::unordered_map<std::string, std::size_t> depth;  // layers on the longest way to a value
  std::size_t deepest = 0;
  for (const Node& node : model.main().nodes()) {
    std::size_t at = node.has_subgraph() ? deepest : 0;  // a body may read anything
    for (const std::string& input : node.inputs())
      if (const auto known = depth.find(input); known != depth.end()) at = std::max(at, known->second);
    if (is_layer(node)) {
      levels[sequential ? at : 0].push_back(node);
      ++at;
    }
    deepest = std::max(deepest, at);
    for (const std::string& output : node.outputs()) depth[output] = at;
  }
  std::vector<std::vector<Node>> ordered;
  for (auto& [at, nodes] : levels) ordered.push_back(std::move(nodes));
  return ordered;
}

Status collect_pairs_up_to(Activations& activations, const Model& a, const Model& b, std::span<const PairTap> taps) {
  const Model from = prefix(a, taps, &PairTap::a), to = prefix(b, taps, &PairTap::b);
  return activations.collect_pairs(from, to, taps);
}

Status collect_up_to(Activations& activations, const Model& model, std::span<const Tap> taps) {
  std::vector<std::string> values;
  for (const Tap& tap : taps) values.push_back(tap.value);
  return activations.collect(extract_prefix(model, values), taps);
}

}  // namespace onnxpress
