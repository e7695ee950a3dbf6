#include "repair/moments.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "num/linalg.h"

namespace onnxpress {
namespace {

constexpr std::size_t kBlock = 512;  // rows at once
constexpr std::size_t kPanel = 128;  // rows of a matrix of moments that one task sums up

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
}

// Where the positions of the input lie among those of the target, which may be more.
std::vector<std::size_t> positions_within(const RowsAccumulator::Sample& target, const RowsAccumulator::Sample& input,
                                          std::uint64_t seed) {
  const auto all = choose_positions(target.available, target.rows, seed);
  std::vector<std::size_t> places;
  for (const std::size_t position : choose_positions(target.available, input.rows, seed))
    places.push_back(static_cast<std::size_t>(std::ranges::lower_bound(all, position) - all.begin()));
  return places;
}

std::string mismatch(const Regression& r) {
  for (const RowsAccumulator* rows : {r.input, r.target, r.shortcut})
    if (rows != nullptr && !rows->trouble().empty()) return rows->trouble();
  if (r.input->samples().empty()) return "the samples gave it no input";
  bool fits = r.input->samples().size() == r.target->samples().size() &&
              r.input->width() == r.shape.groups * r.shape.length && r.target->width() == r.shape.outputs;
  for (std::size_t n = 0; fits && n < r.input->samples().size(); ++n) {
    const auto& x = r.input->samples()[n];
    const auto& t = r.target->samples()[n];
    fits = x.available == t.available && x.rows <= t.rows;
  }
  if (r.shortcut != nullptr)
    fits = fits && r.shortcut->width() == r.target->width() &&
           std::ranges::equal(r.shortcut->samples(), r.target->samples(), {}, &RowsAccumulator::Sample::rows,
                              &RowsAccumulator::Sample::rows);
  return fits ? "" : "its input and output have other shapes than in the original";
}

}  // namespace

Result<FitRows> FitRows::make(const Regression& r) {
  if (const std::string reason = mismatch(r); !reason.empty()) return fail(Code::unsupported, "{}", reason);
  FitRows rows;
  rows.regression_ = &r;
  const std::size_t outputs = r.shape.outputs;
  const auto scale = [&](std::size_t c) { return r.scale.empty() ? 1 : r.scale[c]; };
  const auto offset = [&](std::size_t c) { return r.offset.empty() ? 0 : r.offset[c]; };
  const auto add_sample = [&](std::size_t n) {
    const auto& x = r.input->samples()[n];
    const auto& t = r.target->samples()[n];
    const auto places = positions_within(t, x, r.seed);
    for (std::size_t p = 0; p < places.size(); ++p) {
      const auto target = r.target->row(t.first + places[p]);
      const auto shortcut = r.shortcut != nullptr ? r.shortcut->row(t.first + places[p]) : std::span<const float>();
      if (!all_finite(r.input->row(x.first + p)) || !all_finite(target) || !all_finite(shortcut)) continue;
      rows.input_rows_.push_back(x.first + p);
      for (std::size_t c = 0; c < outputs; ++c) {
        rows.total_.push_back(static_cast<float>((static_cast<double>(target[c]) - offset(c)) / scale(c)));
        if (!shortcut.empty()) rows.shift_.push_back(static_cast<float>(static_cast<double>(shortcut[c]) / scale(c)));
      }
    }
  };
  const std::size_t samples = r.input->samples().size();
  for (std::size_t n = 0; n < samples; ++n)
    if (!held_out(n)) add_sample(n);
  rows.fitted_ = rows.count();
  for (std::size_t n = 0; n < samples; ++n)
    if (held_out(n)) add_sample(n);
  if (samples < kHoldOut) return fail(Code::unsupported, "it takes {} samples to hold one out", kHoldOut);
  if (rows.fitted_ == 0 || rows.fitted_ == rows.count())
    return fail(Code::unsupported, "its input or output has NaN or infinite values in all samples");
  return rows;
}

double FitRows::clip(double value, std::size_t channel) const {
  return clips() ? std::clamp(value, regression_->low[channel], regression_->high[channel]) : value;
}

std::vector<double> FitRows::predict(const LinearWeights& weights, std::size_t begin, std::size_t end) const {
  const std::size_t k = shape().length, outputs = shape().outputs, per_group = shape().outputs_per_group();
  std::vector<double> x((end - begin) * k), part((end - begin) * per_group), out((end - begin) * outputs);
  for (std::size_t g = 0; g < shape().groups; ++g) {
    for (std::size_t r = begin; r < end; ++r)
      std::ranges::copy(input(r).subspan(g * k, k), x.begin() + static_cast<std::ptrdiff_t>((r - begin) * k));
    gemm({.m = end - begin, .n = per_group, .k = k, .transpose_b = true}, 1, x,
         std::span(weights.weight).subspan(g * per_group * k, per_group * k), 0, part);
    for (std::size_t r = 0; r < end - begin; ++r)
      for (std::size_t c = 0; c < per_group; ++c)
        out[r * outputs + g * per_group + c] = part[r * per_group + c] + weights.bias[g * per_group + c];
  }
  return out;
}

