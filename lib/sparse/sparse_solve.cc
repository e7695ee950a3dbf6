#include "sparse/sparse_solve.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/parallel.h"
#include "num/linalg.h"
#include "num/select.h"
#include "num/updates.h"

namespace onnxpress {
namespace {

constexpr int kAttempts = 8;             // each with ten times the ridge
constexpr std::size_t kRowsAtOnce = 64;  // fixed, so that kernels see the same shapes at any thread count

std::vector<double> identity(std::size_t n) {
  std::vector<double> out(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i) out[i * n + i] = 1;
  return out;
}

}  // namespace

Result<SparseSolver> SparseSolver::make(std::vector<double> gram, std::size_t length, double ridge) {
  assert(gram.size() == length * length);
  SparseSolver solver;
  solver.length_ = length;
  double mean = 0;
  for (std::size_t i = 0; i < length; ++i) mean += gram[i * length + i] / static_cast<double>(length);
  if (!(mean > 0)) mean = 1;
  double add = std::max(ridge, 1e-9) * mean;
  for (int attempt = 0; attempt < kAttempts; ++attempt, add *= 10) {
    solver.hessian_ = gram;
    for (std::size_t i = 0; i < length; ++i) solver.hessian_[i * length + i] += add;
    solver.factor_ = solver.hessian_;
    solver.ridge_ = add;
    if (cholesky(solver.factor_, length)) return solver;
  }
  return fail(Code::resource, "the second moments of its input cannot be factored");
}

void SparseSolver::centre(std::span<double> target, std::span<const double> weight) const {
  for (std::size_t i = 0; i < target.size(); ++i) target[i] += ridge_ * weight[i];
  solve_cholesky(factor_, length_, target);
}

bool SparseSolver::invert() {
  inverse_ = identity(length_);
  solve_cholesky(factor_, length_, inverse_);
  for (std::size_t i = 0; i < length_; ++i)  // symmetric to the last bit
    for (std::size_t j = 0; j < i; ++j) inverse_[i * length_ + j] = inverse_[j * length_ + i];
  sweep_ = inverse_;
  return cholesky(sweep_, length_);
}

// One channel on its way: what is left of it, without gaps.
struct SparseSolver::Elimination {
  std::size_t stride = 0, left = 0;
  std::vector<std::uint32_t> column;  // of each that is left
  std::vector<double> weight;         // of each that is left
  std::vector<double> inverse;  // [stride, stride], of the first `left` rows and columns the upper triangle counts
  std::vector<double> old;      // the row of the one that goes

  double& at(std::size_t i, std::size_t j) { return inverse[std::min(i, j) * stride + std::max(i, j)]; }
  double pivot(std::size_t i) const { return std::max(inverse[i * stride + i], std::numeric_limits<double>::min()); }
  double loss(std::size_t i) const { return weight[i] * weight[i] / pivot(i); }

  // Takes out i: the last one moves to its place.
  void remove(std::size_t i) {
    const double divisor = pivot(i);
    for (std::size_t j = 0; j < left; ++j) old[j] = at(i, j);
    const auto row = std::span<const double>(old).first(left);
    add_scaled(-weight[i] / divisor, row, std::span(weight).first(left));
    add_square(-1 / divisor, row, inverse, stride);
    --left;
    column[i] = column[left];
    weight[i] = weight[left];
    for (std::size_t j = 0; j < left; ++j)
      if (j != i) at(i, j) = at(left, j);
    at(i, i) = at(left, left);
  }
};

RemovalOrder SparseSolver::eliminate(std::span<const double> centre, std::span<const double> weight,
                                     const NmPattern& pattern) const {
  Elimination work{.stride = length_,
                   .left = length_,
                   .column = std::vector<std::uint32_t>(length_),
                   .weight = std::vector<double>(centre.begin(), centre.end()),
                   .inverse = inverse_,
                   .old = std::vector<double>(length_)};
  std::iota(work.column.begin(), work.column.end(), 0U);
  const std::size_t group = pattern.given() ? static_cast<std::size_t>(pattern.group) : length_;
  std::vector<std::size_t> to_go((length_ + group - 1) / group);
  for (std::size_t g = 0; g < to_go.size(); ++g) {
    const std::size_t size = std::min(group, length_ - g * group);
    to_go[g] = pattern.given() ? pattern.zeros(size) : size;
  }
  RemovalOrder out;
  const auto take = [&](std::size_t at, double loss) {
    out.order.push_back(work.column[at]);
    out.loss.push_back(loss);
    std::size_t& left = to_go[work.column[at] / group];
    left -= left > 0 ? 1 : 0;
    work.remove(at);
  };
  for (std::size_t at = 0; at < work.left;) {
    if (weight[work.column[at]] == 0)
      take(at, 0);
    else
      ++at;
  }
  while (work.left > 0) {
    std::size_t best = work.left;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t at = 0; at < work.left; ++at) {
      if (to_go[work.column[at] / group] == 0) continue;
      const double loss = work.loss(at);
      if (loss < least || (loss == least && best < work.left && work.column[at] < work.column[best])) {
        least = loss;
        best = at;
      }
    }
    if (best == work.left) break;
    take(best, least);
  }
  return out;
}

