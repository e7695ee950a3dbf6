// prune-channels: the channels that matter least, taken out of every weight they run through.
//
//   x ─► Conv(W1) ─► BatchNormalization ─► Relu ─► Conv(W2) ─► y
//        [64,3,3,3]        [64]                    [64,64,3,3]
//     =>  [32,3,3,3]        [32]                    [64,32,3,3]            ratio=0.5
//
// Units are what the dependency graph finds (lib/depend/dependency.h): channels, feed-forward neurons, hidden units of
// LSTM and GRU, whatever has to go together through residual additions, concatenations, gates and grouped convolutions.
//
//   score(u) = mean over the weights it is in of ||slice of u|| / mean over units of the same     the lowest go, until
//   units * width left = the multiple of round_to nearest to (1 - ratio) of them, or macs <= target
//
// The network gets smaller and, as MACs are time on a CPU when widths are multiples of its blocks, faster.
// Source: Fang et al., "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900); Li et al., "Pruning Filters for
// Efficient ConvNets" (arXiv 1608.08710).
#include "pass/pass.h"
#include "prune/structured.h"

namespace onnxpress {
namespace {

class PruneChannels final : public Pass {
 public:
  explicit PruneChannels(const StructuredOptions& options) : options_(options) {}

  static void describe(Schema<StructuredOptions>& schema) { StructuredOptions::describe(schema); }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    return prune_structured(model, context, options_,
                            {UnitKind::channels, UnitKind::neurons, UnitKind::hidden, UnitKind::other});
  }

 private:
  StructuredOptions options_;
};

}  // namespace

PassInfo info_prune_channels() {
  return describe_pass<PruneChannels, StructuredOptions>({
      .summary = "Removes whole channels, neurons and hidden units: a smaller and faster network",
      .description =
          "y = Conv(W2 [64,64,3,3], Relu(Conv(W1 [64,3,3,3], x)))  =>  y = Conv(W2' [64,32,3,3], Relu(Conv(W1' "
          "[32,3,3,3], x)))\n\n" +
          structured_description() +
          "\n\nAttention heads are left to prune-heads. Fold shape computations first (@clean): a Reshape to a "
          "computed "
          "shape can block what a literal one would not.",
      .example = "@clean,prune-channels{ratio=0.3}",
      .references = {"Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900",
                     "Li et al., Pruning Filters for Efficient ConvNets, arXiv 1608.08710",
                     "Fang et al., Isomorphic Pruning for Vision Models, arXiv 2407.04616"},
      .idempotent = false,
      .lossy = true,
  });
}

}  // namespace onnxpress
