// equalize-layers: channels that are made small and read large get a fair share of the 8-bit range.
//
//   y = W2 f(W1 x + b1) + b2   =>   y = (W2 S) f((S^-1 W1) x + S^-1 b1) + b2        S = diag(s), f(x / s) = f(x) / s
//
// Conv, ConvTranspose, Gemm and MatMul around ReLU, LeakyReLU, PReLU, pools, data movement, residual Add, Concat; the
// network computes the same numbers, but one scale per weight tensor then wastes less of its range.
//   objective=range   s[c] = sqrt(r1[c] / r2[c]), r = largest |weight| that makes, that reads channel c, until it stays
//                     (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
//                     1906.04721, equation 11)
//   objective=noise   s that makes the expected rounding error of weights and activations least (quant/equalize.h);
//                     needs samples: a channel that never fires may then have any weights
// Clip(x, 0, b) (ReLU6) has one bound for all channels: where samples reach it, s = 1; elsewhere s stays large enough to
// remain below. Section 5.1.1 of the paper replaces it by ReLU, which relu6=relu does too.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <set>

#include "calib/channel_stats.h"
#include "ir/rewriter.h"
#include "pass/channel_graph.h"
#include "pass/pass.h"
#include "quant/equalize.h"

namespace onnxpress {
namespace {

enum class Objective { automatic, range, noise };
enum class Weights { tensor, channel };
enum class Relu6 { automatic, keep, relu };

struct Options {
  Objective objective = Objective::automatic;
  Weights weights = Weights::tensor;
  Relu6 relu6 = Relu6::automatic;
  double saturation = 0.01;
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class EqualizeLayers final : public Pass {
 public:
  explicit EqualizeLayers(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema
        .add("objective", &Options::objective,
             {{"auto", Objective::automatic}, {"range", Objective::range}, {"noise", Objective::noise}},
             "range equalizes weight ranges alone; noise makes the rounding error on the samples least; auto is noise "
             "with --data, else range")
        .add("weights", &Options::weights, {{"tensor", Weights::tensor}, {"channel", Weights::channel}},
             "how the weights will be quantized: one scale per tensor or per output channel (noise only)")
        .add("relu6", &Options::relu6,
             {{"auto", Relu6::automatic}, {"keep", Relu6::keep}, {"relu", Relu6::relu}},
             "Clip(x, 0, b): keep it and respect its bound, replace it by Relu, or auto: replace it where the samples "
             "hardly ever reach the bound. Without --data, keep leaves such layers alone")
        .add("saturation", &Options::saturation,
             "a channel reaches the bound of its Clip if more than this share of its values does", {0, 1});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (options_.objective == Objective::noise && context.activations == nullptr)
      return fail(Code::usage, "objective=noise needs --data");
    Outcome outcome;
    for (Graph* graph : model.graphs()) {
      if (graph->kind() == Graph::Kind::function || (graph != &model.main() && model.ir_version() < 4)) continue;
      OP_LET(const bool changed, equalize(model, *graph, context));
      outcome.changed |= changed;
    }
    return outcome;
  }

 private:
  using Accumulators = std::deque<ChannelStatsAccumulator>;
  struct Measured {
    std::vector<LayerActivity> layers;
    std::vector<ChannelStats> bounds;
    std::string trouble;
  };

  static bool any_free(const ChannelGraph& channels) {
    for (const ChannelLayer& layer : channels.layers())
      for (const std::size_t id : layer.out)
        if (!channels.fixed(id)) return true;
    return false;
  }

  Result<bool> equalize(const Model& model, Graph& graph, PassContext& context) const {
    ChannelGraph channels(graph, context, {});
    if (channels.layers().empty()) return false;
    const bool sampled = context.activations != nullptr && &graph == &model.main() && any_free(channels);
    Measured measured;
    if (sampled) {
      OP_LET(measured, measure(model, channels, context));
      if (!measured.trouble.empty()) context.journal.warning("equalize-layers without samples: " + measured.trouble);
    }
    const bool usable = sampled && measured.trouble.empty();
    const FactorLimits limits = bind(channels, usable ? &measured : nullptr);
    if (!any_free(channels)) return journal_fixed(channels, context), false;
    const EqualizeSettings settings{.per_channel = options_.weights == Weights::channel};
    std::vector<double> factors;
    if (usable && options_.objective != Objective::range) {
      OP_LET(factors, equalize_noise(channels, measured.layers, limits, settings));
    } else {
      OP_LET(factors, equalize_ranges(channels, limits, settings));
    }
    return apply(graph, channels, factors, usable ? &measured : nullptr, context);
  }

  // Inputs and results of every layer, inputs of every Clip; the bound of a Clip tells where it has a slope.
  static Result<Measured> measure(const Model& model, const ChannelGraph& channels, PassContext& context) {
    Accumulators inputs, outputs, clips;
    std::vector<Tap> taps;
    const auto tap = [&](Accumulators& list, std::string_view value, std::int64_t axis, double upper) {
      taps.push_back({std::string(value), &list.emplace_back(axis, static_cast<float>(upper))});
    };
    for (const ChannelLayer& layer : channels.layers()) {
      tap(inputs, layer.input, layer.in_axis, kInfinity);
      tap(outputs, layer.output, layer.out_axis, activation_of(channels, layer).value_or(kInfinity));
    }
    for (const ChannelBound& bound : channels.bounds()) tap(clips, bound.node.input(0), bound.axis, bound.upper);
    OP_TRY(context.activations->collect(model, taps));
    Measured measured;
    const auto check = [&](const ChannelStatsAccumulator& found, std::size_t expected, const Node& node) {
      if (!found.trouble().empty()) measured.trouble = node.label() + ": " + found.trouble();
      if (measured.trouble.empty() && found.stats().channels.size() != expected)
        measured.trouble = fmt::format("{} has {} channels, not {}", node.label(), found.stats().channels.size(), expected);
      return measured.trouble.empty();
    };
    for (std::size_t k = 0; k < channels.layers().size(); ++k) {
      const ChannelLayer& layer = channels.layers()[k];
      if (!check(inputs[k], layer.in.size(), layer.linear.node)) return measured;
      if (!check(outputs[k], layer.out.size(), layer.linear.node)) return measured;
      measured.layers.push_back(
          activity(inputs[k].stats(), outputs[k].stats(), activation_of(channels, layer).has_value()));
    }
    for (std::size_t k = 0; k < channels.bounds().size(); ++k) {
      if (!check(clips[k], channels.bounds()[k].ids.size(), channels.bounds()[k].node)) return measured;
      measured.bounds.push_back(clips[k].stats());
    }
    return measured;
  }

  // The upper bound of the ReLU or Clip right behind a layer.
  static std::optional<double> activation_of(const ChannelGraph& channels, const ChannelLayer& layer) {
    const auto use = only_use(layer.linear.node.graph(), layer.output);
    if (!use) return std::nullopt;
    if (use->node.is("Relu")) return kInfinity;
    for (const ChannelBound& bound : channels.bounds())
      if (bound.node == use->node) return bound.upper;
    return std::nullopt;
  }

  static LayerActivity activity(const ChannelStats& in, const ChannelStats& out, bool activated) {
    LayerActivity found;
    for (const ChannelStats::Channel& channel : in.channels) {
      found.in_power.push_back(channel.mean_square());
      found.in_peak.push_back(channel.absmax());
    }
    for (const ChannelStats::Channel& channel : out.channels) {
      found.out_spread.push_back(channel.variance());
      found.out_passing.push_back(activated ? channel.share(channel.passing) : 1);
    }
    return found;
  }

  bool reaches(const ChannelStats::Channel& channel) const { return channel.share(channel.above) > options_.saturation; }

  // Whether the bound of this Clip may go.
  bool opens(const ChannelBound& bound, const ChannelStats* stats) const {
    if (bound.ids.empty() || options_.relu6 == Relu6::relu) return true;
    return options_.relu6 == Relu6::automatic && stats != nullptr &&
           std::ranges::none_of(stats->channels, [&](const auto& channel) { return reaches(channel); });
  }

  // What the Clips that stay ask of the factors; without samples, that nothing moves.
  FactorLimits bind(ChannelGraph& channels, const Measured* measured) const {
    FactorLimits limits{std::vector<double>(channels.size(), 0), std::vector<double>(channels.size(), kInfinity)};
    for (std::size_t k = 0; k < channels.bounds().size(); ++k) {
      const ChannelBound& bound = channels.bounds()[k];
      const ChannelStats* stats = measured == nullptr ? nullptr : &measured->bounds[k];
      if (opens(bound, stats)) continue;
      if (stats == nullptr) {
        channels.fix(bound.ids, fmt::format("{} bounds all its channels alike: give --data, or relu6=relu",
                                            bound.node.label()));
        continue;
      }
      for (std::size_t c = 0; c < bound.ids.size(); ++c) {
        const std::size_t root = channels.root(bound.ids[c]);
        const ChannelStats::Channel& channel = stats->channels[c];
        const double peak = std::clamp(static_cast<double>(channel.max), 0.0, bound.upper);
        limits.low[root] = std::max(limits.low[root], reaches(channel) ? 1 : peak / bound.upper);
        if (reaches(channel)) limits.high[root] = 1;
      }
    }
    return limits;
  }

  Result<bool> apply(Graph& graph, ChannelGraph& channels, const std::vector<double>& factors, const Measured* measured,
                     PassContext& context) const {
    const auto moves = [&](std::size_t id) { return std::abs(std::log(factors[channels.root(id)])) > 0.01; };
    std::set<std::string> scaled;
    for (const ChannelLayer& layer : channels.layers())
      if (std::ranges::any_of(layer.out, moves)) scaled.insert(layer.linear.node.label());
    if (scaled.empty()) {
      for (const ChannelLayer& layer : channels.layers()) journal_layer(channels, layer, "equal enough already", context);
      return false;
    }
    std::vector<Node> touched;
    OP_LET(const std::string refusal, channels.apply(factors, &touched));
    if (!refusal.empty()) {
      for (const ChannelLayer& layer : channels.layers()) context.skipped(layer.linear.node, refusal);
      return false;
    }
    OP_TRY(open_clips(graph, channels, moves, measured, context));
    for (const ChannelLayer& layer : channels.layers()) {
      if (!std::ranges::contains(touched, layer.linear.node)) {
        journal_layer(channels, layer, "nothing to gain", context);
        continue;
      }
      double low = kInfinity, high = 0;
      for (const std::size_t id : layer.out) {
        low = std::min(low, factors[channels.root(id)]);
        high = std::max(high, factors[channels.root(id)]);
      }
      context.done(layer.linear.node, low == 1 && high == 1
                                          ? std::string("takes over the factors of what it reads")
                                          : fmt::format("{} output channels divided by {:.3g} to {:.3g}",
                                                        layer.out.size(), low, high));
    }
    return true;
  }

  Status open_clips(Graph& graph, const ChannelGraph& channels, const auto& moves, const Measured* measured,
                    PassContext& context) const {
    Rewriter rewriter(graph);
    for (std::size_t k = 0; k < channels.bounds().size(); ++k) {
      const ChannelBound& bound = channels.bounds()[k];
      if (!opens(bound, measured == nullptr ? nullptr : &measured->bounds[k])) continue;
      if (std::ranges::none_of(bound.ids, moves)) continue;
      rewriter.set_op(bound.node, "Relu");
      rewriter.remove_last_inputs(bound.node, 1);
      context.done(bound.node, fmt::format("Relu in its place: its bound {:.4g} would no longer fit all channels",
                                           bound.upper));
    }
    OP_TRY(rewriter.commit());
    return {};
  }

  static void journal_layer(const ChannelGraph& channels, const ChannelLayer& layer, const std::string& why,
                            PassContext& context) {
    const auto free = std::ranges::find_if(layer.out, [&](std::size_t id) { return !channels.fixed(id); });
    context.skipped(layer.linear.node, free == layer.out.end() ? channels.reason(layer.out.front()) : why);
  }

  static void journal_fixed(const ChannelGraph& channels, PassContext& context) {
    for (const ChannelLayer& layer : channels.layers()) journal_layer(channels, layer, "", context);
  }

  Options options_;
};

}  // namespace

PassInfo info_equalize_layers() {
  return describe_pass<EqualizeLayers, Options>(
      {.summary = "Evens out channel ranges across layers before quantization (cross-layer equalization)",
       .description =
           "y = W2 f(W1 x + b1) + b2  =>  y = (W2 S) f((S^-1 W1) x + S^-1 b1) + b2, S = diag(s)\n\n"
           "Linear ops around ReLU and its kin, pools, data movement, residual Add and Concat; the network computes "
           "the same, but 8-bit rounding hurts less, most of all with one scale per weight tensor. With --data, s "
           "makes the expected error of rounding weights and activations least; without, s = sqrt(r1 / r2) of the "
           "weight ranges (the paper). Clip(x, 0, b) keeps its bound: channels that reach it on the samples keep s = "
           "1, others stay below it. Best followed by correct-bias after quantization.\n\n"
           "Run fold-batchnorm before it. Never touched: channels that other ops read or that leave the graph, shared "
           "weights, weights that are graph inputs or outputs, functions.",
       .example = "fold-batchnorm,equalize-layers,quant-static{per_channel=false}",
       .references = {"Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv "
                      "1906.04721"},
       .idempotent = false,
       .lossy = true});
}

}  // namespace onnxpress
