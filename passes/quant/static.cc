// quant-static: 8-bit integer inference with ranges measured on calibration data.
//
//   y = Relu(Conv(x, w, b))   =>   x' = DQ(Q(x));  c = Conv(x', DQ(w8), DQ(b32));  y' = DQ(Q(Relu(c)))
//
// Q and DQ are QuantizeLinear and DequantizeLinear; a runtime fuses each such group into one integer kernel
// (QLinearConv, QGemm, QLinearAdd, ...). Pairs stand only where that happens and pays: which nodes run in integers is
// the cheapest choice, over the whole graph, of the times of nodes and of the conversions between them, a minimum cut.
//   activations  uint8, one scale:  s = (max - min) / 255, z = round(-min / s), range measured and made to include 0
//   weights      int8, symmetric, one scale per output channel:  s = max|w| / 127
//   bias         int32 with scale s_x * s_w; where it would not fit, s_w of that channel is raised until it does
// Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
// Inference" (arXiv 1712.05877); QuantizeLinear and DequantizeLinear of the ONNX specification.
#include "quant/static.h"

#include "pass/pass.h"
#include "quant/qoperator.h"

namespace onnxpress {
namespace {

enum class OutputForm { qdq, qoperator };

// For users: integers where they pay. Passes that measure what a node costs in accuracy want all of them.
struct Options : StaticSettings {
  OutputForm format = OutputForm::qdq;
  Options() { placement = Placement::cost; }
};

class QuantStatic final : public Pass {
 public:
  explicit QuantStatic(Options options) : options_(std::move(options)) {}

  static void describe(Schema<Options>& schema) {
    const auto own = []<class T>(T StaticSettings::* member) -> T Options::* { return member; };
    schema
        .add("per_channel", own(&StaticSettings::per_channel),
             "one weight scale per output channel (opset 13 and later)")
        .add("target", own(&StaticSettings::target), target_choices(),
             "what the model will run on; auto is this machine. On ort-x86 (no VNNI) scales of weights whose products "
             "could saturate are raised; tensorrt takes symmetric int8 on what a layer reads")
        .add("placement", own(&StaticSettings::placement), {{"cost", Placement::cost}, {"all", Placement::all}},
             "which nodes run in integers: where it pays by the target's measured costs (all where there are none), or "
             "all that can")
        .add("activations", own(&StaticSettings::activations), activation_choices(),
             "codes of activations; auto is what the target computes fastest. 16 bits show what activations cost in "
             "accuracy: ONNX Runtime computes them in float")
        .add("weights", own(&StaticSettings::weights),
             {{"int8", WeightFormat::int8}, {"uint8", WeightFormat::uint8}, {"int4", WeightFormat::int4}},
             "codes of weights; int4 is unpacked to int8 when the model is loaded")
        .add("clip", own(&StaticSettings::clip), {{"minmax", WeightClip::minmax}, {"mse", WeightClip::mse}},
             "how far weight scales reach: to the largest weight, or where the squared error is smallest")
        .add("format", &Options::format, {{"qdq", OutputForm::qdq}, {"qoperator", OutputForm::qoperator}},
             "QuantizeLinear/DequantizeLinear pairs for the runtime to fuse, or the integer operators it would fuse "
             "them into, for runtimes that do not")
        .add(
            "store", own(&StaticSettings::store),
            "weights of nodes that stay float because integers do not pay become int8 in the file and float again when "
            "the model is loaded")
        .add("attention", own(&StaticSettings::attention), "products of two activations, and Softmax, in integers too")
        .add_part(own(&StaticSettings::ranges));
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    OP_LET(const bool changed, quantize_static(model, context, options_));
    if (changed && options_.format == OutputForm::qoperator)
      OP_TRY(to_qoperator(model, context, resolve(options_.target) == Target::ort_arm64));
    return Outcome{changed};
  }

 private:
  Options options_;
};

}  // namespace

PassInfo info_quant_static() {
  return describe_pass<QuantStatic, Options>(
      {.summary = "8-bit integer inference with ranges measured on calibration data (static quantization, QDQ)",
       .description =
           "y = Relu(Conv(x, w, b))  =>  QuantizeLinear/DequantizeLinear pairs that the runtime fuses into "
           "QLinearConv\n\n"
           "Conv, Gemm and MatMul with constant weights run on codes of activations and int8 weights; Add, Mul, "
           "Concat, "
           "pools, LeakyRelu, Sigmoid and data movement join them where that saves conversions. Which nodes do is the "
           "minimum cut of a graph of measured times (placement=cost), so that the result is not slower than the float "
           "model; whatever stays float is reported with the reason. Bodies of If, Loop and Scan are calibrated and "
           "quantized in their own scope; what the samples never run stays float. Weights are symmetric with one scale "
           "per output channel; biases are int32; a Relu or Clip is absorbed by codes that end at its bounds. A Concat "
           "of values of very different size (boxes and scores of a detector) stays float, with a warning. Models "
           "below "
           "opset 13 are converted up. Run @clean before it.",
       .example = "fold-batchnorm,quant-static{skip=op:Gemm}",
       .references = {"Jacob et al., arXiv 1712.05877", "ONNX QuantizeLinear, DequantizeLinear"},
       .lossy = true,
       .needs_data = true,
       .spares_data = [](const void* o) { return !static_cast<const Options*>(o)->ranges.stats.empty(); },
       .quantizes = true});
}

}  // namespace onnxpress