std::vector<float> FitRows::targets() const {
  std::vector<float> out(total_);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(static_cast<double>(out[i]) - shift(i));
  return out;
}

std::vector<float> FitRows::clipped_targets(const LinearWeights& weights, unsigned jobs) const {
  const std::size_t outputs = shape().outputs;
  std::vector<float> out(total_.size());
  const auto block = [&](std::size_t b) -> Status {
    const std::size_t begin = b * kBlock, end = std::min(count(), begin + kBlock);
    const std::vector<double> predicted = predict(weights, begin, end);
    for (std::size_t i = begin * outputs; i < end * outputs; ++i) {
      const std::size_t c = i % outputs;
      const double low = regression_->low[c], high = regression_->high[c];
      double target = static_cast<double>(total_[i]);
      const double sum = predicted[i - begin * outputs] + shift(i);
      if (target <= low)
        target = std::min(sum, low);
      else if (target >= high)
        target = std::max(sum, high);
      out[i] = static_cast<float>(target - shift(i));
    }
    return {};
  };
  // The blocks cannot fail.
  static_cast<void>(parallel_for((count() + kBlock - 1) / kBlock, jobs, block));
  return out;
}

double FitRows::error(const LinearWeights& weights, std::size_t first, std::size_t last, unsigned jobs) const {
  const std::size_t outputs = shape().outputs, blocks = (last - first + kBlock - 1) / kBlock;
  std::vector<double> errors(blocks), powers(blocks);
  const auto block = [&](std::size_t b) -> Status {
    const std::size_t begin = first + b * kBlock, end = std::min(last, begin + kBlock);
    const std::vector<double> predicted = predict(weights, begin, end);
    for (std::size_t i = begin * outputs; i < end * outputs; ++i) {
      const double wanted = clip(static_cast<double>(total_[i]), i % outputs);
      const double got = clip(predicted[i - begin * outputs] + shift(i), i % outputs);
      errors[b] += (wanted - got) * (wanted - got);
      powers[b] += wanted * wanted;
    }
    return {};
  };
  static_cast<void>(parallel_for(blocks, jobs, block));
  double error = 0, power = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    error += errors[b];
    power += powers[b];
  }
  return power > 0 ? error / power : error;
}

namespace {

// Sums rows [begin, end) for rows [first, first + kPanel) of the moments of one group.
void panel_moments(const FitRows& rows, const std::vector<float>& targets, std::size_t begin, std::size_t end,
                   bool with_xx, std::size_t group, std::size_t first, Gram& gram) {
  const std::size_t k = gram.shape.length, outputs = gram.shape.outputs_per_group(), all = gram.shape.outputs;
  const std::size_t height = std::min(kPanel, k - first), width = with_xx ? k - first : height;
  std::vector<double> x(kBlock * width), y(kBlock * outputs), xx(with_xx ? height * width : 0), yx(outputs * height);
  for (std::size_t from = begin; from < end; from += kBlock) {
    const std::size_t count = std::min(kBlock, end - from);
    for (std::size_t r = 0; r < count; ++r) {
      std::ranges::copy(rows.input(from + r).subspan(group * k + first, width),
                        x.begin() + static_cast<std::ptrdiff_t>(r * width));
      for (std::size_t c = 0; c < outputs; ++c)
        y[r * outputs + c] = static_cast<double>(targets[(from + r) * all + group * outputs + c]);
    }
    if (with_xx) add_products({count, height, width, width, width}, x, x, xx);
    add_products({count, outputs, outputs, height, width}, y, x, yx);
    for (std::size_t r = 0; r < count; ++r)
      for (std::size_t i = 0; i < height; ++i) gram.x[group * k + first + i] += x[r * width + i];
    if (first > 0) continue;
    for (std::size_t r = 0; r < count; ++r)
      for (std::size_t c = 0; c < outputs; ++c) {
        const double value = y[r * outputs + c];
        gram.y[group * outputs + c] += value;
        gram.yy[group * outputs + c] += value * value;
      }
  }
  double* to = gram.xx.data() + group * k * k;
  for (std::size_t i = 0; with_xx && i < height; ++i)
    for (std::size_t j = 0; j < width; ++j)
      to[(first + i) * k + first + j] = to[(first + j) * k + first + i] = xx[i * width + j];
  for (std::size_t c = 0; c < outputs; ++c)
    for (std::size_t i = 0; i < height; ++i) gram.yx[(group * outputs + c) * k + first + i] = yx[c * height + i];
}

}  // namespace

Gram moments(const FitRows& rows, const std::vector<float>& targets, std::size_t begin, std::size_t end, bool with_xx,
             unsigned jobs) {
  Gram gram(rows.shape());
  if (!with_xx) gram.xx.clear();
  gram.rows = end - begin;
  const std::size_t panels = (gram.shape.length + kPanel - 1) / kPanel;
  static_cast<void>(parallel_for(gram.shape.groups * panels, jobs, [&](std::size_t task) -> Status {
    panel_moments(rows, targets, begin, end, with_xx, task / panels, task % panels * kPanel, gram);
    return {};
  }));
  return gram;
}

}  // namespace onnxpress
