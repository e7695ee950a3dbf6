// convert-opset: the same model at a newer opset.
//
//   opset 9   y = Softmax<axis=1>(x)          =>  opset 13  y = Reshape(Softmax<axis=-1>(Flatten<axis=1>(x)), Shape(x))
//             y = Upsample<scales=...>(x)     =>            y = Resize<asymmetric, floor>(x, , scales)
//             y = Squeeze<axes=[1]>(x)        =>            y = Squeeze(x, [1])
//
// All or nothing: every node of the default domain, in every body, means the same afterwards, or nothing changes and
// the nodes in the way are named. Source: the ONNX operator changelog, opsets 7 to 21.
#include <fmt/format.h>

#include "ir/upconvert.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

struct Options {
  std::int64_t to = 13;
};

class ConvertOpset final : public Pass {
 public:
  explicit ConvertOpset(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("to", &Options::to, "the opset of the result; a model at it or above stays as it is",
               {kOldestOpset, kNewestOpset});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    const std::int64_t opset = model.opset(), ir = model.ir_version();
    if (opset >= options_.to) return Outcome{};
    bool all = true;
    for (const Graph* graph : model.graphs())
      for (const Node& node : graph->nodes()) all = context.selected(node) && all;
    if (!all) {
      context.journal.warning("an opset is that of the whole model: convert-opset cannot leave nodes out");
      return Outcome{};
    }
    UpconvertLog log;
    const auto changed = upconvert(model, options_.to, &log);
    if (!changed && changed.error().code != Code::unsupported) return rethrow(changed.error());
    for (const auto& [node, why] : log.refused) context.skipped(node, why);
    if (!changed) {
      context.journal.warning(changed.error().text());
      return Outcome{};
    }
    for (const auto& [node, what] : log.converted) context.done(node, what);
    if (*changed)
      context.journal.note(
          fmt::format("opset {} to {}, IR version {} to {}", opset, model.opset(), ir, model.ir_version()));
    return Outcome{*changed};
  }

 private:
  Options options_;
};

}  // namespace

PassInfo info_convert_opset() {
  return describe_pass<ConvertOpset, Options>(
      {.summary = "The same model at a newer opset",
       .description =
           "opset 9: y = Softmax<axis=1>(x)  =>  opset 13: y = Reshape(Softmax<axis=-1>(Flatten<axis=1>(x)), "
           "Shape(x))\n"
           "\n"
           "Converts every node of the default domain, bodies of If, Loop and Scan included, and raises the IR version "
           "as far as the opset needs. All or nothing: where a node cannot be converted exactly, it is named and "
           "nothing changes. Model-local functions have to be inlined first (clean-functions).",
       .example = "convert-opset{to=21}",
       .references = {"ONNX operator changelog, opsets 7 to 21"}});
}

}  // namespace onnxpress
