// quant-qoperator: the integer operators that ONNX Runtime fuses a QDQ model into, written down.
//
//   f = Q(Relu(Conv(DQ(a), DQ(w8), DQ(b32))))   =>   f = QLinearConv(a, s_a, z_a, w8, s_w, z_w, s_f, z_f, b32)
//
//   f = round(s_a s_w / s_f * (sum (a - z_a)(w8 - z_w) + b32)) + z_f, saturated to 8 bits
//
// The same kernels then run in runtimes too old to fuse, and with graph optimizations off. Groups that the runtime
// would leave in float (onnxpress lint) are left as they are.
// Source: ONNX QLinearConv and QLinearMatMul; ONNX Runtime contrib operators (QGemm, QLinearAdd, ...).
#include "quant/qoperator.h"

#include "pass/pass.h"
#include "quant/target.h"

namespace onnxpress {
namespace {

struct Options {
  Target target = Target::automatic;
};

class QuantQoperator final : public Pass {
 public:
  explicit QuantQoperator(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("target", &Options::target, target_choices(),
               "what the model will run on; auto is this machine. int8 activations are only converted for ort-arm64");
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    OP_LET(const bool changed, to_qoperator(model, context, resolve(options_.target) == Target::ort_arm64));
    return Outcome{changed};
  }

 private:
  Options options_;
};

}  // namespace

PassInfo info_quant_qoperator() {
  return describe_pass<QuantQoperator, Options>(
      {.summary = "QDQ groups become the integer operators the runtime would fuse them into (QOperator form)",
       .description =
           "QuantizeLinear(Conv(DequantizeLinear(a), DequantizeLinear(w)))  =>  QLinearConv(a, ..., w, ...)\n\n"
           "Conv, MatMul, Gemm, Add, Mul, Concat, pools, Sigmoid, LeakyRelu, Softmax and Where between 8-bit codes "
           "become QLinearConv, QLinearMatMul, com.microsoft.MatMulIntegerToFloat, com.microsoft.QGemm and "
           "com.microsoft.QLinear*; data movement runs on the codes. Exactly the groups that ONNX Runtime would fuse "
           "are rewritten, so results are those of the QDQ model as the runtime executes it. What stays float keeps "
           "its conversions. Run quant-repair first on models of other tools.",
       .example = "quant-static,quant-qoperator",
       .references = {"ONNX QLinearConv, QLinearMatMul", "ONNX Runtime contrib operators"},
       .lossy = true});
}

}  // namespace onnxpress
