#include "quant/rounding.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "num/linalg.h"

namespace onnxpress {
namespace {

constexpr double kPairLimit = 128;
constexpr std::size_t kNoPair = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kPairMovesUpTo = 1024;  // columns; a sweep over pairs takes length^2 steps
constexpr int kSweeps = 100;                  // far above what was ever needed

// Half to even, like nearbyint() but inline: in this loop a call is most of the time. Adding 1.5 * 2^52 leaves no bits
// behind the point.
double round_even(double x) {
  constexpr double kShift = 6755399441055744.0;
  return std::abs(x) < 1e15 ? (x + kShift) - kShift : x;
}

constexpr int kScaleBits = 12;  // of the scale that is the best for its codes: far finer than its effect

// Scales that are tried, relative to the given one: many where a channel has few codes and luck decides how well they
// fit, few where the errors of many codes average out.
std::vector<double> scale_factors(std::size_t length) {
  const std::size_t count = length <= 32 ? 40 : length <= 256 ? 12 : length <= 1024 ? 6 : 1;
  std::vector<double> factors = {1};
  for (std::size_t i = 1; i < count; ++i)
    factors.push_back(1.1 - 0.5 * static_cast<double>(i) / static_cast<double>(count));
  return factors;
}

}  // namespace

double round_to_bits(double value, double unit, int bits) {
  const double step = unit > 0 && std::isfinite(unit) ? std::ldexp(1.0, std::ilogb(unit) - bits) : 0;
  return step > 0 ? std::nearbyint(value / step) * step : value;
}

// One channel in solver order.
struct RoundingSolver::Work {
  std::vector<double> weight, target, optimum;
  std::vector<std::size_t> pair;  // solver position of the partner, or kNoPair
  CodeRange range;
  std::int64_t max_move = 0;
  float scale = 1;
  std::vector<double> low, high;  // of each code, for this scale
  std::vector<double> codes;      // integers
  std::vector<double> gradient;   // gram * (scale * codes) - target, half the derivative of f by scale * codes

