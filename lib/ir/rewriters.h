// One Rewriter per scope, for a change that spans several: a weight of the main graph and its readers in bodies.
#pragma once

#include <unordered_map>
#include <vector>

#include "ir/rewriter.h"

namespace onnxpress {

class Rewriters {
 public:
  explicit Rewriters(const Model& model) : order_(model.graphs()) {}
  Rewriter& of(Graph& graph) { return by_graph_.try_emplace(&graph, graph).first->second; }
  // Commits all, in the order of Model::graphs(). True when the model changed.
  Result<bool> commit() {
    bool changed = false;
    for (Graph* graph : order_) {
      const auto found = by_graph_.find(graph);
      if (found == by_graph_.end()) continue;
      OP_LET(const bool one, found->second.commit());
      changed = changed || one;
    }
    return changed;
  }

 private:
  std::vector<Graph*> order_;
  std::unordered_map<Graph*, Rewriter> by_graph_;
};

}  // namespace onnxpress
