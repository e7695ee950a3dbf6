#include "ir/edit.h"

#include <algorithm>

namespace onnxpress {

bool is_private_constant(const Graph& graph, std::string_view value, const std::function<bool(const Use&)>& by) {
  if (graph.scope_of(value) != &graph || !graph.is_constant(value) || graph.is_output(value)) return false;
  return std::ranges::all_of(graph.uses(value), by);
}

void drop_constant(Rewriter& rewriter, const Graph& graph, std::string_view value) {
  if (const Initializer initializer = graph.initializer(value)) {
    rewriter.remove_initializer(initializer);
  } else if (const Node node = graph.producer(value)) {
    rewriter.erase(node);
  }
}

}  // namespace onnxpress
