#include "quant/weight.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "num/quantize.h"

namespace onnxpress {
namespace {

// A channel of zeros has no scale of its own (1 stands in). The steps of its bias follow from it, so it takes the
// finest of the other channels.
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

// u8 * s8 + u8 * s8 stays within 16 bits exactly when two codes of one sign sum to at most 128 (255 * 128 < 2^15).
constexpr std::int32_t kPairLimit = 128;

std::int32_t pair_sum(float a, float b, const AffineParams& params, CodeRange codes) {
  const std::int32_t x = quantize_value(a, params, codes), y = quantize_value(b, params, codes);
  return (x < 0) == (y < 0) ? std::abs(x + y) : 0;
}

// A weight whose output channels are its rows, [channels, ...]: pairs run along the row. In a convolution
// [channels, inputs, positions] they run over the inputs of a position first.
struct RowLayout {
  std::size_t length = 0, inputs = 1;
  std::size_t at(std::size_t k) const { return inputs == 1 ? k : k % inputs * (length / inputs) + k / inputs; }
};

std::int32_t largest_pair(std::span<const float> row, RowLayout layout, const AffineParams& params, CodeRange codes) {
  std::int32_t largest = 0;
  for (std::size_t k = 0; k + 1 < row.size(); k += 2)
    largest = std::max(largest, pair_sum(row[layout.at(k)], row[layout.at(k + 1)], params, codes));
  return largest;
}

// A matrix whose output channels are its columns: all of them in one walk over the rows, the way they lie in memory.
std::vector<std::int32_t> largest_pairs(std::span<const float> matrix, const TensorQuantization& how,
                                        std::size_t columns) {
  std::vector<std::int32_t> largest(columns, 0);
  for (std::size_t at = 0; at + 2 * columns <= matrix.size(); at += 2 * columns)
    for (std::size_t c = 0; c < columns; ++c)
      largest[c] = std::max(largest[c], pair_sum(matrix[at + c], matrix[at + columns + c],
                                                 how.params[how.params.size() == 1 ? 0 : c], how.codes));
  return largest;
}

// Raises a scale as far as a pair needs. Rounding can leave a pair above the limit, hence the callers' loops.
bool raise_for(AffineParams& params, std::int32_t pair) {
  if (pair <= kPairLimit) return false;
  params.scale *= static_cast<float>(pair) / kPairLimit;
  return true;
}

std::size_t clear_rows(TensorQuantization& how, std::span<const float> weight, std::size_t channels, RowLayout layout) {
  std::size_t raised = 0;
  for (std::size_t c = 0; c < channels; ++c) {
    AffineParams& params = how.params[how.params.size() == 1 ? 0 : c];
    const auto row = weight.subspan(c * layout.length, layout.length);
    bool any = false;
    while (raise_for(params, largest_pair(row, layout, params, how.codes))) any = true;
    raised += any;
  }
  return raised;
}

std::size_t clear_columns(TensorQuantization& how, std::span<const float> weight, std::size_t columns) {
  std::vector<bool> raised(columns, false);
  for (bool again = true; again;) {
    again = false;
    const std::vector<std::int32_t> pairs = largest_pairs(weight, how, columns);
    if (how.params.size() == 1) {
      again = raise_for(how.params[0], *std::ranges::max_element(pairs));
      raised[0] = raised[0] || again;
      continue;
    }
    for (std::size_t c = 0; c < columns; ++c)
      if (raise_for(how.params[c], pairs[c])) raised[c] = again = true;
  }
  return static_cast<std::size_t>(std::ranges::count(raised, true));
}

// Raises the scales of channels in which a pair could saturate, no further than needed. Returns how many.
std::size_t clear_pairs(TensorQuantization& how, const Tensor& weight, std::int64_t channel_axis) {
  const auto values = weight.as<float>();
  const auto channels = static_cast<std::size_t>(weight.dims()[static_cast<std::size_t>(channel_axis)]);
  if (channel_axis != 0) return clear_columns(how, values, channels);
  RowLayout layout;
  layout.length = values.size() / channels;
  if (weight.dims().size() > 2) layout.inputs = static_cast<std::size_t>(weight.dims()[1]);
  return clear_rows(how, values, channels, layout);
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
  if (job.avoid_saturation && weight.size() > 0) out.raised = clear_pairs(*chosen, weight, job.channel_axis);
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
