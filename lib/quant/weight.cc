#include "quant/weight.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>

#include "num/code_kernels.h"
#include "num/quantize.h"

namespace onnxpress {
namespace {

// Channels handled at once: where they are neighbours in memory, a few cache lines of each row are read together.
constexpr std::size_t kStrip = 64;

// A transposition walks in tiles, so that what it reads and what it writes are whole cache lines.
constexpr std::size_t kTile = 16;
template <class Fn>
void for_each_tile(std::size_t length, const Fn& fn) {
  for (std::size_t begin = 0; begin < length; begin += kTile) fn(begin, std::min(kTile, length - begin));
}

// A weight as output channels, each a row of `length` values along the reduction.
struct Geometry {
  std::size_t channels = 1, length = 0;
  std::size_t inner = 1;   // element k of channel c lies at (k / inner * channels + c) * inner + k % inner
  std::size_t inputs = 1;  // input channels of a convolution: the runtime reduces over them first, then positions

  std::size_t at(std::size_t c, std::size_t k) const { return (k / inner * channels + c) * inner + k % inner; }
};

// The rows of a few channels: views of the weight where they lie in one piece, else copied together.
class Strip {
 public:
  Strip(const Geometry& geometry, std::span<const float> weight, bool runtime_order)
      : geometry_(geometry),
        weight_(weight),
        reorder_(runtime_order && geometry.inputs > 1 && geometry.inputs < geometry.length),
        copied_(reorder_ || geometry.inner != geometry.length) {
    if (copied_) values_.resize(std::min(kStrip, geometry.channels) * geometry.length);
  }

  // Channels [first, first + kStrip), as far as there are any.
  void load(std::size_t first) {
    first_ = first;
    if (!copied_) return;
    const std::size_t count = std::min(kStrip, geometry_.channels - first), length = geometry_.length;
    const std::size_t positions = length / geometry_.inputs;
    for_each_tile(length, [&](std::size_t begin, std::size_t size) {
      std::array<const float*, kTile> from;
      for (std::size_t j = 0; j < size; ++j) {
        const std::size_t k = begin + j;
        const std::size_t at = reorder_ ? k % geometry_.inputs * positions + k / geometry_.inputs : k;
        from[j] = &weight_[geometry_.at(first, at)];
      }
      for (std::size_t c = 0; c < count; ++c)
        for (std::size_t j = 0; j < size; ++j) values_[c * length + begin + j] = from[j][c * geometry_.inner];
    });
  }
  std::span<const float> row(std::size_t c) const {
    return copied_ ? std::span(values_).subspan(c * geometry_.length, geometry_.length)
                   : weight_.subspan((first_ + c) * geometry_.length, geometry_.length);
  }

 private:
  const Geometry& geometry_;
  std::span<const float> weight_;
  bool reorder_, copied_;  // in the order the runtime reduces
  std::size_t first_ = 0;
  std::vector<float> values_;
};

// u8 * s8 + u8 * s8 stays within 16 bits exactly when two codes of one sign sum to at most 128 (255 * 128 < 2^15).
constexpr std::int32_t kPairLimit = 128;

// One run through the steps of quantize_weight().
class Quantizer {
 public:
  Quantizer(const WeightJob& job, const Tensor& weight)
      : job_(job),
        weight_(weight.as<float>()),
        dims_(weight.dims()),
        codes_(code_range(job.dtype, job.symmetric)),
        geometry_(geometry_of(job, weight.dims())),
        block_(job.block > 0 ? static_cast<std::size_t>(job.block) : std::max<std::size_t>(geometry_.length, 1)),
        blocks_(job.block > 0 ? (geometry_.length + block_ - 1) / block_ : 1),
        one_(!job.per_channel && job.block == 0) {}

  Result<QuantizedWeight> run() {
    OP_TRY(choose_scales());
    refine_zero_channels();
    raise_scales();
    QuantizedWeight out;
    if (job_.avoid_saturation && bit_width(job_.dtype) == 8) out.raised = clear_pairs();
    if (job_.symmetric) {
      out.zero_point = codes_.min < 0 ? 0 : (codes_.max + 1) / 2;
      // Also where a channel is all zeros: runtimes want them all equal.
      for (AffineParams& params : params_) params.zero_point = out.zero_point;
    }
    OP_TRY(write_codes(out));
    write_scales(out);
    return out;
  }

