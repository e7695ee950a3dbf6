#include "num/quantize.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

// Shorter runs are not worth a call of the SIMD loop.
constexpr std::uint64_t kShortRun = 16;

void widen(MinMax& range, float value) {
  if (std::isfinite(value)) {
    range.merge({value + 0.0F, value + 0.0F, 1, 0});
  } else {
    ++range.non_finite;
  }
}

template <class T>
void dequantize_all(std::span<const T> q, AffineParams params, std::span<float> out) {
  assert(q.size() == out.size());
  for (std::size_t i = 0; i < q.size(); ++i) out[i] = dequantize_value(q[i], params);
}

Status check_count(std::size_t count, std::span<const std::int64_t> dims) {
  if (element_count(dims) == count) return {};
  return fail(Code::bad_input, "{} values do not fill the shape {}", count, dims_text(dims));
}

// Calls fn(channel, first, length) for every run of equal parameters, in memory order.
template <class Fn>
void for_each_run(const AxisLayout& layout, Fn&& fn) {
  for (std::uint64_t o = 0; o < layout.outer; ++o) {
    for (std::uint64_t c = 0; c < layout.channels; ++c) {
      fn(static_cast<std::size_t>(c), static_cast<std::size_t>((o * layout.channels + c) * layout.inner),
         static_cast<std::size_t>(layout.inner));
    }
  }
}

// One channel over everything when there is no axis. The parameters must be as many as the channels.
Result<AxisLayout> layout_of(std::span<const std::int64_t> dims, const TensorQuantization& how) {
  AxisLayout layout = {1, 1, element_count(dims).value_or(0)};
  if (how.axis) {
    OP_LET(layout, axis_layout(dims, *how.axis));
  }
  assert(how.params.size() == layout.channels);
  return layout;
}

template <class T>
void quantize_runs(std::span<const float> x, const AxisLayout& layout, const TensorQuantization& how,
                   std::span<T> out) {
  for_each_run(layout, [&](std::size_t channel, std::size_t first, std::size_t length) {
    if (length < kShortRun) {
      for (std::size_t i = first; i < first + length; ++i) {
        out[i] = static_cast<T>(quantize_value(x[i], how.params[channel], how.codes));
      }
    } else {
      quantize_span(x.subspan(first, length), how.params[channel], how.codes, out.subspan(first, length));
    }
  });
}

bool is_code_type(DType dtype) { return is_integer(dtype) && bit_width(dtype) <= 16; }

}  // namespace

