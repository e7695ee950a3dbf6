#include "calib/rows.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <optional>
#include <random>

namespace onnxpress {
namespace {

Rows unusable(std::string why) {
  Rows rows;
  rows.trouble = std::move(why);
  return rows;
}

std::vector<std::int64_t> unravel(std::size_t index, std::span<const std::int64_t> dims) {
  std::vector<std::int64_t> at(dims.size());
  for (std::size_t d = dims.size(); d-- > 0;) {
    at[d] = static_cast<std::int64_t>(index) % dims[d];
    index /= static_cast<std::size_t>(dims[d]);
  }
  return at;
}

std::size_t product(std::span<const std::int64_t> dims) { return element_count(dims).value_or(0); }

bool is_same(const PatchShape& shape) { return shape.auto_pad == "SAME_UPPER" || shape.auto_pad == "SAME_LOWER"; }

std::int64_t reach_of(const PatchShape& shape, std::size_t d) { return (shape.kernel[d] - 1) * shape.dilations[d] + 1; }

// The spatial axes of the output; auto_pad as the ONNX specification of Conv has it.
Dims output_dims(const PatchShape& shape, std::span<const std::int64_t> in) {
  Dims out(in.size());
  for (std::size_t d = 0; d < in.size(); ++d) {
    if (is_same(shape)) {
      out[d] = (in[d] + shape.strides[d] - 1) / shape.strides[d];
    } else {
      const std::int64_t padding = shape.auto_pad == "VALID" ? 0 : shape.pads[d] + shape.pads[d + in.size()];
      const std::int64_t room = in[d] + padding - reach_of(shape, d);
      out[d] = room < 0 ? 0 : room / shape.strides[d] + 1;
    }
  }
  return out;
}

// Padding in front of each axis.
std::vector<std::int64_t> leading_pads(const PatchShape& shape, std::span<const std::int64_t> in,
                                       std::span<const std::int64_t> out) {
  std::vector<std::int64_t> pads(shape.kernel.size(), 0);
  for (std::size_t d = 0; d < pads.size(); ++d) {
    if (is_same(shape)) {
      const std::int64_t total =
          std::max<std::int64_t>(0, (out[d] - 1) * shape.strides[d] + reach_of(shape, d) - in[d]);
      pads[d] = shape.auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
    } else if (shape.auto_pad != "VALID") {
      pads[d] = shape.pads[d];
    }
  }
  return pads;
}

// Where in one channel of the input each kernel element lies for one output position; -1 in the padding.
std::vector<std::int64_t> patch_offsets(const PatchShape& shape, std::span<const std::int64_t> in,
                                        std::span<const std::int64_t> out, std::size_t position) {
  const auto pads = leading_pads(shape, in, out);
  const auto origin = unravel(position, out);
  std::vector<std::int64_t> offsets(product(shape.kernel));
  for (std::size_t k = 0; k < offsets.size(); ++k) {
    const auto tap = unravel(k, shape.kernel);
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < in.size() && offset >= 0; ++d) {
      const std::int64_t at = origin[d] * shape.strides[d] - pads[d] + tap[d] * shape.dilations[d];
      offset = at < 0 || at >= in[d] ? -1 : offset * in[d] + at;
    }
    offsets[k] = offset;
  }
  return offsets;
}

Rows conv_rows(const PatchShape& shape, std::span<const std::int64_t> dims, std::span<const float> x,
               std::size_t positions, std::uint64_t seed) {
  const auto in = dims.subspan(2);
  const Dims out = output_dims(shape, in);
  const std::size_t inputs = static_cast<std::size_t>(dims[1]), plane = product(in), total = product(out);
  const auto chosen = choose_positions(total, positions, seed);
  const std::size_t taps = product(shape.kernel), width = inputs * taps;
  Rows rows{
      .samples = static_cast<std::size_t>(dims[0]), .per_sample = chosen.size(), .width = width, .available = total};
  rows.values.resize(rows.samples * chosen.size() * width);
  for (std::size_t p = 0; p < chosen.size(); ++p) {
    const auto offsets = patch_offsets(shape, in, out, chosen[p]);
    for (std::size_t n = 0; n < rows.samples; ++n) {
      float* to = rows.values.data() + (n * chosen.size() + p) * width;
      for (std::size_t c = 0; c < inputs; ++c) {
        const float* channel = x.data() + (n * inputs + c) * plane;
        for (const std::int64_t offset : offsets) *to++ = offset < 0 ? 0.0F : channel[offset];
      }
    }
  }
  return rows;
}

}  // namespace