  void set_scale(float value) {
    scale = value;
    for (std::size_t k = 0; k < weight.size(); ++k) {
      low[k] = range.min;
      high[k] = range.max;
      if (max_move == 0) continue;
      const double nearest = std::clamp(round_even(weight[k] / scale), low[k], high[k]);
      low[k] = std::max(low[k], nearest - static_cast<double>(max_move));
      high[k] = std::min(high[k], nearest + static_cast<double>(max_move));
    }
  }
  // The code of position k nearest to `value` that its limits and its partner's code allow.
  double allowed(std::size_t k, double value) const {
    double least = low[k], most = high[k];
    if (pair[k] != kNoPair) {
      const double partner = codes[pair[k]];
      if (partner > 0) most = std::min(most, kPairLimit - partner);
      if (partner < 0) least = std::max(least, -kPairLimit - partner);
    }
    // With max_move the two demands can exclude each other; what the runtime needs wins.
    if (least > most) return codes[k];
    return std::clamp(round_even(value), least, most);
  }
};

Result<RoundingSolver> RoundingSolver::make(std::span<const double> gram, std::size_t length, double damping) {
  assert(gram.size() == length * length && length > 0);
  RoundingSolver solver;
  solver.length_ = length;
  double mean = 0;
  for (std::size_t k = 0; k < length; ++k) mean += gram[k * length + k] / static_cast<double>(length);
  solver.order_.resize(length);
  std::iota(solver.order_.begin(), solver.order_.end(), 0UZ);
  std::ranges::stable_sort(solver.order_, {}, [&](std::size_t k) { return gram[k * length + k]; });
  solver.gram_.resize(length * length);
  for (std::size_t i = 0; i < length; ++i)
    for (std::size_t j = 0; j < length; ++j)
      solver.gram_[i * length + j] = gram[solver.order_[i] * length + solver.order_[j]];
  solver.pull_.assign(length, 0);
  // A column that is always zero, or a sum of others, needs something on the diagonal whatever the damping.
  double floor = mean > 0 ? 1e-9 * mean : 1;
  for (int attempt = 0; attempt < 12; ++attempt, floor *= 10) {
    for (std::size_t i = 0; i < length; ++i) {
      const double added = damping * gram[solver.order_[i] * length + solver.order_[i]] + floor;
      solver.gram_[i * length + i] += added - solver.pull_[i];
      solver.pull_[i] = added;
    }
    solver.factor_ = solver.gram_;
    if (!cholesky(solver.factor_, length)) continue;
    for (std::size_t i = 0; i < length; ++i) solver.inverse_.push_back(1 / solver.gram_[i * length + i]);
    return solver;
  }
  return fail(Code::resource, "the second moments of {} inputs cannot be factored", length);
}

void RoundingSolver::refresh(Work& work) const {
  for (std::size_t i = 0; i < length_; ++i) work.gradient[i] = -work.target[i];
  for (std::size_t i = 0; i < length_; ++i) add_row(work, i, work.codes[i]);
}

void RoundingSolver::add_row(Work& work, std::size_t k, double by) const {
  const double step = static_cast<double>(work.scale) * by;
  const double* row = gram_.data() + k * length_;
  double* gradient = work.gradient.data();
  for (std::size_t j = 0; j < length_; ++j) gradient[j] += step * row[j];
}

void RoundingSolver::apply(Work& work, std::size_t k, double by) const {
  work.codes[k] += by;
  add_row(work, k, by);
}

// f = x' G x - 2 x' h with x = s q is x' (gradient - h).
double RoundingSolver::objective(const Work& work) const {
  double sum = 0;
  for (std::size_t k = 0; k < length_; ++k) sum += work.codes[k] * (work.gradient[k] - work.target[k]);
  return sum * work.scale;
}

float RoundingSolver::best_scale(const Work& work) const {
  double square = 0, product = 0;
  for (std::size_t k = 0; k < length_; ++k) {
    square += work.codes[k] * (work.gradient[k] + work.target[k]);
    product += work.codes[k] * work.target[k];
  }
  return square > 0 ? static_cast<float>(round_to_bits(product / square * work.scale, work.scale, kScaleBits)) : 0;
}

// ||r (s q - w*)||^2, one column after the other from the last: each takes the value that is best given those before
// it, as far as codes allow, and the error goes into the target of the rest.
void RoundingSolver::round_in_order(Work& work) const {
  std::vector<double> error(length_);
  // Limits that depend on a partner count it as 0 until it has its code.
  std::ranges::fill(work.codes, 0);
  for (std::size_t k = length_; k-- > 0;) {
    const double* row = factor_.data() + k * length_;
    double carried = 0;
    for (std::size_t j = k + 1; j < length_; ++j) carried += row[j] * error[j];
    const double wanted = work.optimum[k] + carried / row[k];
    work.codes[k] = work.allowed(k, wanted / work.scale);
    error[k] = work.optimum[k] - static_cast<double>(work.scale) * work.codes[k];
  }
}

bool RoundingSolver::move_single(Work& work, std::size_t k) const {
  const double s = work.scale;
  const double to = work.allowed(k, work.codes[k] - work.gradient[k] * inverse_[k] / s);
  if (to == work.codes[k]) return false;
  const double step = s * (to - work.codes[k]);
  const double change = step * (2 * work.gradient[k] + step * gram_[k * length_ + k]);
  if (!(change < -1e-12 * std::abs(step * work.target[k]))) return false;
  apply(work, k, to - work.codes[k]);
  return true;
}

// The code that best answers a step of code k, as far as it lowers f by more than nothing: its position and the step,
// or no position.
std::pair<std::size_t, double> RoundingSolver::best_answer(const Work& work, std::size_t k, double by) const {
  const double s = work.scale, step = s * by;
  const double* row = gram_.data() + k * length_;
  const double alone = step * (2 * work.gradient[k] + step * row[k]);
  double best = -1e-9 * std::abs(alone);
  std::pair<std::size_t, double> answer{length_, 0};
  for (std::size_t j = 0; j < length_; ++j) {
    const double gradient = work.gradient[j] + step * row[j];
    // No step of any size would do better than this.
    if (alone - gradient * gradient * inverse_[j] >= best || j == k || j == work.pair[k]) continue;
    const double own = round_even(-gradient * inverse_[j] / s);
    const double change = alone + s * own * (2 * gradient + s * own * gram_[j * length_ + j]);
    if (own == 0 || change >= best || work.allowed(j, work.codes[j] + own) != work.codes[j] + own) continue;
    best = change;
    answer = {j, own};
  }
  return answer;
}

// One code by one step and another by whatever answers it best: what single moves cannot reach across a ridge of f.
bool RoundingSolver::move_pairs(Work& work) const {
  bool moved = false;
  for (std::size_t k = 0; k < length_; ++k)
    for (const double by : {1.0, -1.0}) {
      if (work.allowed(k, work.codes[k] + by) != work.codes[k] + by) continue;
      const auto [other, own] = best_answer(work, k, by);
      if (other == length_) continue;
      apply(work, k, by);
      apply(work, other, own);
      moved = true;
    }
  return moved;
}

void RoundingSolver::descend(Work& work) const {
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool moved = false;
    for (std::size_t k = length_; k-- > 0;) moved = move_single(work, k) || moved;
    if (!moved) return;
  }
}

