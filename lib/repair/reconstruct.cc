#include "repair/reconstruct.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "num/linalg.h"
#include "repair/moments.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

constexpr std::array kRidges = {1e-4, 1e-3, 1e-2, 1e-1};
constexpr int kClipSteps = 2;
constexpr double kExact = 1e-10;          // an error that is rounding only
constexpr double kWorthwhile = 1 - 1e-4;  // of the error before: less of a gain is noise
constexpr std::size_t kRowsAtOnce = 64;   // output channels that are solved together
constexpr double kSolveFlops = 2e11;      // for one masked system
constexpr std::uint64_t kSolveBytes = std::uint64_t{512} << 20;

// What the layer misses, as moments with its input: sum (y - W0 x - b0) x' for the channels of a group.
Doubles residual_moments(const Gram& gram, const Doubles& xx, const LinearWeights& now, std::size_t group,
                         bool centered) {
  const std::size_t k = gram.shape.length, outputs = gram.shape.outputs_per_group(), first = group * outputs;
  const auto x = gram.x_of(group);
  Doubles out;
  for (std::size_t c = first; c < first + outputs; ++c) {
    const double mean = centered ? gram.y[c] / static_cast<double>(gram.rows) : now.bias[c];
    for (std::size_t i = 0; i < k; ++i) out.push_back(gram.yx_of(c)[i] - mean * x[i]);
  }
  gemm({.m = outputs, .n = k, .k = k}, -1, std::span(now.weight).subspan(first * k, outputs * k), xx, 1, out);
  return out;
}

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Rows d of [count, k] with (a + ridge) d = r on the support and d = 0 elsewhere, by conjugate gradients with the
// diagonal as preconditioner. What is left when the budget ends still fits better than d = 0.
Doubles solve_on_support(const Doubles& a, double ridge, std::size_t k, Doubles r, std::span<const bool> support) {
  const std::size_t count = r.size() / k;
  const double cost = 2 * static_cast<double>(count) * static_cast<double>(k) * static_cast<double>(k);
  const auto most = static_cast<std::size_t>(std::clamp(kSolveFlops / cost, 8.0, 200.0));
  Doubles d(r.size(), 0), z(r.size()), p(r.size()), q(r.size()), rz(count), start(count);
  const auto row = [&](Doubles& values, std::size_t c) { return std::span(values).subspan(c * k, k); };
  const auto precondition = [&] {
    for (std::size_t i = 0; i < r.size(); ++i) {
      if (!support[i]) r[i] = 0;
      const double diagonal = a[i % k * (k + 1)] + ridge;
      z[i] = diagonal > 0 ? r[i] / diagonal : 0;
    }
  };
  precondition();
  p = z;
  for (std::size_t c = 0; c < count; ++c) start[c] = rz[c] = dot(row(r, c), row(z, c));
  for (std::size_t step = 0; step < most; ++step) {
    gemm({.m = count, .n = k, .k = k}, 1, p, a, 0, q);
    bool open = false;
    for (std::size_t c = 0; c < count; ++c) {
      auto pc = row(p, c), qc = row(q, c), dc = row(d, c), rc = row(r, c);
      for (std::size_t i = 0; i < k; ++i) qc[i] = support[c * k + i] ? qc[i] + ridge * pc[i] : 0;
      const double curvature = dot(pc, qc);
      const bool go = rz[c] > 1e-24 * start[c] && curvature > 0;
      open = open || go;
      const double alpha = go ? rz[c] / curvature : 0;
      for (std::size_t i = 0; i < k; ++i) {
        dc[i] += alpha * pc[i];
        rc[i] -= alpha * qc[i];
      }
    }
    if (!open) break;
    precondition();
    for (std::size_t c = 0; c < count; ++c) {
      const double next = dot(row(r, c), row(z, c)), beta = rz[c] > 0 ? next / rz[c] : 0;
      for (std::size_t i = 0; i < k; ++i) p[c * k + i] = z[c * k + i] + beta * p[c * k + i];
      rz[c] = next;
    }
  }
  return d;
}

// `out` += D of one group; false when the system is singular.
bool fit_group(const Gram& gram, const LinearWeights& now, const std::vector<bool>& support, double ridge,
               bool can_shift, std::size_t group, unsigned jobs, Doubles& out) {
  const std::size_t k = gram.shape.length, outputs = gram.shape.outputs_per_group(), first = group * outputs * k;
  Doubles a = gram.xx_copy(group, can_shift);
  double trace = 0;
  for (std::size_t i = 0; i < k; ++i) trace += a[i * (k + 1)];
  if (!(trace > 0)) return std::isfinite(trace);  // it reads constants: only the bias tells
  Doubles r = residual_moments(gram, a, now, group, can_shift);
  const double lambda = ridge * trace / static_cast<double>(k);
  if (support.empty()) {
    for (std::size_t i = 0; i < k; ++i) a[i * (k + 1)] += lambda;
    if (!cholesky(a, k)) return false;
    solve_cholesky(a, k, r);
    for (std::size_t i = 0; i < r.size(); ++i) out[first + i] += r[i];
    return true;
  }
  const std::size_t chunks = (outputs + kRowsAtOnce - 1) / kRowsAtOnce;
  const auto solve = [&](std::size_t chunk) -> Status {
    const std::size_t begin = chunk * kRowsAtOnce * k, size = std::min(kRowsAtOnce * k, outputs * k - begin);
    // A span of vector<bool> is no span of bools.
    const auto free = std::make_unique<bool[]>(size);
    for (std::size_t i = 0; i < size; ++i) free[i] = support[first + begin + i];
    const auto from = r.begin() + static_cast<std::ptrdiff_t>(begin);
    const Doubles d = solve_on_support(a, lambda, k, Doubles(from, from + static_cast<std::ptrdiff_t>(size)),
                                       std::span<const bool>(free.get(), size));
    for (std::size_t i = 0; i < size; ++i) out[first + begin + i] += d[i];
    return {};
  };
  return parallel_for(chunks, jobs, solve).has_value();
}

