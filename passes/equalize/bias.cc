// equalize-bias: what a channel never falls below moves behind the ReLU (high-bias absorption).
//
//   y = W2 Relu(W1 x + b1) + b2   =>   y = W2 Relu(W1 x + b1 - c) + (b2 + W2 c)
//
//   c = max(0, mean - 3 sigma)    of W1 x + b1, per channel:    Relu(z - c) = Relu(z) - c wherever z >= c
//
// Large biases widen the range of an activation without carrying information, and equalize-layers makes some larger.
// mean and sigma are those of the samples, or, for a BatchNormalization that is still there, its B and |scale|, without
// samples. The readers must be Conv, Gemm or MatMul that do not pad: zeros around the input would not move along.
// Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721),
// section 4.1.3.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "calib/channel_stats.h"
#include "ir/edit.h"
#include "ir/rewriter.h"
#include "num/channels.h"
#include "pass/linear.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

struct Options {
  double sigmas = 3;
};

constexpr double kLeastShift = 1e-3;  // of the largest value: less is not worth a change

// y = W2 Relu(z): what makes z, and what reads the Relu.
struct Pair {
  Node maker;          // a linear op, or a BatchNormalization
  Linear linear = {};  // of the maker, when it is one
  std::string value;   // z
  std::vector<Linear> readers = {};
};

class EqualizeBias final : public Pass {
 public:
  explicit EqualizeBias(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("sigmas", &Options::sigmas, "standard deviations between the mean and what moves", {0, {}});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    Outcome outcome;
    std::vector<Pair> pairs;
    std::deque<ChannelStatsAccumulator> accumulators;
    std::vector<Tap> taps;
    for (const Node& relu : model.main().nodes()) {
      if (!relu.is("Relu")) continue;
      OrReason<Pair> pair = find_pair(relu, context);
      if (!pair) {
        if (!pair.error().empty()) context.skipped(relu, pair.error());
        continue;
      }
      if (!pair->maker.is("BatchNormalization"))
        taps.push_back({pair->value, &accumulators.emplace_back(pair->maker.is("MatMul") ? -1 : 1)});
      pairs.push_back(std::move(*pair));
    }
    if (!taps.empty()) OP_TRY(context.activations->collect(model, taps));
    std::size_t measured = 0;
    for (const Pair& pair : pairs) {
      const bool norm = pair.maker.is("BatchNormalization");
      OP_LET(const bool changed, absorb(pair, norm ? nullptr : &accumulators[measured++], context));
      outcome.changed |= changed;
    }
    return outcome;
  }

 private:
  // An empty reason: nothing to do with this pass.
  static OrReason<Pair> find_pair(const Node& relu, PassContext& context) {
    const Graph& graph = relu.graph();
    Pair pair{.maker = graph.producer(relu.input(0)), .value = std::string(relu.input(0))};
    Node add;
    if (pair.maker && pair.maker.is("Add"))
      for (const std::size_t slot : {0UZ, 1UZ})
        if (const Node made = graph.producer(pair.maker.input(slot)); made && made.is("MatMul"))
          if (add_after(made) == pair.maker) add = pair.maker, pair.maker = made;
    if (!pair.maker || !(is_linear(pair.maker) || pair.maker.is("BatchNormalization"))) return no("");
    if (graph.is_output(relu.output(0))) return no("its result is an output of the graph");
    for (const Use& use : graph.uses(relu.output(0))) {
      if (!use.node || use.captured) return no("a nested body reads its result");
      const bool fits = is_linear(use.node) && !use.node.is("ConvTranspose") && use.slot == 0;
      if (!fits) return no(fmt::format("{} reads its result", use.node.label()));
      if (use.node.is("Conv") && pads(use.node)) return no(fmt::format("{} pads with zeros", use.node.label()));
      if (use.node.is("Gemm") && use.node.attr_int("transA", 0) != 0) return no(use.node.label() + " transposes it");
      auto reader = describe_linear(use.node, use.node.is("MatMul") ? add_after(use.node) : Node());
      if (!reader) return no(fmt::format("{}: {}", use.node.label(), reader.error()));
      pair.readers.push_back(std::move(*reader));
    }
    if (!only_use(graph, pair.value)) return no("something else reads what it bounds");
    if (pair.maker.is("BatchNormalization")) {
      if (const std::string reason = batchnorm_refusal(pair.maker); !reason.empty()) return no(reason);
    } else {
      if (context.activations == nullptr) return no("the range of its input needs --data");
      auto linear = describe_linear(pair.maker, add);
      if (!linear) return no(linear.error());
      if (!linear->bias_node) return no("what makes its input has no bias");
      pair.linear = std::move(*linear);
    }
    if (!context.selected(relu)) return no("");
    return pair;
  }

  // Mean and deviation by channel, and the largest value.
  struct Spread {
    Doubles mean, sigma;
    double largest = 0;
  };
  static Result<Spread> spread_of(const Pair& pair, const ChannelStatsAccumulator* measured) {
    Spread spread;
    if (measured != nullptr) {
      for (const ChannelStats::Channel& channel : measured->stats().channels) {
        spread.mean.push_back(channel.mean());
        spread.sigma.push_back(std::sqrt(channel.variance()));
        spread.largest = std::max(spread.largest, channel.absmax());
      }
      return spread;
    }
    const Graph& graph = pair.maker.graph();
    OP_LET(const auto scale, graph.constant(pair.maker.input(1)));
    OP_LET(const auto bias, graph.constant(pair.maker.input(2)));
    OP_LET(spread.sigma, to_doubles(scale->view()));
    OP_LET(spread.mean, to_doubles(bias->view()));
    for (std::size_t c = 0; c < spread.sigma.size(); ++c) {
      spread.sigma[c] = std::abs(spread.sigma[c]);
      spread.largest = std::max(spread.largest, std::abs(spread.mean[c]) + 3 * spread.sigma[c]);
    }
    return spread;
  }

