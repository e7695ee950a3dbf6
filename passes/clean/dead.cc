// clean-dead: what nothing reads goes away.
//
//   a = Relu(x); b = Exp(x); c = Neg(b)      =>   a = Relu(x)              (a is the graph's output)
//
// A node is dead when no output of it reaches, through nodes or the bodies of control-flow nodes, an output of the main
// graph or of a function. Dead nodes go, then initializers that no live node reads. They stay, with a reason: nodes of
// a domain whose ops we do not know (they may act on the world), nodes with such a node in a body, initializers that
// are also graph inputs (the caller's contract). Unused optional outputs, functions and opset imports are left alone.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <ranges>
#include <set>
#include <unordered_set>

#include "ir/rewriter.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

// What the outputs need, over all scopes.
class Liveness {
 public:
  explicit Liveness(const Model& model) {
    for (Graph* graph : model.graphs())
      if (graph->kind() != Graph::Kind::body)
        for (const std::string& output : graph->outputs()) want(*graph, output);
    drain();
  }

  bool holds(const Node& node) const { return nodes_.contains(node.proto()); }
  bool holds(const Graph& scope, std::string_view value) const {
    const auto found = values_.find(&scope);
    return found != values_.end() && found->second.contains(value);
  }
  // The node and everything it needs.
  void keep(const Node& node) {
    push(node);
    drain();
  }

 private:
  void want(const Graph& reader, std::string_view value) {
    Graph* scope = value.empty() ? nullptr : reader.scope_of(value);
    if (scope == nullptr || !values_[scope].emplace(value).second) return;
    if (const Node producer = scope->producer(value)) push(producer);
  }
  void push(const Node& node) {
    if (nodes_.insert(node.proto()).second) todo_.push_back(node);
  }
  void drain() {
    while (!todo_.empty()) {
      const Node node = todo_.back();
      todo_.pop_back();
      for (std::size_t i = 0; i < node.input_count(); ++i) want(node.graph(), node.input(i));
      if (node.has_subgraph())
        for (const Graph* body : node.subgraphs())
          for (const std::string& output : body->outputs()) want(*body, output);
      // A live body's owner is live: a node kept inside keeps it from outside.
      if (node.graph().owner()) push(node.graph().owner());
    }
  }

  std::unordered_set<const onnx::NodeProto*> nodes_;
  std::map<const Graph*, std::set<std::string, std::less<>>> values_;
  std::vector<Node> todo_;
};

// "" when removing the node cannot be noticed except through its outputs.
std::string side_effects(const Node& node) {
  static constexpr std::array<std::string_view, 3> known = {"", "ai.onnx.ml", "com.microsoft"};
  if (std::ranges::find(known, node.domain()) == known.end())
    return fmt::format("an op of domain '{}' may have side effects", node.domain());
  if (!node.has_subgraph()) return {};
  for (const Graph* body : node.subgraphs())
    for (const Node& inner : body->nodes())
      if (std::string reason = side_effects(inner); !reason.empty()) return "in its body, " + reason;
  return {};
}

// Keeps the dead nodes that must stay. Consumers come first, so that what a kept node reads is never a candidate.
bool keep_some(const Model& model, PassContext& context, Liveness& live) {
  bool kept = false;
  for (const Graph* graph : model.graphs()) {
    if (graph->owner() && !live.holds(graph->owner())) continue;
    for (const Node& node : graph->nodes() | std::views::reverse) {
      if (live.holds(node)) continue;
      const std::string reason = side_effects(node);
      if (!reason.empty()) context.skipped(node, "unused, but " + reason);
      if (reason.empty() && context.selected(node)) continue;
      live.keep(node);
      kept = true;
    }
  }
  return kept;
}

void remove_initializers(Graph& graph, const Liveness& live, Rewriter& rewriter, Journal& journal) {
  for (const Initializer& initializer : graph.initializers()) {
    if (live.holds(graph, initializer.name())) continue;
    if (graph.is_input(initializer.name()) && !graph.constant_initializer(initializer.name())) {
      journal.note(fmt::format("initializer '{}' kept: unused, but also a graph input", initializer.name()));
      continue;
    }
    journal.note(fmt::format("removed initializer '{}': nothing reads it", initializer.name()));
    rewriter.remove_initializer(initializer);
  }
}

class CleanDead final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Liveness live(model);
    while (keep_some(model, context, live)) {
    }
    Outcome outcome;
    // A copy: commits that remove nodes with bodies change the model's own list.
    const std::vector<Graph*> graphs = model.graphs();   // NOLINT(performance-unnecessary-copy-initialization)
    for (Graph* graph : graphs | std::views::reverse) {  // bodies before the nodes that own them
      if (graph->owner() && !live.holds(graph->owner())) continue;
      Rewriter rewriter(*graph);
      for (const Node& node : graph->nodes()) {
        if (live.holds(node)) continue;
        context.done(node, "removed: nothing reads its outputs");
        for (const std::string& output : node.outputs())
          if (!output.empty()) rewriter.forget_type(output);
        rewriter.erase(node);
      }
      if (graph->kind() != Graph::Kind::function) remove_initializers(*graph, live, rewriter, context.journal);
      OP_LET(const bool changed, rewriter.commit());
      outcome.changed |= changed;
    }
    return outcome;
  }
};

}  // namespace

PassInfo info_clean_dead() {
  return describe_pass<CleanDead>(
      {.summary = "Removes nodes and initializers that nothing reads",
       .description =
           "a = Relu(x); b = Exp(x); c = Neg(b)  =>  a = Relu(x)   when a is the graph's only output\n\n"
           "A node goes when none of its outputs reaches an output of the model, directly or through the bodies of "
           "If, Loop and Scan; then the initializers that no remaining node reads. Graph inputs, functions, opset "
           "imports and unused optional outputs are never touched. Nodes of unknown domains are kept, because they "
           "may have side effects.",
       .example = "clean-dead"});
}

}  // namespace onnxpress
