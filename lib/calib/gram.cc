#include "calib/gram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "num/linalg.h"

namespace onnxpress {
namespace {

constexpr std::size_t kBlock = 256;  // rows per update of the sums

// What a layer reads and what it should give there.
struct PairedRows {
  Rows x, y;
  std::string trouble = {};
};

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
}

void accumulate(std::vector<double>& sum, const std::vector<double>& other) {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
}

}  // namespace

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

std::vector<double> Gram::xx_copy(std::size_t group, bool centered) const {
  const auto raw = xx_of(group), mean = x_of(group);
  std::vector<double> out(raw.begin(), raw.end());
  const std::size_t k = mean.size();
  for (std::size_t i = 0; centered && i < k; ++i)
    for (std::size_t j = 0; j < k; ++j) out[i * k + j] -= mean[i] * mean[j] / static_cast<double>(rows);
  return out;
}
std::vector<double> Gram::yx_copy(std::size_t channel, bool centered) const {
  const auto raw = yx_of(channel), mean = x_of(channel / shape.outputs_per_group());
  std::vector<double> out(raw.begin(), raw.end());
  for (std::size_t k = 0; centered && k < out.size(); ++k) out[k] -= y[channel] * mean[k] / static_cast<double>(rows);
  return out;
}
std::vector<double> Gram::mean_bias(std::span<const double> weight) const {
  std::vector<double> bias;
  for (std::size_t c = 0; c < shape.outputs; ++c) {
    const auto mean = x_of(c / shape.outputs_per_group());
    const auto row = weight.subspan(c * shape.length, shape.length);
    bias.push_back((y[c] - std::inner_product(mean.begin(), mean.end(), row.begin(), 0.0)) / static_cast<double>(rows));
  }
  return bias;
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
  PairedRows rows{.x = patch_rows(shape_, x, positions_, seed_),
                  .y = channel_rows(shape_.is_conv() ? 1 : -1, y, positions_, seed_)};
  rows.trouble = rows.x.trouble.empty() ? rows.y.trouble : rows.x.trouble;
  if (rows.trouble.empty() && (rows.x.samples != rows.y.samples || rows.x.available != rows.y.available ||
                               rows.y.width != shape_.outputs || x.dims.size() != y.dims.size()))
    rows.trouble = "its input and output have other shapes than in the reference";
  return rows;
}

void GramAccumulator::merge(std::any partial) {
  const PairedRows rows = std::any_cast<PairedRows>(std::move(partial));
  if (trouble_.empty()) trouble_ = rows.trouble;
  if (!rows.trouble.empty()) return;
  const std::size_t width = shape_.groups * shape_.length, per_sample = rows.x.per_sample;
  for (std::size_t n = 0; n < rows.x.samples; ++n) {
    Fold& fold = folds_[onnxpress::held_out(samples_++) ? 1 : 0];
    for (std::size_t r = n * per_sample; r < (n + 1) * per_sample; ++r) {
      const auto x = std::span(rows.x.values).subspan(r * width, width);
      const auto y = std::span(rows.y.values).subspan(r * shape_.outputs, shape_.outputs);
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
