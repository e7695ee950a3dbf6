// correct-batchnorm: the statistics of BatchNormalization, measured anew.
//
//   y = BatchNormalization(x, scale, B, mean, var)   =>   y = BatchNormalization(x, scale, B, mean', var')
//
//   mean'[c] = E[x[c]]      var'[c] = E[(x[c] - mean'[c])^2]        over all calibration samples and positions
//
// Pruning, low rank and rounding of weights move the mean and shrink or widen the spread of what follows them; the
// BatchNormalization behind undoes that once its statistics are those of the changed network. A correction changes all
// that follows, so it goes front to back: one run over the samples for every BatchNormalization whose predecessors are
// corrected already. Source: Sun et al., "Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural
// Networks" (NeurIPS 2019, section 4.3, "BN re-tuning"); Finkelstein et al., "Fighting Quantization Bias With Bias"
// (arXiv 1906.03193).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <unordered_map>

#include "calib/channel_stats.h"
#include "ir/edit.h"
#include "ir/rewriter.h"
#include "num/channels.h"
#include "pass/linear.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

class CorrectBatchnorm final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (context.activations == nullptr) return fail(Code::usage, "correct-batchnorm needs --data");
    Outcome outcome;
    for (const std::vector<Node>& level : levels(model, context)) {
      OP_LET(const bool changed, correct(model, level, context));
      outcome.changed |= changed;
    }
    for (const Graph* graph : model.graphs())
      if (graph != &model.main())
        for (const Node& node : graph->nodes())
          if (node.is("BatchNormalization") && context.selected(node))
            context.skipped(node, "it is inside a body or a function");
    return outcome;
  }

 private:
  // The nodes to correct, by how many such nodes lie before them on the longest path.
  static std::vector<std::vector<Node>> levels(const Model& model, PassContext& context) {
    const Graph& graph = model.main();
    std::vector<std::vector<Node>> found;
    std::unordered_map<std::string, std::size_t> depth;  // of a value
    for (const Node& node : graph.nodes()) {
      std::size_t before = 0;
      for (const std::string& input : node.inputs())
        if (const auto known = depth.find(input); known != depth.end()) before = std::max(before, known->second);
      if (node.is("BatchNormalization") && context.selected(node)) {
        if (const std::string reason = batchnorm_refusal(node); !reason.empty()) {
          context.skipped(node, reason);
        } else {
          if (found.size() <= before) found.resize(before + 1);
          found[before].push_back(node);
          ++before;
        }
      }
      // A body may read anything defined before its owner.
      if (node.has_subgraph()) before = std::max(before, found.size());
      for (const std::string& output : node.outputs()) depth[output] = before;
    }
    return found;
  }

  static Result<bool> correct(Model& model, const std::vector<Node>& level, PassContext& context) {
    std::deque<ChannelStatsAccumulator> accumulators;
    std::vector<Tap> taps;
    for (const Node& node : level) {
      accumulators.emplace_back(1);
      taps.push_back({std::string(node.input(0)), &accumulators.back()});
    }
    OP_TRY(context.activations->collect(model, taps));
    bool changed = false;
    for (std::size_t i = 0; i < level.size(); ++i) {  // one commit each: they may share parameters
      OP_LET(const bool one, rewrite(level[i], accumulators[i], context));
      changed |= one;
    }
    return changed;
  }

  static Result<bool> rewrite(const Node& node, const ChannelStatsAccumulator& measured, PassContext& context) {
    const Graph& graph = node.graph();
    OP_LET(const auto old_mean, graph.constant(node.input(3)));
    OP_LET(const auto old_variance, graph.constant(node.input(4)));
    const auto& channels = measured.stats().channels;
    std::string trouble = measured.trouble();
    if (trouble.empty() && channels.size() != old_mean->size())
      trouble = fmt::format("its input has {} channels, it {}", channels.size(), old_mean->size());
    if (trouble.empty() && std::ranges::any_of(channels, [](const auto& c) { return c.count < 2; }))
      trouble = "a channel of its input has fewer than two finite values";
    if (!trouble.empty()) {
      context.skipped(node, trouble);
      return false;
    }
    std::vector<double> mean, variance;
    for (const ChannelStats::Channel& channel : channels) {
      mean.push_back(channel.mean());
      variance.push_back(channel.variance());
    }
    OP_LET(auto new_mean, from_doubles(mean, old_mean->dtype(), old_mean->dims()));
    OP_LET(auto new_variance, from_doubles(variance, old_variance->dtype(), old_variance->dims()));
    if (!new_mean || !new_variance) {
      context.skipped(node, fmt::format("its statistics are not finite in {}", dtype_name(old_mean->dtype())));
      return false;
    }
    if (std::ranges::equal(new_mean->bytes(), old_mean->bytes()) &&
        std::ranges::equal(new_variance->bytes(), old_variance->bytes())) {
      context.skipped(node, "its statistics are those of the samples already");
      return false;
    }
    OP_LET(const std::vector<double> before, to_doubles(old_mean->view()));
    OP_LET(const std::vector<double> spread, to_doubles(old_variance->view()));
    context.done(node, summary(before, spread, mean, variance));
    Rewriter rewriter(node.graph());
    set_constant(rewriter, node, 3, std::move(*new_mean), "mean");
    set_constant(rewriter, node, 4, std::move(*new_variance), "var");
    return rewriter.commit();
  }

  static std::string summary(const std::vector<double>& mean, const std::vector<double>& variance,
                             const std::vector<double>& new_mean, const std::vector<double>& new_variance) {
    double shift = 0, before = 0, after = 0;
    for (std::size_t c = 0; c < mean.size(); ++c) {
      if (variance[c] > 0) shift = std::max(shift, std::abs(new_mean[c] - mean[c]) / std::sqrt(variance[c]));
      before += variance[c];
      after += new_variance[c];
    }
    return fmt::format("{} channels: mean moved by up to {:.3g} standard deviations, total variance {:.4g} -> {:.4g}",
                       mean.size(), shift, before, after);
  }
};

}  // namespace

PassInfo info_correct_batchnorm() {
  return describe_pass<CorrectBatchnorm>(
      {.summary = "Measures the statistics of BatchNormalization anew",
       .description =
           "y = BatchNormalization(x, scale, B, mean, var)  =>  y = BatchNormalization(x, scale, B, mean', var')\n\n"
           "mean' and var' are those of x over the calibration samples, channel by channel. Weights that were pruned, "
           "factored or rounded shift what follows them; this puts it back. Front to back, because each correction "
           "changes what follows: one run over the samples for every BatchNormalization on the longest path. Use "
           "hundreds of samples: with few, the statistics are worse than the ones that training left. Shared "
           "parameters are copied. Never touched: BatchNormalization in training mode, with spatial=0, with "
           "parameters that are not constant, in bodies and functions.",
       .example = "prune-magnitude{sparsity=0.6},correct-batchnorm,fold-batchnorm",
       .references = {"Sun et al., Hybrid 8-bit Floating Point (HFP8) Training and Inference, NeurIPS 2019",
                      "Finkelstein et al., Fighting Quantization Bias With Bias, arXiv 1906.03193"},
       .lossy = true,
       .needs_data = true});
}

}  // namespace onnxpress
