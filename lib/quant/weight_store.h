// Quantized weights that a float (or integer) kernel reads: small in the file, computed back by standard operators.
//
//   store       w = Mul(Cast(codes), scale)                          runtimes fold constants at load: float speed,
//   float
//               w = Mul(Gather(table, Cast(packed)), scale)          memory, small file
//   dequantize  w = DequantizeLinear(codes, scale, zero_point)       the form of the specification; ONNX Runtime
//                                                                    dequantizes again in every run (measured: 10x
//                                                                    slower on a MatMul), so only for other runtimes
//
// 4-bit codes have no place in a tensor before opset 21, and kernels for them are rare. They lie two in a byte, and one
// Gather in a table of 256 pairs unpacks them: at load, in any runtime that folds constants.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "ir/rewriters.h"
#include "quant/weight.h"

namespace onnxpress {

enum class WeightForm { store, dequantize };

class WeightStore {
 public:
  WeightStore(Model& model, Rewriters& rewriters) : model_(model), rewriters_(rewriters) {}

  // The value `job.name` keeps its name, type and readers, and is computed from the codes from now on: nodes at the
  // head of the scope that defines it. The job must not transpose or scale; a block divides the
  // reduction. `dequantize` needs opset 13 for scales per channel, 21 with blocks or
  // 4 bits, 19 for half-precision weights.
  Status replace(const WeightJob& job, QuantizedWeight weight, WeightForm form);

  // Nodes that unpack 4-bit codes (DType::i4: to -8..7, u4: to 0..15) to one element each, of type `to` (int8, uint8 or
  // a float type), at the head of `scope`. Returns the value; ONNX Runtime folds it, so that kernels fuse as if it were
  // an initializer.
  Result<std::string> unpack(Graph& scope, std::string_view name, const Tensor& codes, DType to);

  // The initializer [256, 2] of the main graph with the two codes of every byte, less a zero point.
  Result<std::string> table(DType codes, DType to, std::int32_t zero_point = 0);
  // The bytes of 4-bit codes as a uint8 tensor [bytes].
  static Tensor packed(const Tensor& codes);

 private:
  Status dequantize(const WeightJob& job, QuantizedWeight weight, Graph& scope, DType dtype);
  Status compute(const WeightJob& job, QuantizedWeight weight, Graph& scope, DType dtype);

  Model& model_;
  Rewriters& rewriters_;
  std::map<std::tuple<DType, DType, std::int32_t>, std::string> tables_;
};

}  // namespace onnxpress
