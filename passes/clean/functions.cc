// clean-functions: model-local functions are inlined.
//
//   y = local.block<k=2>(x)    =>  y = (the nodes of block, with k=2 and fresh names "call/name")
//
// Functions cannot hold initializers, so passes leave their insides alone; inlined, they are nodes like any other.
// Calls inside the function go with it. The function is removed when nobody calls it any more.
#include <fmt/format.h>

#include "ir/inline.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

class CleanFunctions final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    std::vector<Node> calls;
    for (const Graph* graph : model.graphs()) {
      if (is_in_function(*graph)) continue;
      for (const Node& node : graph->nodes()) {
        if (!is_function_call(node) || !context.selected(node)) continue;
        if (std::string why = inline_refusal(node); !why.empty()) {
          context.skipped(node, std::move(why));
        } else {
          context.done(node, "inlined");
          calls.push_back(node);
        }
      }
    }
    for (const InlinedCall& call : inline_calls(model, calls))
      context.journal.note(fmt::format("{} ({}): {} nodes", call.label, call.op, call.nodes));
    return Outcome{!calls.empty()};
  }

 private:
  static bool is_in_function(const Graph& graph) {
    const Graph* outermost = &graph;
    while (outermost->parent() != nullptr) outermost = outermost->parent();
    return outermost->kind() == Graph::Kind::function;
  }
};

}  // namespace

PassInfo info_clean_functions() {
  return describe_pass<CleanFunctions>(
      {.summary = "Inlines model-local functions",
       .description =
           "y = local.block(x)  =>  y = (the nodes of block)\n\n"
           "Calls in the main graph and in bodies of If, Loop and Scan, with the calls inside them; functions that "
           "nobody calls any more are removed. Values and nodes get names that start with the call's. A function that "
           "needs another version of an operator than the model imports, or that calls itself, stays. Run it before "
           "passes that change weights: functions cannot hold any.",
       .example = "clean-functions"});
}

}  // namespace onnxpress
