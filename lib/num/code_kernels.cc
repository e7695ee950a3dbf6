// Loops of the scale search, compiled once per instruction set. Sums run over a fixed number of lanes in a fixed order
// and without fused multiply-add, so that every instruction set gives the same bits.
#include "num/code_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "num/code_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cassert>

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kLanes = 16;   // partial sums, whatever the vector length
constexpr std::size_t kChunk = 512;  // elements summed in float before the sums go to double

// sum f(x)^2 where f maps a vector and its scalar twin maps one value.
template <class Vector, class Scalar>
double sum_squares(const float* x, std::size_t n, const Vector& vector, const Scalar& scalar) {
  const hn::CappedTag<float, kLanes> d;
  const std::size_t lanes = hn::Lanes(d);
  double sum = 0;
  std::size_t i = 0;
  while (i + kLanes <= n) {
    HWY_ALIGN std::array<float, kLanes> partial = {};
    const std::size_t end = std::min(i + kChunk, n / kLanes * kLanes);
    for (; i < end; i += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; lane += lanes) {
        const auto value = vector(d, hn::LoadU(d, x + i + lane));
        hn::Store(hn::Add(hn::Load(d, &partial[lane]), hn::Mul(value, value)), d, &partial[lane]);
      }
    }
    for (const float part : partial) sum += static_cast<double>(part);
  }
  for (; i < n; ++i) {
    const double value = static_cast<double>(scalar(x[i]));
    sum += value * value;
  }
  return sum;
}

double error_loop(const float* x, std::size_t n, AffineParams params, CodeRange codes) {
  const auto low = static_cast<float>(codes.min - params.zero_point);
  const auto high = static_cast<float>(codes.max - params.zero_point);
  const auto vector = [&](auto d, auto value) {
    const auto quotient = hn::Div(value, hn::Set(d, params.scale));
    const auto code = hn::Round(hn::Min(hn::Max(quotient, hn::Set(d, low)), hn::Set(d, high)));
    return hn::Sub(value, hn::Mul(code, hn::Set(d, params.scale)));
  };
  const auto scalar = [&](float value) {
    return value - dequantize_value(quantize_value(value, params, codes), params);
  };
  return sum_squares(x, n, vector, scalar);
}

double squares_loop(const float* x, std::size_t n) {
  return sum_squares(x, n, [](auto, auto value) { return value; }, [](float value) { return value; });
}

std::int32_t pair_loop(const float* x, std::size_t n, float scale, CodeRange codes) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto divisor = hn::Set(d, scale);
  const auto low = hn::Set(d, static_cast<float>(codes.min)), high = hn::Set(d, static_cast<float>(codes.max));
  const auto zero = hn::Zero(d);
  auto largest = zero;
  const auto code = [&](auto value) { return hn::Round(hn::Min(hn::Max(hn::Div(value, divisor), low), high)); };
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    auto a = zero, b = zero;
    hn::LoadInterleaved2(d, x + i, a, b);
    a = code(a);
    b = code(b);
    const auto opposite = hn::Lt(hn::Mul(a, b), zero);
    largest = hn::Max(largest, hn::IfThenZeroElse(opposite, hn::Abs(hn::Add(a, b))));
  }
  auto most = static_cast<std::int32_t>(hn::ReduceMax(d, largest));
  for (; i + 1 < n; i += 2) {
    const std::int32_t a = quantize_value(x[i], {scale, 0}, codes), b = quantize_value(x[i + 1], {scale, 0}, codes);
    if (a * b >= 0) most = std::max(most, a + b < 0 ? -(a + b) : a + b);
  }
  return most;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(error_loop);
HWY_EXPORT(squares_loop);
HWY_EXPORT(pair_loop);

}  // namespace

double quantization_error(std::span<const float> x, AffineParams params, CodeRange codes) {
  return HWY_DYNAMIC_DISPATCH(error_loop)(x.data(), x.size(), params, codes);
}

double sum_of_squares(std::span<const float> x) { return HWY_DYNAMIC_DISPATCH(squares_loop)(x.data(), x.size()); }

std::int32_t largest_pair(std::span<const float> x, float scale, CodeRange codes) {
  return HWY_DYNAMIC_DISPATCH(pair_loop)(x.data(), x.size(), scale, codes);
}

}  // namespace onnxpress
#endif
