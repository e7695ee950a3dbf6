#include "io/validate.h"

#include <unordered_set>

namespace onnxpress {
namespace {

constexpr std::size_t kMaxNodes = 2'000'000;

// Every value a node reads is an earlier output, an input or an initializer of its scope, or belongs to an outer one.
Status validate_scope(const Graph& graph) {
  std::unordered_set<std::string> defined;
  for (const std::string& name : graph.inputs()) defined.insert(name);
  for (const Initializer& initializer : graph.initializers()) defined.emplace(initializer.name());
  for (const std::string& name : graph.sparse_initializers()) defined.insert(name);
  for (const Node& node : graph.nodes()) {
    if (node.op().empty()) return fail(Code::bad_input, "a node has no op type");
    for (std::size_t i = 0; i < node.input_count(); ++i) {
      const std::string name(node.input(i));
      if (name.empty() || defined.contains(name)) continue;
      if (graph.defines(name))
        return fail(Code::bad_input, "node '{}' reads '{}' before it is computed: nodes are not in topological order",
                    node.label(), name);
      if (graph.parent() == nullptr || graph.parent()->scope_of(name) == nullptr)
        return fail(Code::bad_input, "node '{}' reads '{}', which nothing defines", node.label(), name);
    }
    for (std::size_t i = 0; i < node.output_count(); ++i)
      if (!node.output(i).empty() && !defined.emplace(node.output(i)).second)
        return fail(Code::bad_input, "node '{}' defines '{}' a second time", node.label(), node.output(i));
  }
  for (const std::string& name : graph.outputs())
    if (!defined.contains(name) && (graph.parent() == nullptr || graph.parent()->scope_of(name) == nullptr))
      return fail(Code::bad_input, "output '{}' of graph '{}' is not defined", name, graph.name());
  return {};
}

}  // namespace

Status validate_structure(const Model& model) {
  std::size_t nodes = 0;
  for (const Graph* graph : model.graphs()) {
    nodes += graph->nodes().size();
    if (nodes > kMaxNodes) return fail(Code::resource, "more than {} nodes", kMaxNodes);
    OP_TRY(validate_scope(*graph));
  }
  if (model.opset() == 0) {
    for (const Graph* graph : model.graphs())
      for (const Node& node : graph->nodes())
        if (node.domain().empty() && graph->kind() != Graph::Kind::function)
          return fail(Code::bad_input, "node '{}' is of the default domain, which the model does not import",
                      node.label());
  }
  return {};
}

}  // namespace onnxpress
