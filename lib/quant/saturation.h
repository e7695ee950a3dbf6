// Where 8-bit products saturate on x86 without VNNI: two neighbouring products u8 * s8 are summed in 16 bits.
#pragma once

#include <cstddef>
#include <optional>

#include "ir/model.h"

namespace onnxpress {

struct Saturation {
  std::size_t channels = 0;    // output channels of the weight
  std::size_t saturating = 0;  // in which some pair of codes of one sign sums to more than 128 in magnitude
};

// For Conv, Gemm, MatMul behind DequantizeLinear, QLinearConv, QLinearMatMul, MatMulInteger, com.microsoft.QGemm,
// MatMulIntegerToFloat, DynamicQuantizeMatMul with constant int8 weights. nullopt for everything else, and where the
// runtime multiplies in 16 bits (depthwise convolutions). Error io when the weight cannot be read.
Result<std::optional<Saturation>> saturation_of(const Node& node);

}  // namespace onnxpress