  Result<bool> absorb(const Pair& pair, const ChannelStatsAccumulator* measured, PassContext& context) const {
    const auto refuse = [&](const std::string& why) { return context.skipped(pair.maker, why), false; };
    if (measured != nullptr && !measured->trouble().empty()) return refuse(measured->trouble());
    OP_LET(const Spread spread, spread_of(pair, measured));
    Doubles shift;
    std::size_t moved = 0;
    for (std::size_t c = 0; c < spread.mean.size(); ++c) {
      const double least = spread.mean[c] - options_.sigmas * spread.sigma[c];
      shift.push_back(least > kLeastShift * spread.largest ? least : 0);
      moved += shift.back() > 0 ? 1U : 0U;
    }
    if (moved == 0) return refuse("no channel stays clear of zero");
    for (const Linear& reader : pair.readers)
      if (reader.layout.inputs() != shift.size()) return refuse(reader.node.label() + " reads other channels");
    Rewriter rewriter(pair.maker.graph());
    OP_LET(bool finite, lower(pair, shift, rewriter));
    for (const Linear& reader : pair.readers) {
      if (!finite) break;
      OP_LET(finite, raise(reader, shift, rewriter));
    }
    if (!finite) return refuse("a bias would not be finite in its type");
    context.done(pair.maker, fmt::format("{} of {} channels lowered by up to {:.3g}", moved, shift.size(),
                                         std::ranges::max(shift)));
    for (const Linear& reader : pair.readers) context.done(reader.node, "takes over what its input was lowered by");
    return rewriter.commit();
  }

  // b1 - c. False when it cannot be written.
  static Result<bool> lower(const Pair& pair, const Doubles& shift, Rewriter& rewriter) {
    const bool norm = pair.maker.is("BatchNormalization");
    Doubles bias;
    DType dtype = pair.linear.dtype;
    if (norm) {
      OP_LET(const auto tensor, pair.maker.graph().constant(pair.maker.input(2)));
      OP_LET(bias, to_doubles(tensor->view()));
      dtype = tensor->dtype();
    } else {
      OP_LET(bias, read_bias(pair.linear));
    }
    if (bias.size() != shift.size()) return false;
    for (std::size_t c = 0; c < bias.size(); ++c) bias[c] -= shift[c];
    return write(rewriter, norm ? pair.maker : pair.linear.bias_node, norm ? 2 : pair.linear.bias_slot, bias, dtype,
                 norm ? 1 : pair.linear.beta);
  }

  // b2 + W2 c.
  static Result<bool> raise(const Linear& reader, const Doubles& shift, Rewriter& rewriter) {
    OP_LET(const auto tensor, reader.node.graph().constant(reader.node.input(1)));
    OP_LET(const Doubles weight, to_doubles(tensor->view()));
    OP_LET(Doubles bias, read_bias(reader));
    const Doubles added = apply_to_constant(weight, reader.layout, shift);
    for (std::size_t o = 0; o < bias.size(); ++o) bias[o] += reader.alpha * added[o];
    if (reader.bias_node) return write(rewriter, reader.bias_node, reader.bias_slot, bias, reader.dtype, reader.beta);
    OP_LET(auto constant, from_doubles(bias, reader.dtype, {static_cast<std::int64_t>(bias.size())}));
    if (constant) add_bias_behind(rewriter, reader.node, std::move(*constant));
    return constant.has_value();
  }

  static Result<bool> write(Rewriter& rewriter, const Node& node, std::size_t slot, const Doubles& bias, DType dtype,
                            double beta) {
    OP_LET(auto constant, from_doubles(bias, dtype, {static_cast<std::int64_t>(bias.size())}));
    if (!constant) return false;
    if (beta != 1) rewriter.set_attribute(node, "beta", 1.0F);
    set_constant(rewriter, node, slot, std::move(*constant), fmt::format("{}_bias", node.output(0)));
    return true;
  }

  Options options_;
};

}  // namespace

PassInfo info_equalize_bias() {
  return describe_pass<EqualizeBias, Options>(
      {.summary = "Moves what a channel never falls below behind its ReLU (high-bias absorption)",
       .description =
           "y = W2 Relu(W1 x + b1) + b2  =>  y = W2 Relu(W1 x + b1 - c) + (b2 + W2 c)\n\n"
           "c = max(0, mean - sigmas * sigma) of each channel in front of the Relu: the activation loses a range that "
           "carries no information. Mean and deviation come from the samples, or from the BatchNormalization in front "
           "of the Relu, which needs none. Where a value is smaller than c after all, the result changes. Run it after "
           "equalize-layers. Never touched: a Relu whose result a padded Conv, a graph output or any op but Conv, Gemm "
           "and MatMul reads; bodies and functions.",
       .example = "fold-batchnorm,equalize-layers,equalize-bias,quant-static",
       .references = {"Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv "
                      "1906.04721, section 4.1.3"},
       .lossy = true});
}

}  // namespace onnxpress