std::vector<bool> support_of(const LinearWeights& now, bool keep_zeros) {
  std::vector<bool> support;
  if (keep_zeros)
    for (const double w : now.weight) support.push_back(w != 0);
  return support;
}

// Fits, judged by the samples held out.
class Fitter {
 public:
  Fitter(const FitRows& rows, const LinearWeights& now, const ReconstructSettings& settings)
      : rows_(rows), now_(now), settings_(settings), support_(support_of(now, settings.keep_zeros)) {}

  Result<Reconstruction> run() const {
    const std::size_t fitted = rows_.fitted();
    const std::vector<float> plain = rows_.targets();
    const Gram part = moments(rows_, plain, 0, fitted, true, settings_.jobs);
    Reconstruction best{.weights = now_, .error_before = judge(now_), .rows = rows_.count()};
    best.error_after = best.error_before;
    if (best.error_before <= kExact) {
      best.change = Reconstruction::Change::exact;
      return best;
    }
    if (settings_.can_shift) {
      const LinearWeights shifted{now_.weight, part.mean_bias(now_.weight)};
      take(best, Reconstruction::Change::bias, 0, judge(shifted));
    }
    std::vector<double> ridges(kRidges.begin(), kRidges.end());
    if (settings_.ridge) ridges = {*settings_.ridge};
    std::vector<std::optional<LinearWeights>> trials(ridges.size());
    OP_TRY(parallel_for(ridges.size(), jobs_within(settings_.jobs, 8 * part.xx.size(), kSolveBytes),
                        [&](std::size_t i) -> Status {
                          trials[i] = fit(part, ridges[i]);
                          return {};
                        }));
    const LinearWeights* trial = nullptr;
    for (std::size_t i = 0; i < ridges.size(); ++i)
      if (trials[i] && take(best, Reconstruction::Change::weights, ridges[i], judge(*trials[i]))) trial = &*trials[i];
    if (best.change == Reconstruction::Change::none) return best;
    const int steps = trial == nullptr || !rows_.clips() ? 0 : clip_steps(part, *trial, best);
    Gram all = moments(rows_, plain, fitted, rows_.count(), true, settings_.jobs);
    all.add(part);
    best.weights = best.change == Reconstruction::Change::bias ? LinearWeights{now_.weight, all.mean_bias(now_.weight)}
                                                               : final_fit(std::move(all), best.ridge, steps);
    return best;
  }

 private:
  double judge(const LinearWeights& weights) const {
    return rows_.error(weights, rows_.fitted(), rows_.count(), settings_.jobs);
  }
  std::optional<LinearWeights> fit(const Gram& gram, double ridge) const {
    return ridge_fit(gram, now_, support_, ridge, settings_.can_shift, settings_.jobs);
  }
  static bool take(Reconstruction& best, Reconstruction::Change change, double ridge, double error) {
    if (!(error < best.error_after * kWorthwhile)) return false;
    best.change = change;
    best.ridge = ridge;
    best.error_after = error;
    return true;
  }
  // Moves the targets of `gram` to where the clipping behind the layer cannot tell the difference.
  void move_targets(Gram& gram, const LinearWeights& at, std::size_t end) const {
    const Gram moved = moments(rows_, rows_.clipped_targets(at, settings_.jobs), 0, end, false, settings_.jobs);
    gram.yx = moved.yx;
    gram.y = moved.y;
    gram.yy = moved.yy;
  }
  // How many steps do best on samples held out.
  int clip_steps(Gram part, LinearWeights at, Reconstruction& best) const {
    int steps = 0;
    for (int step = 1; step <= kClipSteps; ++step) {
      move_targets(part, at, rows_.fitted());
      auto next = fit(part, best.ridge);
      if (!next) break;
      at = std::move(*next);
      if (take(best, best.change, best.ridge, judge(at))) steps = step;
    }
    return steps;
  }
  LinearWeights final_fit(Gram all, double ridge, int steps) const {
    auto weights = fit(all, ridge);
    for (int step = 0; step < steps && weights; ++step) {
      move_targets(all, *weights, rows_.count());
      weights = fit(all, ridge);
    }
    return weights.value_or(now_);
  }

  const FitRows& rows_;
  const LinearWeights& now_;
  const ReconstructSettings& settings_;
  std::vector<bool> support_;
};

}  // namespace

std::optional<LinearWeights> ridge_fit(const Gram& gram, const LinearWeights& now, const std::vector<bool>& support,
                                       double ridge, bool can_shift, unsigned jobs) {
  LinearWeights out = now;
  for (std::size_t group = 0; group < gram.shape.groups; ++group)
    if (!fit_group(gram, now, support, ridge, can_shift, group, jobs, out.weight)) return std::nullopt;
  if (can_shift) out.bias = gram.mean_bias(out.weight);
  const auto finite = [](double v) { return std::isfinite(v); };
  if (!std::ranges::all_of(out.weight, finite) || !std::ranges::all_of(out.bias, finite)) return std::nullopt;
  return out;
}

Result<Reconstruction> reconstruct(const Regression& regression, const LinearWeights& now,
                                   const ReconstructSettings& settings) {
  OP_LET(const FitRows rows, FitRows::make(regression));
  return Fitter(rows, now, settings).run();
}

}  // namespace onnxpress
