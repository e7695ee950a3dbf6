// prune-heads: attention heads, physically removed.
//
//   q = x Wq [256, 8*32] ─► Reshape [B,S,8,32]          =>   q = x Wq' [256, 6*32] ─► Reshape [B,S,6,32]
//   k, v alike; o = softmax(q k^T) v                         k, v alike; o = softmax(q k^T) v
//   Reshape [B,S,256] of o ─► Wo [8*32, 256] ─► y            Reshape [B,S,192] of o ─► Wo' [6*32, 256] ─► y
//
// A unit is a head: its columns of Wq, Wk, Wv with their biases, its rows of Wo, its part of position tables. Query
// heads that share a key/value head (grouped-query attention) go together with it. With data a head is worth
//
//   obs         tr(W_h B_h W_h^T), B_h = inv([H^-1]_hh)    what Wo loses when it is refitted without the head
//   activation  sqrt(tr(W_h G_hh W_h^T))                   the root mean square of what it adds to Wo's output
//   loss        KL(original || without it)                 the divergence of the outputs of the network
//
// The scale 1/sqrt(32) stays: it belongs to the width of a head, not to their number.
// Source: Michel et al., "Are Sixteen Heads Really Better than One?" (arXiv 1905.10650), with scores without gradients.
#include "pass/pass.h"
#include "prune/structured.h"

namespace onnxpress {
namespace {

class PruneHeads final : public Pass {
 public:
  explicit PruneHeads(const StructuredOptions& options) : options_(options) {}

  static void describe(Schema<StructuredOptions>& schema) { StructuredOptions::describe(schema); }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    return prune_structured(model, context, options_, {UnitKind::heads});
  }

 private:
  StructuredOptions options_;
};

}  // namespace

PassInfo info_prune_heads() {
  PassInfo info = describe_pass<PruneHeads, StructuredOptions>({
      .summary = "Removes attention heads",
      .description =
          "Reshape(MatMul(x, Wq [256, 256]), [0, 0, 8, 32]), ... => Reshape(MatMul(x, Wq' [256, 192]), [0, 0, 6, 32]), "
          "...\n\n" +
          structured_description() +
          "\n\nHeads are found by the same dependency graph in whatever form they are written: separate or packed "
          "projections, rotary or relative positions, and com.microsoft Attention, MultiHeadAttention and "
          "GroupQueryAttention, whose num_heads changes. Query heads that share a key/value head go together with it. "
          "Heads whose keys and values are handed out as a cache stay. Heads are counted one by one: round_to is 1 "
          "here, and matters only where it is larger than a head is wide. The scale 1/sqrt(width of a head) is not "
          "changed.",
      .example = "@clean,prune-heads{ratio=0.25}",
      .references = {"Michel et al., Are Sixteen Heads Really Better than One?, arXiv 1905.10650",
                     "Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900"},
      .idempotent = false,
      .lossy = true,
  });
  info.make_options = [] {
    auto options = std::make_shared<StructuredOptions>();
    options->round_to = 1;
    return options;
  };
  for (Field& field : info.options)
    if (field.key == "round_to") field.fallback = "1";
  return info;
}

}  // namespace onnxpress
