#include "calib/density.h"

#include <algorithm>
#include <cmath>

namespace onnxpress {
namespace {

// `count` values spread evenly over [a, b]; one point when a == b.
Mass uniform(double count, double a, double b) {
  const double width = b - a;
  return {.count = count,
          .first = count * (a + b) / 2,
          .second = count * (a * a + a * b + b * b) / 3,
          .shape = width > 0 ? count * std::log(count / width) : 0,
          .width = width};
}

}  // namespace

Mass Mass::operator-(const Mass& other) const {
  return {count - other.count, first - other.first, second - other.second, shape - other.shape, width - other.width};
}

Mass& Mass::operator+=(const Mass& other) {
  count += other.count;
  first += other.first;
  second += other.second;
  shape += other.shape;
  width += other.width;
  return *this;
}

SideDensity::SideDensity(const Histogram& histogram, Histogram::Side side, double extreme)
    : histogram_(histogram), extreme_(extreme), sums_(1) {
  const auto& counts = histogram.side(side);
  const auto is_used = [](std::uint64_t count) { return count != 0; };
  const auto first = std::ranges::find_if(counts, is_used);
  if (first == counts.end()) return;
  first_ = static_cast<std::size_t>(first - counts.begin());
  for (std::size_t i = first_; i < counts.size(); ++i) {
    const double low = histogram.edge(i);
    if (low > extreme) break;
    Mass next = sums_.back();
    if (counts[i] != 0) {
      const double high = std::min<double>(histogram.edge(i + 1), extreme);
      next += uniform(static_cast<double>(counts[i]), low, high);
    }
    sums_.push_back(next);
  }
}

Mass SideDensity::below(double magnitude) const {
  if (magnitude >= extreme_ || sums_.size() == 1) return magnitude > 0 ? total() : Mass{};
  const auto at = static_cast<float>(magnitude);
  if (at < histogram_.edge(first_)) return {};
  // Rounding to float may reach the next edge; what the bins up to there hold is the same then.
  const std::size_t i = std::min(histogram_.bin(at) - first_, sums_.size() - 2);
  Mass sum = sums_[i];
  const double count = sums_[i + 1].count - sum.count;
  if (count <= 0) return sum;
  const double low = histogram_.edge(first_ + i);
  const double high = std::min<double>(histogram_.edge(first_ + i + 1), extreme_);
  const double end = std::clamp(magnitude, low, high), share = high > low ? (end - low) / (high - low) : 0;
  Mass part = uniform(count * share, low, end);
  part.shape = (sums_[i + 1].shape - sum.shape) * share;
  sum += part;
  return sum;
}

Density::Density(const ValueStatistics& statistics)
    : positive(statistics.histogram, Histogram::positive, std::max(statistics.range.max, 0.0F)),
      negative(statistics.histogram, Histogram::negative, std::max(-statistics.range.min, 0.0F)),
      zeros(static_cast<double>(statistics.histogram.zeros())),
      count(zeros + positive.total().count + negative.total().count) {}

}  // namespace onnxpress
