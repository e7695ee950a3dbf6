#include "quant/weight.h"

#include <cmath>
#include <limits>

#include "num/quantize.h"

namespace onnxpress {
namespace {

// Raises scales that would let the int32 bias of their channel overflow. Scales only grow, so no code saturates.
void raise_scales(TensorQuantization& how, const std::vector<double>& least) {
  for (std::size_t i = 0; i < how.params.size() && i < least.size(); ++i)
    if (how.params[i].scale < least[i])
      how.params[i].scale = std::nextafter(static_cast<float>(least[i]), std::numeric_limits<float>::infinity());
}

// One byte per code.
Tensor transposed(const Tensor& codes, std::int64_t blocks) {
  const Dims dims = {codes.dims()[1], codes.dims()[0] / blocks};
  Tensor out(codes.dtype(), blocks == 1 ? dims : Dims{blocks, dims[0], dims[1]});
  const auto cols = static_cast<std::size_t>(dims[0]), rows = static_cast<std::size_t>(dims[1]);
  const auto from = codes.bytes();
  const auto to = out.mutable_bytes();
  for (std::size_t base = 0; base < from.size(); base += rows * cols)
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < cols; ++c) to[base + c * rows + r] = from[base + r * cols + c];
  return out;
}

// 10 log10(sum w^2 / sum (w - w')^2), in double and in index order.
float sqnr(std::span<const float> weight, const Tensor& codes, const TensorQuantization& how, AxisLayout layout) {
  double signal = 0, noise = 0;
  const auto bytes = codes.bytes();
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(bytes[i]);
    const std::int32_t code = codes.dtype() == DType::i8 ? static_cast<std::int8_t>(byte) : std::int32_t{byte};
    const double w = weight[i], error = w - dequantize_value(code, how.params[i / layout.inner % layout.channels]);
    signal += w * w;
    noise += error * error;
  }
  if (noise == 0) return std::numeric_limits<float>::infinity();
  return static_cast<float>(10 * std::log10(signal / noise));
}

}  // namespace

Tensor QuantizedWeight::scale_tensor(bool per_channel) const {
  if (!per_channel) return Tensor::scalar<float>(DType::f32, scales.front());
  return Tensor::of_floats({static_cast<std::int64_t>(scales.size())}, scales);
}

Tensor QuantizedWeight::zero_point_tensor(bool per_channel) const {
  const auto zero = static_cast<std::uint8_t>(zero_point);
  const Dims dims = per_channel ? Dims{static_cast<std::int64_t>(scales.size())} : Dims{};
  Tensor out(codes.dtype(), dims);
  for (std::byte& byte : out.mutable_bytes()) byte = static_cast<std::byte>(zero);
  return out;
}

Result<QuantizedWeight> quantize_weight(const WeightJob& job) {
  OP_LET(std::optional<Tensor> constant, job.reader->constant(job.name));
  assert(constant);
  Tensor weight = std::move(*constant);
  if (weight.dtype() != DType::f32) {
    OP_LET(weight, convert(weight.view(), DType::f32));
  }
  if (!job.view.empty()) weight.reshape(job.view);
  if (job.factor != 1)
    for (float& value : weight.as_mutable<float>()) value *= job.factor;
  auto chosen = choose_tensor(weight.as<float>(), weight.dims(), job.dtype, true, job.axis, job.reduce_range);
  if (!chosen) return rethrow(std::move(chosen).error(), "weight '" + job.name + "'");
  raise_scales(*chosen, job.least_scale);
  AxisLayout layout;  // one channel
  layout.inner = weight.size();
  if (job.axis) {
    OP_LET(layout, axis_layout(weight.dims(), *job.axis));
  }
  QuantizedWeight out;
  out.zero_point = job.dtype == DType::u8 ? 128 : 0;
  for (AffineParams& params : chosen->params) {
    params.zero_point = out.zero_point;  // also where a channel is all zeros: the runtime wants them all equal
    out.scales.push_back(params.scale);
  }
  OP_LET(Tensor codes, quantize_tensor(weight.as<float>(), weight.dims(), *chosen));
  out.sqnr_db = sqnr(weight.as<float>(), codes, *chosen, layout);
  out.codes = job.transpose ? transposed(codes, job.blocks) : std::move(codes);
  return out;
}

std::uint64_t peak_bytes(const WeightJob& job) {
  const auto type = job.reader->constant_type(job.name);
  assert(type);
  // The float weight, the codes, and the codes transposed.
  return element_count(type->second).value_or(0) * 6;
}

}  // namespace onnxpress