CodeRange code_range(DType dtype, bool symmetric, bool reduce_range) {
  switch (dtype) {
    case DType::i4:
      return {-8, 7};
    case DType::u4:
      return {0, 15};
    case DType::i8:
      return reduce_range ? CodeRange{-64, 64} : CodeRange{symmetric ? -127 : -128, 127};
    case DType::u8:
      return {0, reduce_range ? 127 : 255};
    case DType::i16:
      return {symmetric ? -32767 : -32768, 32767};
    case DType::u16:
      return {0, 65535};
    case DType::i32:
      return {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
    default:
      assert(false);
      return {};
  }
}

AffineParams choose_affine(float min, float max, CodeRange codes, bool symmetric) {
  assert(std::isfinite(min) && std::isfinite(max) && min <= max);
  double low = std::min(static_cast<double>(min), 0.0), high = std::max(static_cast<double>(max), 0.0);
  if (symmetric) {
    high = std::max(-low, high);
    low = -high;
  }
  const double scale = (high - low) / (static_cast<double>(codes.max) - codes.min);
  if (scale < static_cast<double>(std::numeric_limits<float>::min())) return {1, 0};
  const double middle = symmetric ? (static_cast<double>(codes.min) + codes.max) / 2 : codes.min - low / scale;
  const double zero_point = std::clamp<double>(std::nearbyint(middle), codes.min, codes.max);
  return {static_cast<float>(scale), static_cast<std::int32_t>(zero_point)};
}

AffineParams choose_affine(float min, float max, DType dtype, bool symmetric, bool reduce_range) {
  return choose_affine(min, max, code_range(dtype, symmetric, reduce_range), symmetric);
}

std::int32_t quantize_value(float x, AffineParams params, CodeRange codes) {
  const float quotient = x / params.scale;
  if (std::isnan(quotient)) return std::clamp(params.zero_point, codes.min, codes.max);
  const auto low = static_cast<float>(codes.min - params.zero_point);
  const auto high = static_cast<float>(codes.max - params.zero_point);
  return static_cast<std::int32_t>(std::nearbyint(std::clamp(quotient, low, high))) + params.zero_point;
}

void quantize_bias(std::span<const float> x, double scale, std::span<std::int32_t> out) {
  assert(x.size() == out.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double quotient = static_cast<double>(x[i]) / scale;
    constexpr auto limits = std::numeric_limits<std::int32_t>();
    out[i] = std::isnan(quotient)
                 ? 0
                 : static_cast<std::int32_t>(std::clamp<double>(std::nearbyint(quotient), limits.min(), limits.max()));
  }
}

void dequantize_span(std::span<const std::int8_t> q, AffineParams params, std::span<float> out) {
  dequantize_all(q, params, out);
}
void dequantize_span(std::span<const std::uint8_t> q, AffineParams params, std::span<float> out) {
  dequantize_all(q, params, out);
}
void dequantize_span(std::span<const std::int32_t> q, AffineParams params, std::span<float> out) {
  dequantize_all(q, params, out);
}

MinMax& MinMax::merge(const MinMax& other) {
  if (other.finite > 0) {
    min = finite > 0 ? std::min(min, other.min) : other.min;
    max = finite > 0 ? std::max(max, other.max) : other.max;
  }
  finite += other.finite;
  non_finite += other.non_finite;
  return *this;
}

Result<AxisLayout> axis_layout(std::span<const std::int64_t> dims, std::int64_t axis) {
  const auto rank = static_cast<std::int64_t>(dims.size());
  const std::int64_t at = axis < 0 ? axis + rank : axis;
  if (at < 0 || at >= rank) return fail(Code::bad_input, "a tensor of shape {} has no axis {}", dims_text(dims), axis);
  if (!element_count(dims)) return fail(Code::bad_input, "the shape {} is not possible", dims_text(dims));
  const auto cut = static_cast<std::size_t>(at);
  AxisLayout layout;
  layout.channels = static_cast<std::uint64_t>(dims[cut]);
  // With a zero among them the product of the rest may be too large to count; there is nothing to walk then.
  layout.outer = element_count(dims.first(cut)).value_or(0);
  layout.inner = element_count(dims.subspan(cut + 1)).value_or(0);
  if (layout.outer == 0 || layout.inner == 0) layout.outer = layout.inner = 0;
  return layout;
}

Result<std::vector<MinMax>> min_max_per_channel(std::span<const float> x, std::span<const std::int64_t> dims,
                                                std::int64_t axis) {
  OP_TRY(check_count(x.size(), dims));
  OP_LET(const AxisLayout layout, axis_layout(dims, axis));
  if (x.empty() && layout.channels > std::uint64_t{1} << 32) {
    return fail(Code::bad_input, "the shape {} has too many channels", dims_text(dims));
  }
  std::vector<MinMax> ranges(static_cast<std::size_t>(layout.channels));
  for_each_run(layout, [&](std::size_t channel, std::size_t first, std::size_t length) {
    if (length < kShortRun) {
      for (std::size_t i = first; i < first + length; ++i) widen(ranges[channel], x[i]);
    } else {
      ranges[channel].merge(min_max(x.subspan(first, length)));
    }
  });
  return ranges;
}

Result<std::vector<float>> absmax_per_channel(std::span<const float> x, std::span<const std::int64_t> dims,
                                              std::int64_t axis) {
  OP_LET(const std::vector<MinMax> ranges, min_max_per_channel(x, dims, axis));
  std::vector<float> out(ranges.size());
  std::ranges::transform(ranges, out.begin(), &MinMax::absmax);
  return out;
}

Result<TensorQuantization> choose_tensor(std::span<const float> x, std::span<const std::int64_t> dims, DType dtype,
                                         bool symmetric, std::optional<std::int64_t> axis, bool reduce_range) {
  assert(is_code_type(dtype));
  OP_TRY(check_count(x.size(), dims));
  std::vector<MinMax> ranges;
  if (axis) {
    OP_LET(ranges, min_max_per_channel(x, dims, *axis));
  } else {
    ranges.push_back(min_max(x));
  }
  TensorQuantization how = {dtype, code_range(dtype, symmetric, reduce_range), {}, axis};
  for (const MinMax& range : ranges) {
    if (range.non_finite > 0) return fail(Code::bad_input, "the values include NaN or infinity");
    how.params.push_back(choose_affine(range.min, range.max, how.codes, symmetric));
  }
  return how;
}

Result<Tensor> quantize_tensor(std::span<const float> x, const Dims& dims, const TensorQuantization& how) {
  assert(is_code_type(how.dtype));
  OP_TRY(check_count(x.size(), dims));
  OP_LET(const AxisLayout layout, layout_of(dims, how));
  const auto into = [&]<class T>(T, DType dtype) {
    Tensor out(dtype, dims);
    quantize_runs(x, layout, how, out.as_mutable<T>());
    return out;
  };
  switch (how.dtype) {
    case DType::i8:
      return into(std::int8_t{}, DType::i8);
    case DType::u8:
      return into(std::uint8_t{}, DType::u8);
    case DType::i16:
      return into(std::int16_t{}, DType::i16);
    case DType::u16:
      return into(std::uint16_t{}, DType::u16);
    case DType::i4:
      return convert(into(std::int8_t{}, DType::i8).view(), DType::i4);
    default:
      return convert(into(std::uint8_t{}, DType::u8).view(), DType::u4);
  }
}

Result<Tensor> dequantize_tensor(const TensorView& q, const TensorQuantization& how) {
  assert(is_code_type(how.dtype) && q.dtype == how.dtype);
  OP_LET(const std::vector<float> codes, to_floats(q));  // at most 16 bits: exact
  OP_LET(const AxisLayout layout, layout_of(q.dims, how));
  Tensor out(DType::f32, Dims(q.dims.begin(), q.dims.end()));
  const auto values = out.as_mutable<float>();
  for_each_run(layout, [&](std::size_t channel, std::size_t first, std::size_t length) {
    for (std::size_t i = first; i < first + length; ++i) {
      values[i] = dequantize_value(static_cast<std::int32_t>(codes[i]), how.params[channel]);
    }
  });
  return out;
}

}  // namespace onnxpress
