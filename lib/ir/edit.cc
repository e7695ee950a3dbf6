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

void set_constant(Rewriter& rewriter, const Node& reader, std::size_t slot, Tensor value, std::string_view fresh_name) {
  const Graph& graph = reader.graph();
  const std::string old(reader.input(slot));
  const auto is_reader = [&](const Use& use) { return use.node == reader && use.slot == slot; };
  if (old.empty() || !is_private_constant(graph, old, is_reader)) {
    const std::string name = rewriter.fresh_value(old.empty() ? fresh_name : old);
    rewriter.add_initializer(name, std::move(value));
    rewriter.set_input(reader, slot, name);
  } else if (const Initializer initializer = graph.initializer(old)) {
    rewriter.set_initializer(initializer, std::move(value));
  } else {  // a Constant node: an initializer takes its name
    drop_constant(rewriter, graph, old);
    rewriter.forget_type(old);
    rewriter.add_initializer(old, std::move(value));
  }
}

}  // namespace onnxpress
