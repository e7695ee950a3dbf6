// Layers of a model front to back, as passes go through them that feed each layer with what those before it became.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "pass/pass.h"

namespace onnxpress {

// The nodes of the main graph that `is_layer` names (asked once for each, in graph order), by the number of such layers
// on the longest way to them: none of a level depends on another of its own or a later one. Not sequential: one level.
std::vector<std::vector<Node>> node_levels(const Model& model, const std::function<bool(const Node&)>& is_layer,
                                           bool sequential);

// Runs `a` and `b` beside each other over the calibration samples, no further than the taps.
Status collect_pairs_up_to(Activations& activations, const Model& a, const Model& b, std::span<const PairTap> taps);
// The same with one model; taps of the main graph only.
Status collect_up_to(Activations& activations, const Model& model, std::span<const Tap> taps);

// Cuts `layers` into runs whose `bytes` stay below the budget (at least one layer each) and calls `work` on each. True
// when any call says that it changed something.
template <class Layer>
Result<bool> in_groups(std::span<const Layer> layers, std::uint64_t budget,
                       const std::function<std::uint64_t(const Layer&)>& bytes,
                       const std::function<Result<bool>(std::span<const Layer>)>& work) {
  bool changed = false;
  for (std::size_t begin = 0, end = 0; begin < layers.size(); begin = end) {
    std::uint64_t total = 0;
    for (end = begin; end < layers.size(); ++end) {
      total += bytes(layers[end]);
      if (total > budget && end > begin) break;
    }
    OP_LET(const bool some, work(layers.subspan(begin, end - begin)));
    changed |= some;
  }
  return changed;
}

}  // namespace onnxpress