PatchShape patch_shape(const Node& node, std::span<const std::int64_t> weight_dims) {
  PatchShape shape;
  if (!node.is("Conv")) {
    assert((node.is("Gemm") && node.attr_int("transA", 0) == 0) || node.is("MatMul"));
    const bool transposed = node.is("Gemm") && node.attr_int("transB", 0) != 0;
    shape.outputs = static_cast<std::size_t>(weight_dims[transposed ? 0 : 1]);
    shape.length = static_cast<std::size_t>(weight_dims[transposed ? 1 : 0]);
    return shape;
  }
  const std::size_t axes = weight_dims.size() - 2;
  shape.groups = static_cast<std::size_t>(node.attr_int("group", 1));
  shape.outputs = static_cast<std::size_t>(weight_dims[0]);
  shape.length = product(weight_dims.subspan(1));
  shape.kernel.assign(weight_dims.begin() + 2, weight_dims.end());
  shape.strides = node.attr_ints("strides", std::vector<std::int64_t>(axes, 1));
  shape.dilations = node.attr_ints("dilations", std::vector<std::int64_t>(axes, 1));
  shape.pads = node.attr_ints("pads", std::vector<std::int64_t>(2 * axes, 0));
  shape.auto_pad = node.attr_string("auto_pad", "NOTSET");
  return shape;
}

std::vector<std::size_t> choose_positions(std::size_t total, std::size_t count, std::uint64_t seed) {
  std::vector<std::size_t> all(total);
  std::iota(all.begin(), all.end(), 0UZ);
  if (total <= count) return all;
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < count; ++i) std::swap(all[i], all[i + random() % (total - i)]);
  all.resize(count);
  std::ranges::sort(all);
  return all;
}

Rows patch_rows(const PatchShape& shape, const TensorView& x, std::size_t positions, std::uint64_t seed) {
  if (!shape.is_conv()) {
    Rows rows = channel_rows(-1, x, positions, seed);
    if (rows.trouble.empty() && rows.width != shape.groups * shape.length)
      return unusable("its input has other shapes than its weight");
    return rows;
  }
  const auto values = to_floats(x);
  if (!values) return unusable("its input or output is not numeric");
  const std::size_t inputs = shape.groups * shape.length / std::max(product(shape.kernel), 1UZ);
  if (x.dims.size() != shape.kernel.size() + 2 || x.dims[1] != static_cast<std::int64_t>(inputs))
    return unusable("its input has other shapes than its weight");
  return conv_rows(shape, x.dims, *values, positions, seed);
}

Rows channel_rows(std::int64_t axis, const TensorView& y, std::size_t positions, std::uint64_t seed,
                  std::span<const std::uint32_t> channels) {
  const auto values = to_floats(y);
  if (!values) return unusable("its input or output is not numeric");
  const std::size_t rank = y.dims.size(), channel_axis = axis < 0 ? rank - 1 : static_cast<std::size_t>(axis);
  if (rank == 0 || channel_axis >= rank) return unusable("its output has other shapes than in the reference");
  Rows rows{.samples = rank > 1 ? static_cast<std::size_t>(y.dims[0]) : 1};
  const auto all = static_cast<std::size_t>(y.dims[channel_axis]);
  rows.width = channels.empty() ? all : channels.size();
  if (!channels.empty() && channels.back() >= all) return unusable("its output has other shapes than in the reference");
  rows.available = rows.samples == 0 || all == 0 ? 0 : values->size() / rows.samples / all;
  const auto chosen = choose_positions(rows.available, positions, seed);
  rows.per_sample = chosen.size();
  rows.values.reserve(rows.samples * chosen.size() * rows.width);
  // From one position, and one channel, to the next.
  const std::size_t step = axis < 0 ? all : 1, channel_step = axis < 0 ? 1 : rows.available;
  for (std::size_t n = 0; n < rows.samples; ++n)
    for (const std::size_t position : chosen)
      for (std::size_t c = 0; c < rows.width; ++c) {
        const std::size_t channel = channels.empty() ? c : channels[c];
        rows.values.push_back((*values)[n * rows.available * all + position * step + channel * channel_step]);
      }
  return rows;
}

void RowsAccumulator::merge(std::any partial) {
  Rows rows = std::any_cast<Rows>(std::move(partial));
  if (trouble_.empty()) trouble_ = std::move(rows.trouble);
  if (width_ == 0) width_ = rows.width;
  if (trouble_.empty() && rows.width != width_) trouble_ = "its channels differ from sample to sample";
  if (!trouble_.empty()) return;
  for (std::size_t n = 0; n < rows.samples; ++n)
    samples_.push_back({values_.size() / std::max(width_, 1UZ) + n * rows.per_sample, rows.per_sample, rows.available});
  values_.insert(values_.end(), rows.values.begin(), rows.values.end());
}

}  // namespace onnxpress
