// quant-repair: a model quantized by any tool (QDQ) is brought into the form that ONNX Runtime runs in integers.
//
//   before                                        after
//   DQ(int8 x) ... with several readers           uint8, codes + 128                      (x86 only; the same values)
//   Q(x, s) without zero point                    Q(x, s, 0)
//   Conv(DQ x, DQ w, b)                           Conv(DQ x, DQ w, DQ(int32 b)),  s_b = s_x * s_w
//   Conv -> Relu -> Q with zero point 128         zero point 0, scale so that the codes reach as far as before
//   Conv -> Clip(0, 6) -> Q that reaches 6.05     scale 6 / 255
//   DQ(s1) -> MaxPool -> Q(s2)                    Q(s1): data movement changes no value
//   Conv -> {Q, float reader, graph output}       every reader takes DQ(Q(y))
//   Conv -> float                                 Q and DQ, as behind the data movement that follows, or as measured
//   Q -> DQ between float nodes                   nothing
//
// The order is that of the list with biases last but one: they follow the scales. What is removed or merged changes
// results by less than one step of a scale: a rounding less, or (results that get codes) one more.
// Source: the fusion rules of ONNX Runtime 1.21 (quant/fusion.h); Jacob et al., arXiv 1712.05877, for the bias scale.
#include "quant/repair.h"

#include "pass/pass.h"
#include "quant/target.h"

namespace onnxpress {
namespace {

struct Options {
  Target target = Target::automatic;
};

class QuantRepair final : public Pass {
 public:
  explicit QuantRepair(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("target", &Options::target, target_choices(),
               "what the model will run on; auto is this machine. On x86 int8 activations become uint8");
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    const Target target = resolve(options_.target);
    context.journal.note("target: " + target_name(target));
    bool changed = false;
    for (std::size_t i = 0; i < model.graphs().size(); ++i) {
      Graph* const graph = model.graphs()[i];
      if (graph->kind() == Graph::Kind::function || inside_function(*graph)) continue;
      OP_LET(const bool one, repair_scope(*graph, context, target));
      changed = changed || one;
    }
    return Outcome{changed};
  }

 private:
  static bool inside_function(const Graph& graph) {
    const Graph* at = &graph;
    while (at->parent() != nullptr) at = at->parent();
    return at->kind() == Graph::Kind::function;
  }

  static Result<bool> repair_scope(Graph& graph, PassContext& context, Target target) {
    const bool x86 = target == Target::ort_x86 || target == Target::ort_x86_vnni;
    bool changed = false;
    const auto step = [&](Result<bool> result) -> Status {
      OP_LET(const bool one, std::move(result));
      changed = changed || one;
      return {};
    };
    OP_TRY(step(repair::write_zero_points(graph, context)));
    if (x86) OP_TRY(step(repair::to_uint8(graph, context)));
    OP_TRY(step(repair::share_codes(graph, context)));
    OP_TRY(step(repair::absorb_clips(graph, context)));
    OP_TRY(step(repair::unify_scales(graph, context)));
    OP_TRY(step(repair::quantize_outputs(graph, context)));
    OP_TRY(step(repair::fix_biases(graph, context)));
    OP_TRY(step(repair::drop_useless_pairs(graph, context, !x86)));
    return changed;
  }

  Options options_;
};

}  // namespace

PassInfo info_quant_repair() {
  return describe_pass<QuantRepair, Options>(
      {.summary = "Brings a model quantized by any tool (QDQ) into the form ONNX Runtime runs in integers",
       .description =
           "DQ -> Conv(float bias) -> Relu -> Q(zero point 128)  =>  DQ -> Conv(int32 bias) -> Relu -> Q(zero point "
           "0), which becomes one QLinearConv\n\n"
           "Writes zero points that were left out; turns int8 activations into uint8 on x86 (the same values); adds "
           "int32 biases and corrects their scale; makes the codes behind Relu and Clip lie within its bounds, so "
           "that it is absorbed; gives both sides of Reshape, Transpose, MaxPool and the like one scale; lets all "
           "readers of a quantized result take its codes; quantizes the result of a Conv where that is missing (with "
           "--data it is measured); removes QuantizeLinear/DequantizeLinear pairs between float nodes. Removing a "
           "pair removes a rounding; nothing else changes by more than one step of a scale. `onnxpress lint` shows "
           "what is in the way before and after. Functions are left alone.",
       .example = "quant-repair{target=ort-x86}",
       .references = {"ONNX Runtime 1.21, QDQ transformers", "Jacob et al., arXiv 1712.05877"},
       .lossy = true,
       .quantizes = false});
}

}  // namespace onnxpress
