// What choosing a scale asks about the codes it would give, without writing them. SIMD, the same bits on every machine.
#pragma once

#include <cstdint>
#include <span>

#include "num/quantize.h"

namespace onnxpress {

// sum (x - dequantize(quantize(x)))^2, as quantize_value() and dequantize_value() round.
double quantization_error(std::span<const float> x, AffineParams params, CodeRange codes);

// sum x^2.
double sum_of_squares(std::span<const float> x);

// The largest |a + b| of the codes a, b of neighbours (x0, x1), (x2, x3), ... that have one sign; 0 when there is none.
// Zero point 0, codes of at most 16 bits.
std::int32_t largest_pair(std::span<const float> x, float scale, CodeRange codes);

}  // namespace onnxpress