 private:
  static Geometry geometry_of(const WeightJob& job, const Dims& dims) {
    Geometry geometry;
    if (dims.empty()) return {.channels = 1, .length = 1};
    const auto axis = static_cast<std::size_t>(job.channel_axis);
    assert(axis < dims.size());
    geometry.channels = static_cast<std::size_t>(dims[axis]);
    for (std::size_t i = axis + 1; i < dims.size(); ++i) geometry.inner *= static_cast<std::size_t>(dims[i]);
    const std::uint64_t total = element_count(dims).value_or(0);
    geometry.length = geometry.channels == 0 ? 0 : static_cast<std::size_t>(total) / geometry.channels;
    geometry.inner = std::max<std::size_t>(geometry.inner, 1);
    if (axis == 0 && dims.size() > 2) geometry.inputs = static_cast<std::size_t>(dims[1]);
    return geometry;
  }

  // Calls fn(row, index of its parameters) for every run of values that share a scale, channel by channel.
  template <class Fn>
  void for_each_run(bool runtime_order, Fn&& fn) const {
    Strip strip(geometry_, weight_, runtime_order);
    if (geometry_.length == 0) return;
    for (std::size_t first = 0; first < geometry_.channels; first += kStrip) {
      strip.load(first);
      for (std::size_t c = 0; c < std::min(kStrip, geometry_.channels - first); ++c)
        for (std::size_t b = 0; b < blocks_; ++b) {
          const std::size_t begin = b * block_, size = std::min(block_, geometry_.length - begin);
          fn(strip.row(c).subspan(begin, size), one_ ? 0 : (first + c) * blocks_ + b);
        }
    }
  }

  Status choose_scales() {
    std::vector<MinMax> ranges(one_ ? 1 : geometry_.channels * blocks_);
    params_.resize(ranges.size());
    for_each_run(false, [&](std::span<const float> run, std::size_t i) {
      ranges[i].merge(min_max(run));
      if (one_ || job_.clip == WeightClip::minmax) return;
      params_[i] = best_params(ranges[i], [&](AffineParams params) { return quantization_error(run, params, codes_); });
    });
    for (const MinMax& range : ranges) {
      largest_.push_back(range.absmax());
      if (range.non_finite > 0)
        return fail(Code::bad_input, "weight '{}': the values include NaN or infinity", job_.name);
    }
    if (job_.clip == WeightClip::minmax) {
      for (std::size_t i = 0; i < ranges.size(); ++i) params_[i] = full_range(ranges[i], 1);
    } else if (one_) {
      params_[0] = best_params(ranges[0], [&](AffineParams params) {
        double error = 0;
        for_each_run(
            false, [&](std::span<const float> run, std::size_t) { error += quantization_error(run, params, codes_); });
        return error;
      });
    }
    return {};
  }

  AffineParams full_range(const MinMax& range, float part) const {
    return choose_affine(range.min * part, range.max * part, codes_, job_.symmetric);
  }

  // The range is shrunk in steps; the widest of the best wins. 4-bit codes gain from cutting deeper than 8-bit ones.
  template <class Error>
  AffineParams best_params(const MinMax& range, const Error& error) const {
    const bool narrow = bit_width(job_.dtype) == 4;
    const int steps = narrow ? 36 : 40;
    const float step = narrow ? 0.0175F : 0.01F;
    AffineParams best = with_zero_point(full_range(range, 1));
    double least = error(best);
    for (int i = 1; i <= steps && least > 0; ++i) {
      const AffineParams params = with_zero_point(full_range(range, 1 - step * static_cast<float>(i)));
      const double now = error(params);
      if (now >= least) continue;
      least = now;
      best = params;
    }
    return best;
  }

  AffineParams with_zero_point(AffineParams params) const {
    if (job_.symmetric) params.zero_point = codes_.min < 0 ? 0 : (codes_.max + 1) / 2;
    return params;
  }

