// round-adaptive: integer weights rounded so that layer outputs, not weights, are close to the float model's.
//
//   y^ = DQ(q, s) x^ + b^        q, s, b^  =>  argmin  sum over samples ||W x + b - (s q x^ + b^)||^2
//
// x^ is what the layer reads in the quantized model so far, W x + b what the float model gives there. The error is a
// quadratic form of the codes: G = sum x^ x^' and h = sum y x^' are all it takes (lib/calib/gram.h), so no sample is
// kept and nothing is trained. Codes come from sequential rounding with error feedback and then descent over codes
// (lib/quant/rounding.h); the bias takes the mean error. Layers are done front to back: each sees the errors of those
// before it, activations included, and makes up for them. A layer whose new codes do worse on samples held out keeps
// the old ones.
// Source: the objective is that of Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (arXiv
// 2004.10568); the solver follows Frantar et al., "GPTQ" (arXiv 2210.17323).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "calib/gram.h"
#include "pass/pass.h"
#include "quant/layer_levels.h"
#include "quant/round_layer.h"

namespace onnxpress {
namespace {

struct Options {
  bool sequential = true;
  bool scales = true;
  std::optional<double> damping = {};
  std::int64_t max_move = 0;
  std::int64_t positions = 64;
};

std::string decibel(double relative_error) {
  return relative_error > 0 ? fmt::format("{:.1f} dB", -10 * std::log10(relative_error)) : "exact";
}

class RoundAdaptive final : public Pass {
 public:
  explicit RoundAdaptive(const Options& options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema
        .add("sequential", &Options::sequential,
             "layer by layer, each with the input that the quantized layers before it give; else all at once, each "
             "with the float model's input")
        .add("scales", &Options::scales, "also choose scales, where there is one per output channel")
        .add("damping", &Options::damping,
             "how strongly codes are tied to the float weights, relative to the power of their inputs; not given: what "
             "does best on every fifth sample",
             {0, {}})
        .add("max_move", &Options::max_move,
             "at most so many steps away from the nearest code of the float weight; 0 is no limit", {0, 255})
        .add("positions", &Options::positions, "output positions of a sample that are looked at, drawn with the seed",
             {1, {}});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (context.activations == nullptr) return fail(Code::usage, "it needs --data");
    if (!context.reference) {
      context.journal.warning("no pass before it in this pipeline quantizes: there is no float model to compare with");
      return Outcome{};
    }
    const std::uint64_t budget = context.memory_limit == 0 ? kSums : context.memory_limit;
    Outcome outcome;
    for (const std::vector<QuantizedLayer>& level : layer_levels(model, context, options_.sequential)) {
      OP_LET(const bool changed,
             in_groups<QuantizedLayer>(
                 level, budget,
                 [](const QuantizedLayer& layer) { return 3 * gram_bytes(layer.shape) + layer_bytes(layer); },
                 [&](std::span<const QuantizedLayer> layers) { return round_group(model, layers, context); }));
      outcome.changed |= changed;
    }
    return outcome;
  }

 private:
  Result<bool> round_group(Model& model, std::span<const QuantizedLayer> layers, PassContext& context) const {
    std::vector<std::unique_ptr<GramAccumulator>> sums;
    std::vector<PairTap> taps;
    for (const QuantizedLayer& layer : layers) {
      sums.push_back(
          std::make_unique<GramAccumulator>(layer.shape, static_cast<std::size_t>(options_.positions), context.seed));
      // Were all layers to make up at once for the errors before them, every error would be made up for many times.
      const std::string alone(layer.reference.input(0));
      taps.push_back({layer.target(), options_.sequential ? layer.input() : alone, sums.back().get()});
    }
    OP_TRY(collect_pairs_up_to(context, options_.sequential ? model : *context.reference, taps));
    Rewriter rewriter(model.main());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      OP_TRY(round_one(layers[i], *sums[i], rewriter, context));
      sums[i].reset();
    }
    return rewriter.commit();
  }

  Status round_one(const QuantizedLayer& layer, GramAccumulator& sums, Rewriter& rewriter, PassContext& context) const {
    if (const std::string trouble = sums.finish(); !trouble.empty()) {
      context.skipped(layer.node, trouble);
      return {};
    }
    auto numbers = read_layer(layer);
    if (!numbers) return rethrow(std::move(numbers).error(), "node '" + layer.node.label() + "'");
    const RoundLayerSettings settings{
        .damping = options_.damping, .max_move = options_.max_move, .scales = options_.scales, .jobs = context.jobs};
    auto result = round_layer(layer, *numbers, sums.fitted(), sums.held_out(), settings);
    if (!result) return rethrow(std::move(result).error(), "node '" + layer.node.label() + "'");
    const bool weight = result->numbers.codes != numbers->codes || result->numbers.scales != numbers->scales;
    const bool bias = result->shifted && result->numbers.bias != numbers->bias;
    if (!weight && !bias) {
      context.skipped(layer.node, "its codes are the best on samples held out");
      return {};
    }
    if (weight) write_weight(layer, result->numbers, rewriter);
    if (layer.can_shift()) write_bias(layer, result->numbers, rewriter);
    std::size_t moved = 0;
    for (std::size_t i = 0; i < numbers->codes.size(); ++i) moved += result->numbers.codes[i] != numbers->codes[i];
    context.done(layer.node, weight ? fmt::format("{} of {} codes changed, damping {}: output SQNR {} -> {}", moved,
                                                  numbers->codes.size(), result->damping, decibel(result->error_before),
                                                  decibel(result->error_after))
                                    : fmt::format("bias only: output SQNR {} -> {}", decibel(result->error_before),
                                                  decibel(result->error_after)));
    return {};
  }

  static constexpr std::uint64_t kSums = std::uint64_t{1} << 30;  // bytes of sums without --memory-limit
  Options options_;
};

}  // namespace

PassInfo info_round_adaptive() {
  return describe_pass<RoundAdaptive, Options>(
      {.summary = "Rounds integer weights anew so that the outputs of layers come close to the float model's",
       .description =
           "y^ = DQ(q, s) x^ + b^: q, s and b^  =>  argmin sum ||W x + b - (s q x^ + b^)||^2 over the calibration "
           "samples\n\n"
           "Run it after quant-static (or a pass that quantizes weights only) in the same pipeline: the float model is "
           "what there was before. For every Conv, Gemm and MatMul whose weight is read through DequantizeLinear the "
           "second moments of its input and of the wanted output are summed up; codes are rounded one after the other "
           "with the error carried on, then moved as long as that helps; the bias takes the mean error, so that "
           "correct-bias has nothing left to do. Front to back, every layer also makes up for the errors of those "
           "before it. Codes that do worse than the old ones on every fifth sample, which is held out, are not "
           "taken.\n\n"
           "Scales stay one per channel, int32 biases in units of s_x s_w, and codes that were clear of 16-bit "
           "saturation stay so. Shared weights, weights with a scale per block and everything inside If, Loop and "
           "functions are left.",
       .example = "fold-batchnorm,quant-static,round-adaptive",
       .references = {"Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization, arXiv 2004.10568",
                      "Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained "
                      "Transformers, arXiv 2210.17323"},
       .idempotent = false,
       .lossy = true,
       .needs_data = true});
}

}  // namespace onnxpress
