// The hot loops of quantization, compiled once per instruction set and chosen when the program runs. Every operation
// in them is exact or rounds once by IEEE 754, so that each instruction set gives the bits of quantize_value().
#include "num/quantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "num/quantize_simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class T>
void quantize_loop(const float* x, std::size_t n, AffineParams params, CodeRange codes, T* out) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> d32;
  const hn::Rebind<T, decltype(d)> narrow;
  const auto scale = hn::Set(d, params.scale);
  const auto zero_point = hn::Set(d32, params.zero_point);
  const auto low = hn::Set(d, static_cast<float>(codes.min - params.zero_point));
  const auto high = hn::Set(d, static_cast<float>(codes.max - params.zero_point));
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto quotient = hn::Div(hn::LoadU(d, x + i), scale);
    const auto number = hn::IfThenZeroElse(hn::IsNaN(quotient), quotient);
    // Clamped before rounding: the ends are integers, so the order does not matter, and Round stays in range.
    const auto rounded = hn::Round(hn::Min(hn::Max(number, low), high));
    const auto code = hn::Add(hn::ConvertTo(d32, rounded), zero_point);
    hn::StoreU(hn::DemoteTo(narrow, code), narrow, out + i);
  }
  for (; i < n; ++i) out[i] = static_cast<T>(quantize_value(x[i], params, codes));
}

void quantize_i8(const float* x, std::size_t n, AffineParams params, CodeRange codes, std::int8_t* out) {
  quantize_loop(x, n, params, codes, out);
}
void quantize_u8(const float* x, std::size_t n, AffineParams params, CodeRange codes, std::uint8_t* out) {
  quantize_loop(x, n, params, codes, out);
}
void quantize_i16(const float* x, std::size_t n, AffineParams params, CodeRange codes, std::int16_t* out) {
  quantize_loop(x, n, params, codes, out);
}
void quantize_u16(const float* x, std::size_t n, AffineParams params, CodeRange codes, std::uint16_t* out) {
  quantize_loop(x, n, params, codes, out);
}

MinMax min_max_loop(const float* x, std::size_t n) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  auto low = hn::Set(d, HUGE_VALF);
  auto high = hn::Set(d, -HUGE_VALF);
  std::size_t finite = 0, i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = hn::LoadU(d, x + i);
    const auto good = hn::IsFinite(value);
    low = hn::Min(low, hn::IfThenElse(good, value, low));
    high = hn::Max(high, hn::IfThenElse(good, value, high));
    finite += hn::CountTrue(d, good);
  }
  float least = hn::ReduceMin(d, low), most = hn::ReduceMax(d, high);
  for (; i < n; ++i) {
    if (!std::isfinite(x[i])) continue;
    least = std::min(least, x[i]);
    most = std::max(most, x[i]);
    ++finite;
  }
  if (finite == 0) return {0, 0, 0, n};
  // Adding zero turns -0, whose place among zeros depends on the lane order, into +0.
  return {least + 0.0F, most + 0.0F, finite, n - finite};
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(quantize_i8);
HWY_EXPORT(quantize_u8);
HWY_EXPORT(quantize_i16);
HWY_EXPORT(quantize_u16);
HWY_EXPORT(min_max_loop);

}  // namespace

void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::int8_t> out) {
  assert(x.size() == out.size());
  HWY_DYNAMIC_DISPATCH(quantize_i8)(x.data(), x.size(), params, codes, out.data());
}

void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::uint8_t> out) {
  assert(x.size() == out.size());
  HWY_DYNAMIC_DISPATCH(quantize_u8)(x.data(), x.size(), params, codes, out.data());
}

void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::int16_t> out) {
  assert(x.size() == out.size());
  HWY_DYNAMIC_DISPATCH(quantize_i16)(x.data(), x.size(), params, codes, out.data());
}

void quantize_span(std::span<const float> x, AffineParams params, CodeRange codes, std::span<std::uint16_t> out) {
  assert(x.size() == out.size());
  HWY_DYNAMIC_DISPATCH(quantize_u16)(x.data(), x.size(), params, codes, out.data());
}

MinMax min_max(std::span<const float> x) { return HWY_DYNAMIC_DISPATCH(min_max_loop)(x.data(), x.size()); }

}  // namespace onnxpress
#endif
