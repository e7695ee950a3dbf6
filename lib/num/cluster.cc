#include "num/cluster.h"

#include <algorithm>
#include <cassert>
#include <cstdint>

namespace onnxpress {
namespace {

// Sums over ranges of sorted values.
class Ranges {
 public:
  explicit Ranges(std::span<const double> sorted) : sorted_(sorted), sum_(sorted.size() + 1), square_(sum_.size()) {
    for (std::size_t i = 0; i < sorted.size(); ++i) {
      sum_[i + 1] = sum_[i] + sorted[i];
      square_[i + 1] = square_[i] + sorted[i] * sorted[i];
    }
  }
  double mean(std::size_t begin, std::size_t end) const {
    // Of equal values exactly that value, which a sum would round.
    if (sorted_[begin] == sorted_[end - 1]) return sorted_[begin];
    return (sum_[end] - sum_[begin]) / static_cast<double>(end - begin);
  }
  double error(std::size_t begin, std::size_t end) const {
    if (end - begin < 2) return 0;
    const double sum = sum_[end] - sum_[begin];
    return std::max(0.0, square_[end] - square_[begin] - sum * sum / static_cast<double>(end - begin));
  }

 private:
  std::span<const double> sorted_;
  std::vector<double> sum_, square_;
};

// Where the values of each centre begin, and the end: those up to the middle between two centres are the lower one's.
std::vector<std::size_t> borders(std::span<const double> sorted, const std::vector<double>& centres) {
  std::vector<std::size_t> at(centres.size() + 1, sorted.size());
  at[0] = 0;
  for (std::size_t c = 1; c < centres.size(); ++c) {
    const double middle = centres[c - 1] + (centres[c] - centres[c - 1]) / 2;
    at[c] = static_cast<std::size_t>(std::ranges::upper_bound(sorted, middle) - sorted.begin());
  }
  return at;
}

// Centres of the clusters; each empty one is given to a half of the cluster with the largest error that is left.
std::vector<double> updated(std::span<const double> sorted, const Ranges& ranges, const std::vector<double>& centres) {
  struct Cluster {
    std::size_t begin, end;
    double error;
  };
  const std::vector<std::size_t> at = borders(sorted, centres);
  std::vector<Cluster> clusters;
  for (std::size_t c = 0; c < centres.size(); ++c)
    if (at[c] < at[c + 1]) clusters.push_back({at[c], at[c + 1], ranges.error(at[c], at[c + 1])});
  while (clusters.size() < centres.size()) {
    Cluster& worst = *std::ranges::max_element(clusters, {}, &Cluster::error);
    if (worst.error <= 0) break;
    const auto part = sorted.subspan(worst.begin, worst.end - worst.begin);
    const double mean = ranges.mean(worst.begin, worst.end);
    const std::size_t middle =
        worst.begin + static_cast<std::size_t>(std::ranges::upper_bound(part, mean) - part.begin());
    if (middle == worst.begin || middle == worst.end) {  // all equal but for rounding
      worst.error = 0;
      continue;
    }
    const std::size_t end = worst.end;
    worst = {worst.begin, middle, ranges.error(worst.begin, middle)};
    clusters.push_back({middle, end, ranges.error(middle, end)});
  }
  std::vector<double> means;
  for (const Cluster& cluster : clusters) means.push_back(ranges.mean(cluster.begin, cluster.end));
  std::ranges::sort(means);
  return means;
}

}  // namespace

std::vector<double> cluster_centres(std::span<const double> values, std::size_t most, int iterations) {
  assert(!values.empty() && most > 0);
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  std::vector<double> centres;
  for (std::size_t i = 0; i < sorted.size() && centres.size() <= most; ++i)
    if (i == 0 || sorted[i] != sorted[i - 1]) centres.push_back(sorted[i]);
  if (centres.size() <= most) return centres;
  centres.resize(most);
  const double lowest = sorted.front(),
               step = (sorted.back() - lowest) / static_cast<double>(std::max<std::size_t>(most, 2) - 1);
  for (std::size_t c = 0; c < most; ++c) centres[c] = lowest + step * static_cast<double>(c);
  const Ranges ranges(sorted);
  for (int i = 0; i < iterations; ++i) {
    std::vector<double> next = updated(sorted, ranges, centres);
    if (next == centres) break;
    centres = std::move(next);
  }
  return centres;
}

std::size_t nearest_centre(std::span<const double> centres, double value) {
  const auto above = static_cast<std::size_t>(std::ranges::lower_bound(centres, value) - centres.begin());
  if (above == 0) return 0;
  if (above == centres.size()) return above - 1;
  return value - centres[above - 1] <= centres[above] - value ? above - 1 : above;
}

}  // namespace onnxpress