namespace {

// The sweep over one block of columns.
struct Sweep {
  std::size_t length, begin, end;  // columns of the block
  std::span<const double> u;
  std::span<const double> weight;
  const NmPattern& pattern;
  double saliency(const double* row, std::size_t r, std::size_t j) const {
    if (weight[r * length + j] == 0) return 0;
    const double value = row[j] / u[j * length + j];
    return std::max(value * value, std::numeric_limits<double>::denorm_min());
  }

  // Of the group of columns that begins at j the ones that go.
  void choose_group(const double* row, std::size_t r, std::size_t j, std::vector<double>& scores) const {
    const std::size_t size = std::min(static_cast<std::size_t>(pattern.group), length - j);
    std::vector<double> group(size);
    for (std::size_t k = 0; k < size; ++k) group[k] = saliency(row, r, j + k);
    keep_largest(group, pattern.zeros(size));
    std::ranges::copy(group, scores.begin() + static_cast<std::ptrdiff_t>(j));
  }

  // `scores` [length]: 0 for those that go; of a pattern they are chosen here. Errors go to `out` [end - begin].
  double run(double* row, std::size_t r, std::vector<double>& scores, double* out) const {
    double loss = 0;
    for (std::size_t j = begin; j < end; ++j) {
      if (pattern.given() && j % static_cast<std::size_t>(pattern.group) == 0) choose_group(row, r, j, scores);
      const double error = scores[j] == 0 ? row[j] / u[j * length + j] : 0;
      out[j - begin] = error;
      if (error == 0) {
        if (scores[j] == 0) row[j] = 0;
        continue;
      }
      loss += error * error;
      add_scaled(-error, u.subspan(j * length + j, end - j), std::span(row + j, end - j));
      row[j] = 0;
    }
    return loss;
  }
};

}  // namespace

double SparseSolver::sweep(std::span<double> rows, std::span<const double> weight, double share,
                           const NmPattern& pattern, std::size_t block, unsigned jobs) const {
  const std::size_t k = length_, count = rows.size() / k;
  // A group is not cut by the end of a block: what it takes from the columns behind must have reached them all.
  if (pattern.given()) {
    const auto group = static_cast<std::size_t>(pattern.group);
    block = (block + group - 1) / group * group;
  }
  std::vector<double> scores(rows.size(), 1.0), errors(count * block), losses((count + kRowsAtOnce - 1) / kRowsAtOnce);
  for (std::size_t begin = 0; begin < k; begin += block) {
    const std::size_t end = std::min(k, begin + block), width = end - begin;
    const Sweep part{k, begin, end, sweep_, weight, pattern};
    if (!pattern.given()) {
      std::vector<double> saliency(count * width);
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t j = begin; j < end; ++j)
          saliency[r * width + j - begin] = part.saliency(rows.data() + r * k, r, j);
      // Shares of all columns so far, so that rounding does not add up.
      keep_largest(saliency,
                   static_cast<std::size_t>(fraction_of(share, count * end) - fraction_of(share, count * begin)));
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t j = begin; j < end; ++j) scores[r * k + j] = saliency[r * width + j - begin];
    }
    const Status done = parallel_for(losses.size(), jobs, [&](std::size_t chunk) -> Status {
      const std::size_t first = chunk * kRowsAtOnce, last = std::min(count, first + kRowsAtOnce);
      std::vector<double> own(k);
      for (std::size_t r = first; r < last; ++r) {
        std::copy_n(scores.begin() + static_cast<std::ptrdiff_t>(r * k), k, own.begin());
        losses[chunk] += part.run(rows.data() + r * k, r, own, errors.data() + r * width);
      }
      if (end == k) return {};
      // rows[:, end:] -= errors * U[begin:end, end:]
      for (std::size_t j = begin; j < end; ++j)
        for (std::size_t r = first; r < last; ++r)
          add_scaled(-errors[r * width + j - begin], std::span(sweep_).subspan(j * k + end, k - end),
                     rows.subspan(r * k + end, k - end));
      return {};
    });
    assert(done);
  }
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

std::vector<double> SparseSolver::refit(std::span<const double> centre, const std::vector<bool>& keep) const {
  const std::size_t k = length_;
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < k; ++i)
    if (keep[i]) kept.push_back(i);
  const std::size_t n = kept.size();
  std::vector<double> part(n * n), right(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double* row = hessian_.data() + kept[i] * k;
    for (std::size_t j = 0; j < n; ++j) part[i * n + j] = row[kept[j]];
    for (std::size_t j = 0; j < k; ++j) right[i] += row[j] * centre[j];
  }
  std::vector<double> out(k, 0.0);
  if (n == 0) return out;
  // A principal minor of H, which was factored: little, if anything, is missing.
  std::vector<double> factor = part;
  for (double add = ridge_; !cholesky(factor, n); add *= 10) {
    factor = part;
    for (std::size_t i = 0; i < n; ++i) factor[i * n + i] += add;
  }
  solve_cholesky(factor, n, right);
  for (std::size_t i = 0; i < n; ++i) out[kept[i]] = right[i];
  return out;
}

}  // namespace onnxpress
