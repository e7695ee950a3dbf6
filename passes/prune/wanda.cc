// prune-wanda: of every output the weights become zero that are small and read little.
//
//   x ─► MatMul(W, b) ─► y    =>    x ─► MatMul(W', b) ─► y      W'[i, j] = 0 where |W[i, j]| * ||X_j||_2 is among the
//                                                                k smallest of output i, k = floor(sparsity * inputs)
//
// ||X_j||_2 is the norm of input j over all positions of the calibration samples. With pattern=N:M the M - N smallest
// of every M in a row. Zeros that are there count. Source: Sun et al., "A Simple and Effective Pruning Approach for
// Large Language Models" (arXiv 2306.11695).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

#include "calib/channel_stats.h"
#include "calib/levels.h"
#include "num/select.h"
#include "pass/pass.h"
#include "repair/repair.h"
#include "sparse/prunable.h"
#include "sparse/sparse_layer.h"

namespace onnxpress {
namespace {

struct Options {
  SparsityTarget target;
  std::vector<std::string> ops = {"Gemm", "MatMul"};
  bool sequential = false;
  RepairOptions repair = {};
};

class PruneWanda final : public Pass {
 public:
  explicit PruneWanda(Options options) : options_(std::move(options)) {}

  static void describe(Schema<Options>& schema) {
    schema.add_part(&Options::target)
        .add("ops", &Options::ops,
             "operators whose weights are pruned, of Conv, Gemm and MatMul; on convolutions prune-magnitude or "
             "prune-sparsegpt do better")
        .add("sequential", &Options::sequential,
             "layer by layer, each with the input that the pruned layers before it give; else all at once")
        .add_part(&Options::repair);
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (context.activations == nullptr) return fail(Code::usage, "it needs --data");
    const std::vector<std::string> known = {"Conv", "Gemm", "MatMul"};
    OP_TRY(check_weight_ops(options_.ops, known));
    const Model original = model.clone();
    bool changed = false;
    for (const auto& level : sparse_levels(model, context, options_.ops, options_.target, options_.sequential)) {
      OP_LET(const bool some, prune_level(model, level, context));
      changed |= some;
    }
    if (changed) OP_TRY(repair_pruned(model, original, {}, /*keep_zeros=*/true, context, options_.repair));
    return Outcome{changed};
  }

 private:
  Result<bool> prune_level(Model& model, std::span<const SparseLayer> layers, PassContext& context) const {
    std::deque<ChannelStatsAccumulator> norms;
    std::vector<Tap> taps;
    for (const SparseLayer& layer : layers) {
      norms.emplace_back(layer.shape.is_conv() ? 1 : -1);
      taps.push_back({layer.input(), &norms.back()});
    }
    OP_TRY(collect_up_to(*context.activations, model, taps));
    Rewriter rewriter(model.main());
    for (std::size_t i = 0; i < layers.size(); ++i) OP_TRY(prune_one(layers[i], norms[i], rewriter, context));
    return rewriter.commit();
  }

  Status prune_one(const SparseLayer& layer, const ChannelStatsAccumulator& norms, Rewriter& rewriter,
                   PassContext& context) const {
    const std::size_t channels = norms.stats().channels.size(), k = layer.shape.length;
    // Of a Conv a column of the weight is one element of the kernel of one input channel.
    const std::size_t per_channel = layer.shape.is_conv() && channels > 0 ? layer.shape.groups * k / channels : 1;
    if (!norms.trouble().empty() || channels * per_channel != layer.shape.groups * k) {
      context.skipped(layer.node(), norms.trouble().empty() ? "the samples gave it no input" : norms.trouble());
      return {};
    }
    OP_LET(const LayerRows before, read_rows(layer));
    const NmPattern pattern = layer.share ? NmPattern{} : options_.target.pattern;
    LayerRows rows = before;
    for (std::size_t c = 0; c < layer.shape.outputs; ++c) {
      const auto weight = std::span(rows.weight).subspan(c * k, k);
      std::vector<double> scores(k);
      for (std::size_t j = 0; j < k; ++j) {
        const std::size_t column = c / layer.shape.outputs_per_group() * k + j;
        const auto& channel = norms.stats().channels[column / per_channel];
        const double norm = std::sqrt(channel.mean_square() * static_cast<double>(channel.count));
        // Inputs that are always zero: the smaller weight goes first.
        constexpr double kLeast = std::numeric_limits<double>::min();
        scores[j] = weight[j] == 0 ? 0 : std::abs(weight[j]) * std::max(norm, kLeast);
      }
      if (pattern.given())
        keep_pattern(scores, k, pattern);
      else
        keep_largest(scores, fraction_of(layer.share.value_or(options_.target.sparsity), k));
      for (std::size_t j = 0; j < k; ++j)
        if (scores[j] == 0) weight[j] = 0;
    }
    if (rows.weight == before.weight) {
      context.skipped(layer.node(),
                      fmt::format("it is sparse enough: {}", sparsity_text(zeros_of(before), layer.size())));
      return {};
    }
    OP_LET(const bool written, write_rows(layer, before, rows, rewriter));
    if (written)
      context.done(layer.node(), sparsity_change(layer, before, rows));
    else
      context.skipped(layer.node(), "its weights do not fit their type");
    return {};
  }

  Options options_;
};

}  // namespace

PassInfo info_prune_wanda() {
  return describe_pass<PruneWanda, Options>(
      {.summary = "Zero the weights that matter least for what they read",
       .description =
           "W' = W with, of every output i, the k smallest |W[i, j]| * ||X_j||_2 set to zero, k = floor(sparsity * "
           "inputs); ||X_j||_2 is the norm of input j over the calibration samples. pattern=2:4 zeroes the two least "
           "of every four in a row. Existing zeros count, so that a second run changes nothing.\n\n"
           "Made for the matrices of transformers, whose inputs differ much in size; by default MatMul and Gemm of the "
           "main graph. Weights that something else reads too are left. What stays is then fitted to what the layers "
           "gave before, zeros stay zero (repair=off to leave it).\n\n"
           "The graph stays the same: zeros make the file smaller once it is compressed or stored sparse.",
       .example = "prune-wanda{pattern=2:4}",
       .references =
           {"Sun et al., A Simple and Effective Pruning Approach for Large Language Models, arXiv 2306.11695"},
       .idempotent = true,
       .lossy = true,
       .needs_data = true});
}

}  // namespace onnxpress
