// clean-constants: Constant nodes become initializers, where every other pass and runtime looks for weights.
//
//   w = Constant<value = float[2] {1,2}>()              <float[2] w = {1,2}>
//   y = Mul(x, w)                                 =>    y = Mul(x, w)
//
// value, value_float(s) and value_int(s) count; the scope of the initializer is the scope of the node. Kept: strings
// and sparse values, Constants of functions (functions have no initializers), a Constant that is its scope's output,
// and models before IR version 4, where an initializer would have to be a graph input as well.
#include <fmt/format.h>

#include <optional>

#include "ir/rewriter.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kFreeInitializers = 4;     // the first IR version that has them
constexpr std::uint64_t kInFlight = 64ULL << 20;  // payload bytes between two commits

std::string refusal(const Node& node) {
  const Graph& graph = node.graph();
  if (graph.model().ir_version() < kFreeInitializers)
    return fmt::format("IR version {} wants every initializer to be a graph input", graph.model().ir_version());
  if (graph.kind() == Graph::Kind::function) return "a function has no initializers";
  if (graph.is_output(node.output(0))) return "its value is an output of the graph";
  const auto type = graph.constant_type(node.output(0));
  if (!type || !byte_count(type->first, type->second)) return "its value is not a dense tensor of numbers";
  return {};
}

class CleanConstants final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Outcome outcome;
    for (Graph* graph : model.graphs()) {
      OP_LET(const bool changed, convert(*graph, context));
      outcome.changed |= changed;
    }
    return outcome;
  }

 private:
  static Result<bool> convert(Graph& graph, PassContext& context) {
    std::vector<Node> constants;
    for (const Node& node : graph.nodes())
      if (node.is("Constant") && context.selected(node)) constants.push_back(node);

    bool changed = false;
    std::uint64_t pending = 0;
    std::optional<Rewriter> rewriter(std::in_place, graph);
    for (const Node& node : constants) {
      if (const std::string reason = refusal(node); !reason.empty()) {
        context.skipped(node, reason);
        continue;
      }
      const std::string name(node.output(0));
      OP_LET(std::optional<Tensor> value, graph.constant(name));
      context.done(node, fmt::format("became initializer '{}'", name));
      pending += value->bytes().size();
      rewriter->add_initializer(name, std::move(*value));
      rewriter->erase(node);
      if (pending < kInFlight) continue;
      OP_LET(const bool part, rewriter->commit());
      changed |= part;
      rewriter.emplace(graph);
      pending = 0;
    }
    OP_LET(const bool rest, rewriter->commit());
    return changed || rest;
  }
};

}  // namespace

PassInfo info_clean_constants() {
  return describe_pass<CleanConstants>(
      {.summary = "Turns Constant nodes into initializers",
       .description =
           "w = Constant<value = W>(); y = Mul(x, w)  =>  y = Mul(x, w)   with w an initializer\n\n"
           "Applies to the main graph and to the bodies of If, Loop and Scan. The value keeps its name. Never touched: "
           "strings, sparse values, Constants inside functions, a Constant that is an output of its graph, and models "
           "older than IR version 4.",
       .example = "clean-constants"});
}

}  // namespace onnxpress
