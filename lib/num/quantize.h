// Integer quantization, number by number: q = saturate(round_half_even(x / scale) + zero_point), back (q - zero_point)
// * scale, as ONNX QuantizeLinear and DequantizeLinear define them. Parameters follow the conventions of ONNX Runtime's
// own quantizer, so that both tools give one model the same numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "num/tensor.h"

namespace onnxpress {

struct AffineParams {
  float scale = 1;
  std::int32_t zero_point = 0;
  bool operator==(const AffineParams&) const = default;
};

// The codes that are used, ends included.
struct CodeRange {
  std::int32_t min = 0;
  std::int32_t max = 0;
  bool operator==(const CodeRange&) const = default;
};

// i4 -8..7, u4 0..15, i8 -128..127 (symmetric -127..127), u8 0..255, i16 likewise, u16, i32. `reduce_range` gives away
// one bit of i8 and u8 (-64..64, 0..127), for CPUs whose 8-bit products saturate in 16 bits. Any other type is a bug.
CodeRange code_range(DType dtype, bool symmetric, bool reduce_range = false);

// Scale and zero point for real values in [min, max] (finite; 0 is added to the range). Computed in double, stored in
// float. Symmetric: the zero point is the middle of the codes (0, or 128 for u8) and the range is +-max(|min|, |max|).
// A range too small for a normal float scale, all zeros too: scale 1, zero point 0.
AffineParams choose_affine(float min, float max, CodeRange codes, bool symmetric);
AffineParams choose_affine(float min, float max, DType dtype, bool symmetric, bool reduce_range = false);

// One value. The division is done in float, as the runtime does; NaN becomes the zero point.
std::int32_t quantize_value(float x, AffineParams params, CodeRange codes);
inline float dequantize_value(std::int32_t q, AffineParams params) {
  return static_cast<float>(q - params.zero_point) * params.scale;
}

// quantize_value over spans of equal length; SIMD, the same bits on every machine.
void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::int8_t> out);
void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::uint8_t> out);
void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::int16_t> out);
void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::uint16_t> out);
// Biases: zero point 0, all of int32, division in double because float cannot tell large codes apart.
void quantize_bias(std::span<const float> x, double scale, std::span<std::int32_t> out);

void dequantize_span(std::span<const std::int8_t> q, AffineParams params, std::span<float> out);
void dequantize_span(std::span<const std::uint8_t> q, AffineParams params, std::span<float> out);
void dequantize_span(std::span<const std::int32_t> q, AffineParams params, std::span<float> out);

// Smallest and largest finite value; both 0 when there is none. Never -0.
struct MinMax {
  float min = 0;
  float max = 0;
  std::uint64_t finite = 0;
  std::uint64_t non_finite = 0;  // NaN and infinities, left out above

  float absmax() const { return max > -min ? max : -min; }
  MinMax& merge(const MinMax& other);
  bool operator==(const MinMax&) const = default;
};
MinMax min_max(std::span<const float> x);

// A tensor cut at `axis`: element (o, c, i) lies at (o * channels + c) * inner + i. A negative axis counts from the
// end.
struct AxisLayout {
  std::uint64_t outer = 1;
  std::uint64_t channels = 1;
  std::uint64_t inner = 1;
};
// Error bad_input when there is no such axis.
Result<AxisLayout> axis_layout(std::span<const std::int64_t> dims, std::int64_t axis);

// Per index along `axis`, over all other axes. The values are row-major of shape dims.
Result<std::vector<MinMax>> min_max_per_channel(std::span<const float> x, std::span<const std::int64_t> dims,
                                                std::int64_t axis);
// The largest finite |x| of each channel.
Result<std::vector<float>> absmax_per_channel(std::span<const float> x, std::span<const std::int64_t> dims,
                                              std::int64_t axis);

// How a whole tensor is quantized: one AffineParams, or one per index along `axis`.
struct TensorQuantization {
  DType dtype = DType::i8;  // i4, u4, i8, u8, i16, u16
  CodeRange codes;
  std::vector<AffineParams> params;
  std::optional<std::int64_t> axis;
};
// Min/max parameters of `x`, per channel when an axis is given. Error bad_input: NaN or infinity in x, no such axis.
Result<TensorQuantization> choose_tensor(std::span<const float> x, std::span<const std::int64_t> dims, DType dtype,
                                         bool symmetric, std::optional<std::int64_t> axis, bool reduce_range = false);
// A tensor of `how.dtype` (4-bit types packed) and the float values it stands for.
Result<Tensor> quantize_tensor(std::span<const float> x, const Dims& dims, const TensorQuantization& how);
Result<Tensor> dequantize_tensor(const TensorView& q, const TensorQuantization& how);

}  // namespace onnxpress