  // A channel of zeros has no scale of its own (1 stands in). The steps of its bias follow from it, so it takes the
  // finest of the other channels.
  void refine_zero_channels() {
    if (one_ || job_.block > 0) return;
    const auto is_zero = [&](std::size_t c) { return params_[c].scale == 1 && largest_[c] < 1; };
    float finest = std::numeric_limits<float>::infinity();
    for (std::size_t c = 0; c < params_.size(); ++c)
      if (!is_zero(c)) finest = std::min(finest, params_[c].scale);
    if (!std::isfinite(finest)) return;
    for (std::size_t c = 0; c < params_.size(); ++c)
      if (is_zero(c)) params_[c].scale = finest;
  }

  // Raises scales that would let the int32 bias of their channel overflow. Scales only grow, so no code saturates.
  void raise_scales() {
    assert(job_.least_scale.empty() || job_.block == 0);
    for (std::size_t i = 0; i < params_.size() && i < job_.least_scale.size(); ++i)
      if (params_[i].scale < job_.least_scale[i])
        params_[i].scale =
            std::nextafter(static_cast<float>(job_.least_scale[i]), std::numeric_limits<float>::infinity());
  }

  // Raises the scales of channels in which a pair could saturate, no further than needed. Returns how many.
  std::size_t clear_pairs() {
    std::vector<bool> raised(params_.size(), false);
    for_each_run(true, [&](std::span<const float> run, std::size_t i) {
      for (;;) {  // rounding can leave a pair above the limit
        const std::int32_t pair = largest_pair(run, params_[i].scale, codes_);
        if (pair <= kPairLimit) return;
        params_[i].scale *= static_cast<float>(pair) / kPairLimit;
        raised[i] = true;
      }
    });
    return static_cast<std::size_t>(std::ranges::count(raised, true));
  }

  // Puts the codes of channels [first, first + count), channel by channel in `codes`, where they are stored.
  void store(std::span<const std::byte> codes, std::size_t first, std::size_t count, std::span<std::byte> out) const {
    const std::size_t length = geometry_.length;
    const bool rows = job_.transpose ? job_.channel_axis != 0 : geometry_.inner == length;
    if (rows) {
      std::ranges::copy(codes.first(count * length), out.begin() + static_cast<std::ptrdiff_t>(first * length));
      return;
    }
    const std::size_t step = !job_.transpose ? geometry_.inner : 1;  // from channel to channel
    for_each_tile(length, [&](std::size_t begin, std::size_t size) {
      if (job_.transpose && job_.blocks > 1) {
        for (std::size_t k = begin; k < begin + size; ++k)
          for (std::size_t c = 0; c < count; ++c) out[in_directions(first + c, k)] = codes[c * length + k];
        return;
      }
      std::array<std::byte*, kTile> to;
      for (std::size_t j = 0; j < size; ++j)
        to[j] = &out[job_.transpose ? (begin + j) * geometry_.channels + first : geometry_.at(first, begin + j)];
      for (std::size_t c = 0; c < count; ++c)
        for (std::size_t j = 0; j < size; ++j) to[j][c * step] = codes[c * length + begin + j];
    });
  }

  // Transposed one direction of a recurrent weight at a time.
  std::size_t in_directions(std::size_t c, std::size_t k) const {
    const std::size_t rows = geometry_.channels / static_cast<std::size_t>(job_.blocks);
    return (c / rows * geometry_.length + k) * rows + c % rows;
  }

  Dims stored_dims() const {
    if (!job_.transpose) return dims_;
    const Dims flipped = {dims_[1], dims_[0] / job_.blocks};
    return job_.blocks == 1 ? flipped : Dims{job_.blocks, flipped[0], flipped[1]};
  }

  Status write_codes(QuantizedWeight& out) const {
    const bool is_signed = codes_.min < 0;
    Tensor codes(is_signed ? DType::i8 : DType::u8, stored_dims());
    const auto bytes = codes.mutable_bytes();
    const std::size_t length = geometry_.length;
    std::vector<std::byte> strip(std::min(kStrip, geometry_.channels) * length);
    double noise = 0, signal = 0;
    std::size_t first = 0, filled = 0;  // channels before the strip, codes in it
    for_each_run(false, [&](std::span<const float> run, std::size_t i) {
      auto* raw = strip.data() + filled;
      if (is_signed) {
        quantize_span(run, params_[i], codes_, std::span(reinterpret_cast<std::int8_t*>(raw), run.size()));
      } else {
        quantize_span(run, params_[i], codes_, std::span(reinterpret_cast<std::uint8_t*>(raw), run.size()));
      }
      noise += quantization_error(run, params_[i], codes_);
      signal += sum_of_squares(run);
      filled += run.size();
      const std::size_t count = std::min(kStrip, geometry_.channels - first);
      if (filled < count * length) return;
      store(strip, first, count, bytes);
      first += count;
      filled = 0;
    });
    out.sqnr_db =
        noise == 0 ? std::numeric_limits<float>::infinity() : static_cast<float>(10 * std::log10(signal / noise));
    if (bit_width(job_.dtype) == 8) {
      out.codes = std::move(codes);
    } else {
      OP_LET(out.codes, convert(codes.view(), job_.dtype));
    }
    return {};
  }

