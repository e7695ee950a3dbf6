// correct-bias: shifts biases of quantized layers so that the mean of every output channel is the float model's again.
//
//   y^ = W^ x^ + b   =>   y^ = W^ x^ + b + d        d = E[W x + b] - E[W^ x^ + b], per output channel
//
// Rounding errors of weights are fixed numbers, so what they do to an output has a mean that is not zero; few weights
// per channel (depthwise convolutions) make it large.
//   empirical   E is the mean over the calibration samples, layer by layer: each sees the corrected ones before it
//   analytic    no samples: d = (W - W^) E[x], and E[x] follows from the BatchNormalization in front of the layer in
//   the
//               float model, whose outputs have mean B and deviation |scale|; behind Relu or Clip it is the mean of a
//               clipped normal distribution
// Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721),
// section 4.2 and appendix C; Finkelstein et al., "Fighting Quantization Bias With Bias" (arXiv 1906.03193).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "calib/channel_mean.h"
#include "pass/pass.h"
#include "quant/layer_levels.h"
#include "quant/rounding.h"

namespace onnxpress {
namespace {

enum class Method { automatic, empirical, analytic };

struct Options {
  Method method = Method::automatic;
};

class CorrectBias final : public Pass {
 public:
  explicit CorrectBias(const Options& options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("method", &Options::method,
               {{"auto", Method::automatic}, {"empirical", Method::empirical}, {"analytic", Method::analytic}},
               "auto is empirical with --data, else analytic");
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    const bool has_data = context.activations != nullptr;
    if (options_.method == Method::empirical && !has_data) return fail(Code::usage, "method=empirical needs --data");
    if (!context.reference) {
      context.journal.warning("no pass before it in this pipeline quantizes: there is no float model to compare with");
      return Outcome{};
    }
    const bool empirical = has_data && options_.method != Method::analytic;
    Outcome outcome;
    for (std::vector<QuantizedLayer>& level : layer_levels(model, context, empirical)) {
      std::erase_if(level, [&](const QuantizedLayer& layer) {
        if (layer.can_shift()) return false;
        context.skipped(layer.node, "nothing behind it adds a bias");
        return true;
      });
      if (level.empty()) continue;
      OP_LET(const bool changed, empirical ? measure(model, level, context) : derive(model, level, context));
      outcome.changed |= changed;
    }
    return outcome;
  }

 private:
  static Result<bool> measure(Model& model, std::span<const QuantizedLayer> layers, PassContext& context) {
    std::deque<MeanDifference> means;
    std::vector<PairTap> taps;
    for (const QuantizedLayer& layer : layers) {
      means.emplace_back(layer.node.is("Conv") ? 1 : -1, layer.shape.outputs);
      taps.push_back({layer.target(), std::string(layer.node.output(0)), &means.back()});
    }
    OP_TRY(collect_pairs_up_to(context, model, taps));
    Rewriter rewriter(model.main());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (const auto difference = means[i].mean())
        OP_TRY(shift(layers[i], *difference, rewriter, context));
      else
        context.skipped(layers[i].node, "its outputs are not finite, or have other shapes than in the reference");
    }
    return rewriter.commit();
  }

  static Result<bool> derive(Model& model, std::span<const QuantizedLayer> layers, PassContext& context) {
    Rewriter rewriter(model.main());
    for (const QuantizedLayer& layer : layers) {
      const auto means = mean_from_batchnorm(layer.reference.graph(), layer.reference.input(0));
      const std::size_t k = layer.shape.length;
      // Columns of one input channel lie together: the kernel of a Conv, the positions before a Flatten.
      const std::size_t per_channel = means && !means->empty() ? layer.shape.groups * k / means->size() : 0;
      if (!means || per_channel * means->size() != layer.shape.groups * k) {
        context.skipped(layer.node, "no BatchNormalization in the float model tells the mean of its input");
        continue;
      }
      OP_LET(const LayerNumbers numbers, read_layer(layer));
      std::vector<double> difference(layer.shape.outputs, 0);
      for (std::size_t c = 0; c < difference.size(); ++c)
        for (std::size_t i = 0; i < k; ++i) {
          const double error = numbers.weight[c * k + i] - numbers.codes[c * k + i] * double{numbers.scales[c]};
          difference[c] += error * (*means)[(c / layer.shape.outputs_per_group() * k + i) / per_channel];
        }
      OP_TRY(shift(layer, difference, rewriter, context));
    }
    return rewriter.commit();
  }

  static Status shift(const QuantizedLayer& layer, const std::vector<double>& difference, Rewriter& rewriter,
                      PassContext& context) {
    OP_LET(LayerNumbers numbers, read_layer(layer));
    double largest = 0;
    for (const double value : difference) largest = std::max(largest, std::abs(value));
    for (std::size_t c = 0; c < difference.size(); ++c)
      numbers.bias[c] += round_to_bits(difference[c], largest, kShiftBits);
    if (!write_bias(layer, numbers, rewriter)) {
      context.skipped(layer.node, "its outputs have the right means");
      return {};
    }
    context.done(layer.node, fmt::format("{} shifts, the largest {:.3g}", difference.size(), largest));
    return {};
  }

  static constexpr int kShiftBits = 10;  // of the largest shift; a mean over samples is known no better
  Options options_;
};

}  // namespace

PassInfo info_correct_bias() {
  return describe_pass<CorrectBias, Options>(
      {.summary = "Shifts biases so that quantized layers have the float model's mean outputs",
       .description =
           "y^ = W^ x^ + b  =>  y^ = W^ x^ + b + d with d = E[W x + b] - E[W^ x^ + b] per output channel\n\n"
           "Run it after quant-static (or a pass that quantizes weights only) in the same pipeline: the float model is "
           "what there was before. Conv, Gemm, and MatMul before an Add of a constant are corrected, front to back. "
           "With --data the means are measured; without, they follow from BatchNormalization (not yet folded) in front "
           "of the layer. Biases stay int32 in units of s_x s_w, or float where they are float; Conv and Gemm without "
           "a "
           "bias get one. Everything inside If, Loop and functions is left. round-adaptive does the same on the way.",
       .example = "fold-batchnorm,quant-static,correct-bias",
       .references = {"Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv "
                      "1906.04721",
                      "Finkelstein et al., Fighting Quantization Bias With Bias, arXiv 1906.03193"},
       .idempotent = false,
       .lossy = true});
}

}  // namespace onnxpress
