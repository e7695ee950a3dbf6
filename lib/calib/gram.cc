#include "calib/gram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <random>

#include "num/linalg.h"

namespace onnxpress {
namespace {

constexpr std::size_t kBlock = 256;    // rows per update of the sums
constexpr std::uint64_t kHoldOut = 5;  // every fifth sample

// The rows of one batch, sample after sample.
struct Rows {
  std::size_t samples = 0, per_sample = 0;
  std::vector<float> x, y;
  std::string trouble = {};
};

Rows unusable(std::string why) {
  Rows rows;
  rows.trouble = std::move(why);
  return rows;
}

// `count` of `total` positions in ascending order; all of them when there are no more.
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

std::vector<std::int64_t> unravel(std::size_t index, std::span<const std::int64_t> dims) {
  std::vector<std::int64_t> at(dims.size());
  for (std::size_t d = dims.size(); d-- > 0;) {
    at[d] = static_cast<std::int64_t>(index) % dims[d];
    index /= static_cast<std::size_t>(dims[d]);
  }
  return at;
}

std::size_t product(std::span<const std::int64_t> dims) { return element_count(dims).value_or(0); }

// Padding in front of each axis; auto_pad as the ONNX specification of Conv has it.
std::vector<std::int64_t> leading_pads(const PatchShape& shape, std::span<const std::int64_t> in,
                                       std::span<const std::int64_t> out) {
  std::vector<std::int64_t> pads(shape.kernel.size(), 0);
  for (std::size_t d = 0; d < pads.size(); ++d) {
    if (shape.auto_pad == "SAME_UPPER" || shape.auto_pad == "SAME_LOWER") {
      const std::int64_t reach = (shape.kernel[d] - 1) * shape.dilations[d] + 1;
      const std::int64_t total = std::max<std::int64_t>(0, (out[d] - 1) * shape.strides[d] + reach - in[d]);
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

Rows conv_rows(const PatchShape& shape, std::span<const std::int64_t> y_dims, std::span<const float> y,
               std::span<const std::int64_t> x_dims, std::span<const float> x, std::size_t positions,
               std::uint64_t seed) {
  const auto in = x_dims.subspan(2), out = y_dims.subspan(2);
  const std::size_t inputs = static_cast<std::size_t>(x_dims[1]), plane = product(in), out_plane = product(out);
  const auto chosen = choose_positions(out_plane, positions, seed);
  const std::size_t taps = product(shape.kernel);
  Rows rows{.samples = static_cast<std::size_t>(x_dims[0]), .per_sample = chosen.size(), .x = {}, .y = {}};
  rows.x.resize(rows.samples * chosen.size() * inputs * taps);
  rows.y.resize(rows.samples * chosen.size() * shape.outputs);
  for (std::size_t p = 0; p < chosen.size(); ++p) {
    const auto offsets = patch_offsets(shape, in, out, chosen[p]);
    for (std::size_t n = 0; n < rows.samples; ++n) {
      const std::size_t row = n * chosen.size() + p;
      float* to = rows.x.data() + row * inputs * taps;
      for (std::size_t c = 0; c < inputs; ++c) {
        const float* channel = x.data() + (n * inputs + c) * plane;
        for (const std::int64_t offset : offsets) *to++ = offset < 0 ? 0.0F : channel[offset];
      }
      for (std::size_t m = 0; m < shape.outputs; ++m)
        rows.y[row * shape.outputs + m] = y[(n * shape.outputs + m) * out_plane + chosen[p]];
    }
  }
  return rows;
}

// The last axis is the row; the first counts samples, those between are positions.
Rows matrix_rows(const PatchShape& shape, std::span<const std::int64_t> dims, std::span<const float> y,
                 std::span<const float> x, std::size_t positions, std::uint64_t seed) {
  const std::size_t samples = dims.size() > 1 ? static_cast<std::size_t>(dims[0]) : 1;
  const std::size_t all = samples == 0 ? 0 : x.size() / shape.length / samples;
  const auto chosen = choose_positions(all, positions, seed);
  Rows rows{.samples = samples, .per_sample = chosen.size(), .x = {}, .y = {}};
  for (std::size_t n = 0; n < samples; ++n)
    for (const std::size_t p : chosen) {
      const auto from_x = x.subspan((n * all + p) * shape.length, shape.length);
      const auto from_y = y.subspan((n * all + p) * shape.outputs, shape.outputs);
      rows.x.insert(rows.x.end(), from_x.begin(), from_x.end());
      rows.y.insert(rows.y.end(), from_y.begin(), from_y.end());
    }
  return rows;
}

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
}

void accumulate(std::vector<double>& sum, const std::vector<double>& other) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
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

Gram::Gram(PatchShape s)
    : shape(std::move(s)),
      xx(shape.groups * shape.length * shape.length),
      yx(shape.outputs * shape.length),
      x(shape.groups * shape.length),
      y(shape.outputs),
      yy(shape.outputs) {}

void Gram::add(const Gram& other) {
  rows += other.rows;
  accumulate(xx, other.xx);
  accumulate(yx, other.yx);
  accumulate(x, other.x);
  accumulate(y, other.y);
  accumulate(yy, other.yy);
}

std::span<const double> Gram::xx_of(std::size_t group) const {
  const std::size_t size = shape.length * shape.length;
  return std::span(xx).subspan(group * size, size);
}
std::span<const double> Gram::yx_of(std::size_t channel) const {
  return std::span(yx).subspan(channel * shape.length, shape.length);
}
std::span<const double> Gram::x_of(std::size_t group) const {
  return std::span(x).subspan(group * shape.length, shape.length);
}

std::vector<double> Gram::centered_xx(std::size_t group) const {
  const auto raw = xx_of(group), mean = x_of(group);
  std::vector<double> out(raw.begin(), raw.end());
  const std::size_t k = mean.size();
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < k; ++j) out[i * k + j] -= mean[i] * mean[j] / static_cast<double>(rows);
  return out;
}
std::vector<double> Gram::centered_yx(std::size_t channel) const {
  const auto raw = yx_of(channel), mean = x_of(channel / shape.outputs_per_group());
  std::vector<double> out(raw.begin(), raw.end());
  for (std::size_t k = 0; k < out.size(); ++k) out[k] -= y[channel] * mean[k] / static_cast<double>(rows);
  return out;
}

std::uint64_t gram_bytes(const PatchShape& shape) {
  const std::uint64_t k = shape.length, row = shape.groups * k + shape.outputs;
  return 2 * sizeof(double) * (shape.groups * k * k + shape.outputs * k + kBlock * row);
}

GramAccumulator::GramAccumulator(PatchShape shape, std::size_t positions, std::uint64_t seed)
    : shape_(std::move(shape)), positions_(positions), seed_(seed) {
  folds_.assign(2, Fold{Gram(shape_), {}, {}, 0});
}

std::any GramAccumulator::reduce(const TensorView& y, const TensorView& x) const {
  const auto y_values = to_floats(y), x_values = to_floats(x);
  if (!y_values || !x_values) return unusable("its input or output is not numeric");
  const std::size_t axes = x.dims.size();
  if (shape_.is_conv()) {
    const std::size_t taps = product(shape_.kernel), inputs = shape_.groups * shape_.length / std::max(taps, 1UZ);
    if (axes != shape_.kernel.size() + 2 || y.dims.size() != axes || x.dims[0] != y.dims[0] ||
        x.dims[1] != static_cast<std::int64_t>(inputs) || y.dims[1] != static_cast<std::int64_t>(shape_.outputs))
      return unusable("its input and output have other shapes than in the reference");
    return conv_rows(shape_, y.dims, *y_values, x.dims, *x_values, positions_, seed_);
  }
  const bool rows_match = axes > 0 && y.dims.size() == axes &&
                          std::ranges::equal(x.dims.first(axes - 1), y.dims.first(axes - 1)) &&
                          x.dims.back() == static_cast<std::int64_t>(shape_.length) &&
                          y.dims.back() == static_cast<std::int64_t>(shape_.outputs);
  if (!rows_match) return unusable("its input and output have other shapes than in the reference");
  return matrix_rows(shape_, x.dims, *y_values, *x_values, positions_, seed_);
}

void GramAccumulator::merge(std::any partial) {
  const Rows rows = std::any_cast<Rows>(std::move(partial));
  if (trouble_.empty()) trouble_ = rows.trouble;
  const std::size_t width = shape_.groups * shape_.length;
  for (std::size_t n = 0; n < rows.samples; ++n) {
    Fold& fold = folds_[samples_++ % kHoldOut == kHoldOut - 1 ? 1 : 0];
    for (std::size_t r = n * rows.per_sample; r < (n + 1) * rows.per_sample; ++r) {
      const auto x = std::span(rows.x).subspan(r * width, width);
      const auto y = std::span(rows.y).subspan(r * shape_.outputs, shape_.outputs);
      if (!all_finite(x) || !all_finite(y)) {
        ++non_finite_;
        continue;
      }
      fold.x.insert(fold.x.end(), x.begin(), x.end());
      fold.y.insert(fold.y.end(), y.begin(), y.end());
      if (++fold.waiting == kBlock) flush(fold);
    }
  }
}

void GramAccumulator::flush(Fold& fold) const {
  if (fold.waiting == 0) return;
  Gram& gram = fold.gram;
  const std::size_t k = shape_.length, width = shape_.groups * k, per_group = shape_.outputs_per_group();
  for (std::size_t g = 0; g < shape_.groups; ++g) {
    const auto x = std::span<const double>(fold.x).subspan(g * k);
    const auto y = std::span<const double>(fold.y).subspan(g * per_group);
    add_gram(fold.waiting, k, width, x, std::span(gram.xx).subspan(g * k * k, k * k));
    add_products({fold.waiting, per_group, shape_.outputs, k, width}, y, x,
                 std::span(gram.yx).subspan(g * per_group * k, per_group * k));
  }
  for (std::size_t r = 0; r < fold.waiting; ++r) {
    for (std::size_t i = 0; i < width; ++i) gram.x[i] += fold.x[r * width + i];
    for (std::size_t m = 0; m < shape_.outputs; ++m) {
      const double value = fold.y[r * shape_.outputs + m];
      gram.y[m] += value;
      gram.yy[m] += value * value;
    }
  }
  gram.rows += fold.waiting;
  fold.waiting = 0;
  fold.x.clear();
  fold.y.clear();
}

std::string GramAccumulator::finish() {
  for (Fold& fold : folds_) {
    flush(fold);
    const std::size_t k = shape_.length;
    for (std::size_t g = 0; g < shape_.groups; ++g)
      for (std::size_t i = 0; i < k; ++i)
        for (std::size_t j = 0; j < i; ++j) fold.gram.xx[(g * k + i) * k + j] = fold.gram.xx[(g * k + j) * k + i];
  }
  if (!trouble_.empty()) return trouble_;
  if (fitted().rows > 0) return {};
  return non_finite_ > 0 ? fmt::format("all {} rows of its input or output have NaN or infinite values", non_finite_)
                         : "the samples gave it no input";
}

}  // namespace onnxpress
