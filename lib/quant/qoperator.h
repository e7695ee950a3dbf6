// QDQ groups as the integer operators a runtime would fuse them into: the graph then runs in integers without the
// runtime's optimizer.
#pragma once

#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress {

// Rewrites every group that predict_fusion() says becomes an integer kernel and whose parameters are written down:
//   Conv QLinearConv · MatMul QLinearMatMul, without codes behind it com.microsoft.MatMulIntegerToFloat · Gemm
//   com.microsoft.QGemm · Add Mul Concat AveragePool GlobalAveragePool Sigmoid LeakyRelu Softmax Where
//   com.microsoft.QLinear* · data movement on codes
// Others are journaled with the reason. True when the model changed. Error io when tensors cannot be read or stored.
Result<bool> to_qoperator(Model& model, PassContext& context, bool int8_activations);

}  // namespace onnxpress
