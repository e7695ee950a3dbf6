#include "sparse/weight_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "num/channels.h"

namespace onnxpress {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLeast = std::numeric_limits<double>::denorm_min();

// Steele et al., "Fast splittable pseudorandom number generators": the finalizer of SplitMix64.
std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

void randomize(std::span<double> magnitudes, std::uint64_t seed) {
  for (std::size_t i = 0; i < magnitudes.size(); ++i)
    if (magnitudes[i] != 0) magnitudes[i] = std::ldexp(static_cast<double>(mix(mix(seed) ^ i) >> 11) + 1, -53);
}

void normalize(std::span<double> magnitudes) {
  double squares = 0;
  for (const double m : magnitudes)
    if (m < kInfinity) squares += m * m;
  const double norm = std::sqrt(squares);
  for (double& m : magnitudes)
    if (m != 0 && norm > 0) m = std::max(m / norm, kLeast);
}

void lamp(std::span<double> magnitudes) {
  std::vector<double> sorted;
  for (const double m : magnitudes)
    if (m < kInfinity) sorted.push_back(m);
  std::ranges::sort(sorted);
  std::vector<double> tail(sorted.size());  // sum of squares from here on
  double sum = 0;
  for (std::size_t i = sorted.size(); i-- > 0;) tail[i] = sum += sorted[i] * sorted[i];
  for (double& m : magnitudes) {
    if (m == 0 || m == kInfinity) continue;
    const auto first = static_cast<std::size_t>(std::ranges::lower_bound(sorted, m) - sorted.begin());
    m = tail[first] > 0 ? std::max(m * m / tail[first], kLeast) : kLeast;
  }
}

}  // namespace

Result<Tensor> weight_scores(const Tensor& weight, WeightScore score, std::uint64_t seed) {
  OP_LET(std::vector<double> magnitudes, to_doubles(weight.view()));
  for (double& m : magnitudes) m = std::isfinite(m) ? std::abs(m) : kInfinity;
  if (score == WeightScore::random) randomize(magnitudes, seed);
  if (score == WeightScore::normalized) normalize(magnitudes);
  if (score == WeightScore::lamp) lamp(magnitudes);
  Tensor out(DType::f64, Dims(weight.dims().begin(), weight.dims().end()));
  std::ranges::copy(magnitudes, out.as_mutable<double>().begin());
  return out;
}

}  // namespace onnxpress
