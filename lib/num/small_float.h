// Float formats of at most 16 bits, seen through one description: sign, exponent, mantissa. Inside lib/num only;
// others use the named functions of num/tensor.h.
#pragma once

#include <array>
#include <cstdint>

#include "num/tensor.h"

namespace onnxpress {

// A float format of at most 16 bits: sign, exponent, mantissa, most significant bit first.
struct SmallFloat {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  std::uint16_t max;       // magnitude code of the largest finite value
  std::uint16_t overflow;  // magnitude code of what lies beyond it: infinity, or max when saturating
  std::uint16_t nan;       // magnitude code; a fnuz format's only NaN is the code of -0
  bool fnuz;               // "finite, NaN, unsigned zero"
  bool has_infinity;
};

// The description of f16, bf16, the fp8 formats (saturating) and f4e2m1; null for every other type.
const SmallFloat* small_float(DType dtype);

// Rounds half to even from the exact value, so there is no double rounding by way of float.
std::uint16_t encode_small(double value, const SmallFloat& format);
double decode_small(std::uint16_t bits, const SmallFloat& format);

// The values of all codes of an 8-bit format, or (first 16) of the 4-bit one.
const std::array<float, 256>& small_float_table(DType dtype);

}  // namespace onnxpress
