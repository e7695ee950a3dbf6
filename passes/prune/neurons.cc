// prune-neurons: the feed-forward width of transformers and the hidden layers of perceptrons.
//
//   x ─► MatMul(W1 [256,1024]) ─► Add(b) ─► Gelu ─► MatMul(W2 [1024,256]) ─► y
//     =>  MatMul(W1' [256,768]) ─► Add(b') ─► Gelu ─► MatMul(W2' [768,256]) ─► y            ratio=0.25
//
// A neuron is a column of W1 with its bias and the row of W2 that reads it; in a gated unit (SwiGLU) the columns of
// both projections. It is scored as by prune-channels,
//
//   score(u) = ||W1[:,u]|| / mean_v ||W1[:,v]|| + ||W2[u,:]|| / mean_v ||W2[v,:]||
//
// and the lowest go. Nothing but MatMul and Gemm weights may make or read it: channels and heads stay.
// Source: Fang et al., "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900).
#include "pass/pass.h"
#include "prune/structured.h"

namespace onnxpress {
namespace {

class PruneNeurons final : public Pass {
 public:
  explicit PruneNeurons(const StructuredOptions& options) : options_(options) {}

  static void describe(Schema<StructuredOptions>& schema) { StructuredOptions::describe(schema); }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    return prune_structured(model, context, options_, {UnitKind::neurons});
  }

 private:
  StructuredOptions options_;
};

}  // namespace

PassInfo info_prune_neurons() {
  return describe_pass<PruneNeurons, StructuredOptions>({
      .summary = "Removes neurons between MatMul and Gemm: feed-forward width",
      .description = "y = MatMul(Gelu(MatMul(x, W1 [256,1024])), W2 [1024,256])  =>  y = MatMul(Gelu(MatMul(x, W1' "
                     "[256,768])), W2' "
                     "[768,256])\n\n" +
                     structured_description() +
                     "\n\nOnly units that MatMul and Gemm weights alone make and read are taken.",
      .example = "@clean,prune-neurons{ratio=0.25}",
      .references = {"Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900"},
      .idempotent = false,
      .lossy = true,
  });
}

}  // namespace onnxpress
