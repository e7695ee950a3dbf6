#include "num/small_float.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

constexpr SmallFloat kHalf = {5, 10, 15, 0x7bff, 0x7c00, 0x7e00, false, true};
constexpr SmallFloat kBfloat16 = {8, 7, 127, 0x7f7f, 0x7f80, 0x7fc0, false, true};
constexpr SmallFloat kE4m3fn = {4, 3, 7, 0x7e, 0x7e, 0x7f, false, false};
constexpr SmallFloat kE4m3fnuz = {4, 3, 8, 0x7f, 0x7f, 0x80, true, false};
constexpr SmallFloat kE5m2 = {5, 2, 15, 0x7b, 0x7b, 0x7f, false, true};
constexpr SmallFloat kE5m2fnuz = {5, 2, 16, 0x7f, 0x7f, 0x80, true, false};
constexpr SmallFloat kE2m1 = {2, 1, 1, 0x7, 0x7, 0x7, false, false};  // no NaN: it becomes the largest value

}  // namespace

const SmallFloat* small_float(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return &kHalf;
    case DType::bf16:
      return &kBfloat16;
    case DType::f8e4m3fn:
      return &kE4m3fn;
    case DType::f8e4m3fnuz:
      return &kE4m3fnuz;
    case DType::f8e5m2:
      return &kE5m2;
    case DType::f8e5m2fnuz:
      return &kE5m2fnuz;
    case DType::f4e2m1:
      return &kE2m1;
    default:
      return nullptr;
  }
}

std::uint16_t encode_small(double value, const SmallFloat& format) {
  const int sign_shift = format.exponent_bits + format.mantissa_bits;
  const auto sign = static_cast<std::uint16_t>((std::signbit(value) ? 1 : 0) << sign_shift);
  if (std::isnan(value)) return format.fnuz ? format.nan : static_cast<std::uint16_t>(sign | format.nan);
  const double magnitude = std::fabs(value);
  std::uint16_t code = 0;
  if (std::isinf(magnitude)) {
    code = format.overflow;
  } else if (magnitude > 0) {
    const int exponent = std::max(std::ilogb(magnitude), 1 - format.bias);
    if (exponent + format.bias >= (1 << format.exponent_bits)) {
      code = format.overflow;
    } else {
      // Mantissa with its hidden bit; a carry out of it steps the exponent by plain addition.
      const auto mantissa = std::lrint(std::ldexp(magnitude, format.mantissa_bits - exponent));
      const long whole = (static_cast<long>(exponent + format.bias - 1) << format.mantissa_bits) + mantissa;
      code = whole > format.max ? format.overflow : static_cast<std::uint16_t>(whole);
    }
  }
  if (format.fnuz && code == 0) return 0;
  return static_cast<std::uint16_t>(sign | code);
}

double decode_small(std::uint16_t bits, const SmallFloat& format) {
  const int sign_shift = format.exponent_bits + format.mantissa_bits;
  const bool negative = (bits >> sign_shift & 1) != 0;
  const int magnitude = bits & ((1 << sign_shift) - 1);
  double value = 0;
  if (format.fnuz && negative && magnitude == 0) return std::numeric_limits<double>::quiet_NaN();
  if (format.has_infinity && magnitude >> format.mantissa_bits == (1 << format.exponent_bits) - 1) {
    const bool infinite = (magnitude & ((1 << format.mantissa_bits) - 1)) == 0;
    value = infinite ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  } else if (magnitude > format.max) {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    const int exponent = std::max(magnitude >> format.mantissa_bits, 1);
    const int hidden = magnitude - ((exponent - 1) << format.mantissa_bits);
    value = std::ldexp(static_cast<double>(hidden), exponent - format.bias - format.mantissa_bits);
  }
  return negative ? -value : value;
}

const std::array<float, 256>& small_float_table(DType dtype) {
  static constexpr std::array formats = {DType::f8e4m3fn, DType::f8e4m3fnuz, DType::f8e5m2, DType::f8e5m2fnuz,
                                         DType::f4e2m1};
  static const auto tables = [] {
    std::array<std::array<float, 256>, formats.size()> all = {};
    for (std::size_t f = 0; f < formats.size(); ++f) {
      for (std::size_t code = 0; code < 256; ++code) {
        all[f][code] = static_cast<float>(decode_small(static_cast<std::uint16_t>(code), *small_float(formats[f])));
      }
    }
    return all;
  }();
  const auto found = std::ranges::find(formats, dtype);
  assert(found != formats.end());
  return tables[static_cast<std::size_t>(found - formats.begin())];
}

// --- 16-bit floats, by bit manipulation: whole models go through them ---

float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  const std::uint32_t magnitude = bits & 0x7fffU;
  if (magnitude >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13U);
  if (magnitude >= 0x0400U) return std::bit_cast<float>(sign | ((magnitude << 13U) + ((127U - 15U) << 23U)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
}

std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16U & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  std::uint32_t code = 0;
  if (magnitude > 0x7f800000U) {
    code = 0x7e00U | (magnitude >> 13U & 0x3ffU);  // quiet, payload kept
  } else if (magnitude >= 0x477ff000U) {           // 65520, halfway to the value after the largest, rounds up
    code = 0x7c00U;
  } else if (magnitude >= 0x38800000U) {  // 2^-14, the smallest normal
    code = (magnitude - ((127U - 15U) << 23U) + 0xfffU + (magnitude >> 13U & 1U)) >> 13U;
  } else {
    // Adding 0.5 leaves multiples of 2^-24 in the low bits, rounded half to even by the addition itself.
    code = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<std::uint32_t>(0.5F);
  }
  return static_cast<std::uint16_t>(sign | code);
}

float bfloat16_to_float(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U); }

std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>(bits >> 16U | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16U & 1U)) >> 16U);
}

float fp8_to_float(std::uint8_t bits, DType format) { return small_float_table(format)[bits]; }

std::uint8_t float_to_fp8(float value, DType format) {
  assert(bit_width(format) == 8 && is_float(format));
  return static_cast<std::uint8_t>(encode_small(static_cast<double>(value), *small_float(format)));
}

float fp4_to_float(std::uint8_t nibble) { return small_float_table(DType::f4e2m1)[nibble & 15U]; }

std::uint8_t float_to_fp4(float value) {
  return static_cast<std::uint8_t>(encode_small(static_cast<double>(value), *small_float(DType::f4e2m1)));
}

}  // namespace onnxpress
