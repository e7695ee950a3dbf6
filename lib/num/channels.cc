#include "num/channels.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

// The largest magnitude that does not round to infinity (ties go to even, hence to infinity).
double limit_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return 65520.0;
    case DType::bf16:
      return std::ldexp(2.0 - std::ldexp(1.0, -8), 127);
    case DType::f32:
      return std::ldexp(2.0 - std::ldexp(1.0, -24), 127);
    default:
      return HUGE_VAL;
  }
}

}  // namespace

void scale_outputs(Doubles& weight, const ChannelLayout& layout, const Doubles& factor) {
  assert(factor.size() == layout.outputs() && weight.size() == layout.rows * layout.cols * layout.inner);
  layout.each([&](std::size_t at, std::size_t o, std::size_t) {
    for (std::size_t k = at; k < at + layout.inner; ++k) weight[k] *= factor[o];
  });
}

void scale_inputs(Doubles& weight, const ChannelLayout& layout, const Doubles& factor) {
  assert(factor.size() == layout.inputs() && weight.size() == layout.rows * layout.cols * layout.inner);
  layout.each([&](std::size_t at, std::size_t, std::size_t i) {
    for (std::size_t k = at; k < at + layout.inner; ++k) weight[k] *= factor[i];
  });
}

Doubles apply_to_constant(const Doubles& weight, const ChannelLayout& layout, const Doubles& input) {
  assert(input.size() == layout.inputs() && weight.size() == layout.rows * layout.cols * layout.inner);
  Doubles sums(layout.outputs(), 0.0);
  layout.each([&](std::size_t at, std::size_t o, std::size_t i) {
    for (std::size_t k = at; k < at + layout.inner; ++k) sums[o] += weight[k] * input[i];
  });
  return sums;
}

Result<Doubles> to_doubles(const TensorView& view) {
  if (view.dtype == DType::f64) return Doubles(view.as<double>().begin(), view.as<double>().end());
  OP_LET(const std::vector<float> values, to_floats(view));
  return Doubles(values.begin(), values.end());
}

Result<std::optional<Tensor>> from_doubles(const Doubles& values, DType dtype, Dims dims) {
  const double limit = limit_of(dtype);
  const auto fits = [&](double value) { return std::isfinite(value) && std::abs(value) < limit; };
  if (!std::ranges::all_of(values, fits)) return std::nullopt;
  if (dtype == DType::f64) return Tensor::of<double>(dtype, std::move(dims), values);
  const std::vector<float> floats(values.begin(), values.end());
  Tensor wide = Tensor::of_floats(std::move(dims), floats);
  if (dtype == DType::f32) return wide;
  OP_LET(Tensor narrow, convert(wide.view(), dtype));
  return narrow;
}

}  // namespace onnxpress