void RoundingSolver::try_scale(Work& work, float scale, bool rescale) const {
  work.set_scale(scale);
  round_in_order(work);
  refresh(work);
  descend(work);
  for (int round = 0; rescale && round < 3; ++round) {
    const float better = best_scale(work);
    // A step that is far off means codes at their limits: another candidate is the right one then.
    if (!(better > 0.9F * scale && better < 1.1F * scale) || better == work.scale) break;
    work.set_scale(better);
    refresh(work);
    descend(work);
  }
}

RoundingSolver::Work RoundingSolver::prepare(std::span<const double> weight, std::span<const double> target,
                                             const RoundingLimits& limits) const {
  Work work;
  work.range = limits.codes;
  work.max_move = limits.max_move;
  work.pair.assign(length_, kNoPair);
  std::vector<std::size_t> place(length_);
  for (std::size_t i = 0; i < length_; ++i) place[order_[i]] = i;
  for (std::size_t i = 0; i < length_; ++i) {
    const std::size_t column = order_[i];
    work.weight.push_back(weight[column]);
    work.target.push_back(target[column] + pull_[i] * weight[column]);
    if (!limits.pairs.empty() && limits.pairs[column] < length_) work.pair[i] = place[limits.pairs[column]];
  }
  work.optimum = work.target;
  solve_cholesky(factor_, length_, work.optimum);
  work.low.resize(length_);
  work.high.resize(length_);
  work.codes.resize(length_);
  work.gradient.resize(length_);
  return work;
}

RoundedChannel RoundingSolver::solve(std::span<const double> weight, std::span<const double> target, float scale,
                                     const RoundingLimits& limits, RoundingEffort effort) const {
  assert(weight.size() == length_ && target.size() == length_ && scale > 0);
  assert(limits.pairs.empty() || limits.pairs.size() == length_);
  Work work = prepare(weight, target, limits);
  Work best = work;
  try_scale(best, scale, false);
  double lowest = objective(best);
  for (const double factor : effort.scales ? scale_factors(length_) : std::vector<double>()) {
    const auto candidate = static_cast<float>(factor * scale);
    if (candidate < limits.least_scale) continue;
    try_scale(work, candidate, true);
    if (work.scale < limits.least_scale) continue;
    if (const double value = objective(work); value < lowest) {
      lowest = value;
      best = work;
    }
  }
  if (effort.pairs && length_ <= kPairMovesUpTo)
    for (int sweep = 0; sweep < kSweeps && move_pairs(best); ++sweep) descend(best);
  RoundedChannel out{.codes = std::vector<std::int32_t>(length_), .scale = best.scale, .objective = objective(best)};
  for (std::size_t i = 0; i < length_; ++i) out.codes[order_[i]] = static_cast<std::int32_t>(best.codes[i]);
  return out;
}

}  // namespace onnxpress
