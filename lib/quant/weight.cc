#include "quant/weight.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "num/quantize.h"

namespace onnxpress {
namespace {

// A channel of zeros has no scale of its own (1 stands in). The steps of its bias follow from it, so it takes the finest
// of the other channels.
Status refine_zero_channels(TensorQuantization& how, const Tensor& weight) {
  if (!how.axis || std::ranges::none_of(how.params, [](AffineParams p) { return p.scale == 1; })) return {};
  OP_LET(const auto largest, absmax_per_channel(weight.as<float>(), weight.dims(), *how.axis));
  const auto is_zero = [&](std::size_t c) { return how.params[c].scale == 1 && largest[c] < 1; };
  float finest = std::numeric_limits<float>::infinity();
  for (std::size_t c = 0; c < largest.size(); ++c)
    if (!is_zero(c)) finest = std::min(finest, how.params[c].scale);
  for (std::size_t c = 0; c < largest.size(); ++c)
    if (is_zero(c) && std::isfinite(finest)) how.params[c].scale = finest;
  return {};
}

// Raises scales that would let the int32 bias of their channel overflow. Scales only grow, so no code saturates.
void raise_scales(TensorQuantization& how, const std::vector<double>& least) {
  for (std::size_t i = 0; i < how.params.size() && i < least.size(); ++i)
    if (how.params[i].scale < least[i])
      how.params[i].scale = std::nextafter(static_cast<float>(least[i]), std::numeric_limits<float>::infinity());
}

// The weights that feed one output channel, in the order of the reduction.
struct Reduction {
  std::span<const float> weight;
  AxisLayout channel;            // at the channel axis
  std::size_t input_channels = 1;  // of a convolution: they run fastest; 1 for a matrix
  std::size_t length = 0;

  Reduction(std::span<const float> values, const Dims& dims, const AxisLayout& layout)
      : weight(values), channel(layout), length(values.size() / std::max<std::size_t>(layout.channels, 1)) {
    if (dims.size() > 2) input_channels = static_cast<std::size_t>(dims[1]);
  }
  float at(std::size_t c, std::size_t k) const {
    if (channel.outer > 1) return weight[k * channel.channels + c];  // matrix with the channels in columns
    const std::size_t positions = length / input_channels;
    return weight[c * length + (input_channels == 1 ? k : k % input_channels * positions + k / input_channels)];
  }
};

// u8 * s8 + u8 * s8 stays within 16 bits exactly when two codes of one sign sum to at most 128 (255 * 128 < 2^15).
constexpr std::int32_t kPairLimit = 128;

std::int32_t largest_pair(const Reduction& reduction, std::size_t c, AffineParams params, CodeRange codes) {
  std::int32_t largest = 0;
  for (std::size_t k = 0; k + 1 < reduction.length; k += 2) {
    const std::int32_t a = quantize_value(reduction.at(c, k), params, codes);
    const std::int32_t b = quantize_value(reduction.at(c, k + 1), params, codes);
    if ((a < 0) == (b < 0)) largest = std::max(largest, std::abs(a + b));
  }
  return largest;
}

// Raises the scales of channels in which a pair could saturate, no further than needed. Returns how many.
std::size_t clear_pairs(TensorQuantization& how, const Reduction& reduction) {
  std::size_t raised = 0;
  for (std::size_t c = 0; c < reduction.channel.channels; ++c) {
    AffineParams& params = how.params[how.params.size() == 1 ? 0 : c];
    const float before = params.scale;
    for (std::int32_t pair = largest_pair(reduction, c, params, how.codes); pair > kPairLimit;
         pair = largest_pair(reduction, c, params, how.codes))
      params.scale *= static_cast<float>(pair) / kPairLimit;
    if (params.scale != before) ++raised;
  }
  return raised;
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
  assert(!job.avoid_saturation || job.dtype == DType::i8);  // u8 weights are multiplied in 16 bits
  OP_LET(std::optional<Tensor> constant, job.reader->constant(job.name));
  assert(constant);
  Tensor weight = std::move(*constant);
  if (weight.dtype() != DType::f32) {
    OP_LET(weight, convert(weight.view(), DType::f32));
  }
  if (!job.view.empty()) weight.reshape(job.view);
  if (job.factor != 1)
    for (float& value : weight.as_mutable<float>()) value *= job.factor;
  auto chosen = choose_tensor(weight.as<float>(), weight.dims(), job.dtype, true, job.axis());
  if (!chosen) return rethrow(std::move(chosen).error(), "weight '" + job.name + "'");
  OP_TRY(refine_zero_channels(*chosen, weight));
  raise_scales(*chosen, job.least_scale);
  AxisLayout layout;  // one channel
  layout.inner = weight.size();
  if (job.per_channel) {
    OP_LET(layout, axis_layout(weight.dims(), job.channel_axis));
  }
  QuantizedWeight out;
  if (job.avoid_saturation) {
    OP_LET(const AxisLayout channels, axis_layout(weight.dims(), job.channel_axis));
    out.raised = clear_pairs(*chosen, Reduction(weight.as<float>(), weight.dims(), channels));
  }
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