  void write_scales(QuantizedWeight& out) const {
    // Blocks lie as the codes do: behind their channel, or (channels last) in rows of one block of every channel.
    const bool channels_last = job_.block > 0 && (job_.channel_axis != 0) != job_.transpose;
    if (job_.block > 0) {
      out.block_dims = out.codes.dims();
      out.block_dims[channels_last ? 0 : 1] = static_cast<std::int64_t>(blocks_);
    }
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const std::size_t from = channels_last ? i % geometry_.channels * blocks_ + i / geometry_.channels : i;
      out.scales.push_back(params_[from].scale);
      out.zero_points.push_back(params_[from].zero_point);
    }
  }

  const WeightJob& job_;
  std::span<const float> weight_;
  const Dims& dims_;
  const CodeRange codes_;
  const Geometry geometry_;
  const std::size_t block_, blocks_;  // elements of a block, blocks of a channel
  const bool one_;                    // one scale for the tensor
  std::vector<AffineParams> params_;  // channel by channel, its blocks in order
  std::vector<float> largest_;        // |w| of each
};

}  // namespace

Tensor QuantizedWeight::scale_tensor(bool per_channel) const {
  if (!block_dims.empty()) return Tensor::of_floats(block_dims, scales);
  if (!per_channel) return Tensor::scalar<float>(DType::f32, scales.front());
  return Tensor::of_floats({static_cast<std::int64_t>(scales.size())}, scales);
}

Tensor QuantizedWeight::zero_point_tensor(bool per_channel) const {
  Dims dims = per_channel ? Dims{static_cast<std::int64_t>(scales.size())} : Dims{};
  if (!block_dims.empty()) dims = block_dims;
  const bool is_signed = codes.dtype() == DType::i8 || codes.dtype() == DType::i4;
  Tensor out(is_signed ? DType::i8 : DType::u8, dims);
  const auto bytes = out.mutable_bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(zero_points[i]);
  if (bit_width(codes.dtype()) == 8) return out;
  auto packed = convert(out.view(), codes.dtype());
  assert(packed);
  return std::move(*packed);
}

Result<QuantizedWeight> quantize_weight(const WeightJob& job) {
  assert(!job.avoid_saturation || (job.symmetric && job.dtype != DType::u8));  // u8 is multiplied in 16 bits
  OP_LET(std::optional<Tensor> constant, job.reader->constant(job.name));
  assert(constant);
  Tensor weight = std::move(*constant);
  if (weight.dtype() != DType::f32) {
    OP_LET(weight, convert(weight.view(), DType::f32));
  }
  if (!job.view.empty()) weight.reshape(job.view);
  if (job.factor != 1)
    for (float& value : weight.as_mutable<float>()) value *= job.factor;
  assert(job.block == 0 || (weight.dims().size() == 2 && job.blocks == 1));
  return Quantizer(job, weight).run();
}

std::uint64_t peak_bytes(const WeightJob& job) {
  const auto type = job.reader->constant_type(job.name);
  assert(type);
  // The float weight (and what it was converted from), the codes, a strip of channels where they are not in one piece.
  const std::uint64_t elements = element_count(type->second).value_or(0);
  const Dims& dims = job.view.empty() ? type->second : job.view;
  const auto channels = dims.empty() ? 1 : dims[static_cast<std::size_t>(job.channel_axis)];
  const std::uint64_t copied = static_cast<std::uint64_t>(std::clamp<std::int64_t>(channels, 1, kStrip));
  return elements * (type->first == DType::f32 ? 5 : 7) +
         elements / std::max<std::uint64_t>(1, static_cast<std::uint64_t>(channels)) * copied * 5;
}

}  // namespace onnxpress
