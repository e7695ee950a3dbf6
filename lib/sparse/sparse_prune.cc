#include "sparse/sparse_prune.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/parallel.h"
#include "num/linalg.h"
#include "num/select.h"

namespace onnxpress {
namespace {

constexpr std::array kRidges = {0.001, 0.01, 0.1};
constexpr double kDefaultRidge = 0.1;      // nothing to choose it by
constexpr double kMostElimination = 3e10;  // rows * length^3 up to which weights go one at a time
constexpr double kMostRefit = 1e12;        // rows * kept^3 up to which what stays is fitted exactly

using Mask = std::vector<bool>;  // of one row: keep

struct Problem {
  const SparseLayer& layer;
  const LayerRows& rows;
  std::size_t k, per_group;
  Problem(const SparseLayer& l, const LayerRows& r)
      : layer(l), rows(r), k(l.shape.length), per_group(l.shape.outputs_per_group()) {}

  std::span<const double> weights_of(std::size_t group) const {
    return std::span(rows.weight).subspan(group * per_group * k, per_group * k);
  }
  Result<SparseSolver> solver(const Gram& gram, std::size_t group, double ridge) const {
    return SparseSolver::make(gram.xx_copy(group, layer.can_shift), k, ridge);
  }
  // sum y x of the rows of the group. Without a bias to fit, the one there is stays: it is taken off the outputs.
  std::vector<double> targets(const Gram& gram, std::size_t group) const {
    std::vector<double> out;
    const auto x = gram.x_of(group);
    for (std::size_t c = group * per_group; c < (group + 1) * per_group; ++c) {
      std::vector<double> row = gram.yx_copy(c, layer.can_shift);
      if (!layer.can_shift)
        for (std::size_t i = 0; i < k; ++i) row[i] -= rows.bias[c] * x[i];
      out.insert(out.end(), row.begin(), row.end());
    }
    return out;
  }
};

// To search a group of channels for a mask: its solver, inverted, and the best dense weights.
struct Search {
  SparseSolver solver;
  std::vector<double> centre;
  static Result<Search> make(const Problem& problem, const Gram& gram, std::size_t group, double damping) {
    OP_LET(SparseSolver solver, problem.solver(gram, group, damping));
    std::vector<double> centre = problem.targets(gram, group);
    solver.centre(centre, problem.weights_of(group));
    if (!solver.invert()) return fail(Code::resource, "the second moments of its input cannot be inverted");
    return Search{std::move(solver), std::move(centre)};
  }
};

// Weights go row by row, one at a time; how many of each row, what they cost together decides.
struct Orders {
  std::vector<RemovalOrder> rows;  // of all groups

  // For each row how many go so that `count` go altogether at the least loss.
  std::vector<std::size_t> cut(std::size_t count) const {
    // Losses of a row need not ascend: a weight goes no later than one behind it.
    std::vector<std::pair<double, std::uint32_t>> steps;
    for (std::uint32_t r = 0; r < rows.size(); ++r) {
      double most = 0;
      for (const double loss : rows[r].loss) steps.emplace_back(most = std::max(most, loss), r);
    }
    std::ranges::sort(steps);
    std::vector<std::size_t> out(rows.size());
    for (std::size_t i = 0; i < std::min(count, steps.size()); ++i) ++out[steps[i].second];
    return out;
  }
};

bool eliminates(const SparseLayer& layer, const SparsePruneSettings& settings) {
  if (settings.search != MaskSearch::automatic) return settings.search == MaskSearch::eliminate;
  return static_cast<double>(layer.shape.outputs) * std::pow(static_cast<double>(layer.shape.length), 3) <=
         kMostElimination;
}

Result<Orders> removal_orders(const Problem& problem, const Gram& gram, const SparsePruneSettings& settings) {
  Orders orders;
  orders.rows.resize(problem.layer.shape.outputs);
  for (std::size_t group = 0; group < problem.layer.shape.groups; ++group) {
    OP_LET(const Search search, Search::make(problem, gram, group, settings.damping));
    OP_TRY(parallel_for(problem.per_group, settings.jobs, [&](std::size_t r) -> Status {
      const auto row = [&](std::span<const double> all) { return all.subspan(r * problem.k, problem.k); };
      orders.rows[group * problem.per_group + r] =
          search.solver.eliminate(row(search.centre), row(problem.weights_of(group)), settings.pattern);
      return {};
    }));
  }
  return orders;
}

// All rows swept in order: weights, zeros included, and the loss.
struct Swept {
  std::vector<double> weight;
  double loss = 0;
};
Result<Swept> swept(const Problem& problem, const Gram& gram, const SparsePruneSettings& settings) {
  Swept out;
  for (std::size_t group = 0; group < problem.layer.shape.groups; ++group) {
    OP_LET(Search search, Search::make(problem, gram, group, settings.damping));
    out.loss += search.solver.sweep(search.centre, problem.weights_of(group), settings.share, settings.pattern,
                                    static_cast<std::size_t>(settings.block), settings.jobs);
    out.weight.insert(out.weight.end(), search.centre.begin(), search.centre.end());
  }
  return out;
}

// The loss of a sweep at every share. A sweep takes its time: most are interpolated.
Result<std::vector<double>> sweep_losses(const Problem& problem, const Gram& gram, std::span<const double> shares,
                                         const SparsePruneSettings& settings) {
  constexpr std::size_t kEvery = 5;
  std::vector<double> losses(shares.size());
  for (std::size_t group = 0; group < problem.layer.shape.groups; ++group) {
    OP_LET(const Search search, Search::make(problem, gram, group, settings.damping));
    for (std::size_t i = 0; i < shares.size(); ++i) {
      if (i % kEvery != 0 && i + 1 != shares.size()) continue;
      std::vector<double> rows = search.centre;
      losses[i] += search.solver.sweep(rows, problem.weights_of(group), shares[i], {},
                                       static_cast<std::size_t>(settings.block), settings.jobs);
    }
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const std::size_t low = i / kEvery * kEvery, high = std::min(low + kEvery, shares.size() - 1);
    if (i == low || i == high) continue;
    const double along = (shares[i] - shares[low]) / (shares[high] - shares[low]);
    losses[i] = losses[low] + along * (losses[high] - losses[low]);
  }
  return losses;
}

std::vector<Mask> masks_of(std::span<const double> weight, std::size_t k) {
  std::vector<Mask> masks;
  for (std::size_t at = 0; at < weight.size(); at += k) {
    masks.emplace_back(k);
    for (std::size_t i = 0; i < k; ++i) masks.back()[i] = weight[at + i] != 0;
  }
  return masks;
}

std::vector<Mask> masks_of(const Orders& orders, const SparseLayer& layer, const SparsePruneSettings& settings) {
  std::vector<std::size_t> counts;
  if (settings.pattern.given())
    for (const RemovalOrder& row : orders.rows) counts.push_back(row.order.size());
  else
    counts = orders.cut(fraction_of(settings.share, layer.size()));
  std::vector<Mask> masks(orders.rows.size(), Mask(layer.shape.length, true));
  for (std::size_t r = 0; r < masks.size(); ++r)
    for (std::size_t i = 0; i < counts[r]; ++i) masks[r][orders.rows[r].order[i]] = false;
  return masks;
}

Result<LayerRows> fitted_rows(const Problem& problem, const std::vector<Mask>& masks, const Gram& gram, double ridge,
                              unsigned jobs) {
  LayerRows out = problem.rows;
  for (std::size_t group = 0; group < problem.layer.shape.groups; ++group) {
    OP_LET(const SparseSolver solver, problem.solver(gram, group, ridge));
    std::vector<double> centre = problem.targets(gram, group);
    solver.centre(centre, problem.weights_of(group));
    OP_TRY(parallel_for(problem.per_group, jobs, [&](std::size_t r) -> Status {
      const std::size_t c = group * problem.per_group + r;
      std::ranges::copy(solver.refit(std::span(centre).subspan(r * problem.k, problem.k), masks[c]),
                        out.weight.begin() + static_cast<std::ptrdiff_t>(c * problem.k));
      return {};
    }));
  }
  if (problem.layer.can_shift) out.bias = gram.mean_bias(out.weight);
  return out;
}

bool affordable(const std::vector<Mask>& masks) {
  double work = 0;
  for (const Mask& mask : masks) work += std::pow(static_cast<double>(std::ranges::count(mask, true)), 3);
  return work <= kMostRefit;
}

// The weights with these masks that do best on held-out rows. `candidate`: weights that came with the masks; empty when
// there are none.
Result<SparsePruneResult> best_rows(const Problem& problem, const std::vector<Mask>& masks, const Gram& fitted,
                                    const Gram& held_out, std::span<const double> candidate, unsigned jobs) {
  const bool choose = held_out.rows > 0, shift = problem.layer.can_shift;
  const Gram& judge = choose ? held_out : fitted;
  SparsePruneResult result{.rows = problem.rows};
  for (std::size_t i = 0; i < result.rows.weight.size(); ++i)
    if (!masks[i / problem.k][i % problem.k]) result.rows.weight[i] = 0;
  if (shift) result.rows.bias = fitted.mean_bias(result.rows.weight);
  result.error_zeroed = result.error = relative_error(result.rows, judge);
  if (!candidate.empty()) {
    LayerRows trial = problem.rows;
    trial.weight.assign(candidate.begin(), candidate.end());
    if (shift) trial.bias = fitted.mean_bias(trial.weight);
    if (const double error = relative_error(trial, judge); error < result.error) {
      result.rows = std::move(trial);
      result.error = error;
      result.refitted = true;
    }
  }
  std::vector<double> ridges = {kDefaultRidge};
  if (choose) ridges.assign(kRidges.begin(), kRidges.end());
  if (!affordable(masks)) ridges.clear();
  for (const double ridge : ridges) {
    OP_LET(LayerRows trial, fitted_rows(problem, masks, fitted, ridge, jobs));
    const double error = relative_error(trial, judge);
    if (!(error < result.error)) continue;
    result.rows = std::move(trial);
    result.error = error;
    result.ridge = ridge;
    result.refitted = true;
  }
  if (!choose) return result;
  Gram all = fitted;
  all.add(held_out);
  if (result.ridge > 0) {
    OP_LET(result.rows, fitted_rows(problem, masks, all, result.ridge, jobs));
  } else if (shift) {
    result.rows.bias = all.mean_bias(result.rows.weight);
  }
  return result;
}

}  // namespace

double relative_error(const LayerRows& rows, const Gram& gram) {
  const std::size_t k = gram.shape.length, per_group = gram.shape.outputs_per_group();
  double error = 0, power = 0;
  std::vector<double> product(per_group * k);
  for (std::size_t g = 0; g < gram.shape.groups; ++g) {
    const auto weight = std::span(rows.weight).subspan(g * per_group * k, per_group * k);
    gemm({per_group, k, k}, 1, weight, gram.xx_of(g), 0, product);
    const auto x = gram.x_of(g);
    for (std::size_t r = 0; r < per_group; ++r) {
      const std::size_t c = g * per_group + r;
      const auto w = weight.subspan(r * k, k);
      const auto yx = gram.yx_of(c);
      double quadratic = 0, cross = 0, mean = 0;
      for (std::size_t i = 0; i < k; ++i) {
        quadratic += w[i] * product[r * k + i];
        cross += w[i] * yx[i];
        mean += w[i] * x[i];
      }
      const double b = rows.bias[c];
      error += gram.yy[c] - 2 * cross + quadratic - 2 * b * (gram.y[c] - mean) + static_cast<double>(gram.rows) * b * b;
      power += gram.yy[c];
    }
  }
  return power > 0 ? std::max(error, 0.0) / power : 0;
}

std::uint64_t sparsify_bytes(const SparseLayer& layer, unsigned jobs) {
  const std::uint64_t k = layer.shape.length, threads = jobs == 0 ? available_cores() : jobs;
  return sizeof(double) * (gram_bytes(layer.shape) / 16 + k * k * (5 + 2 * threads) + 8 * layer.size());
}

Result<SparsePruneResult> sparsify(const SparseLayer& layer, const LayerRows& rows, const Gram& fitted,
                                   const Gram& held_out, const SparsePruneSettings& settings) {
  const Problem problem(layer, rows);
  if (eliminates(layer, settings)) {
    OP_LET(const Orders orders, removal_orders(problem, fitted, settings));
    return best_rows(problem, masks_of(orders, layer, settings), fitted, held_out, {}, settings.jobs);
  }
  OP_LET(const Swept result, swept(problem, fitted, settings));
  return best_rows(problem, masks_of(result.weight, problem.k), fitted, held_out, result.weight, settings.jobs);
}

Result<std::vector<double>> sparsity_errors(const SparseLayer& layer, const LayerRows& rows, const Gram& gram,
                                            std::span<const double> shares, const SparsePruneSettings& settings) {
  const Problem problem(layer, rows);
  std::vector<double> errors;
  if (eliminates(layer, settings)) {
    OP_LET(const Orders orders, removal_orders(problem, gram, settings));
    for (const double share : shares) {
      const std::vector<std::size_t> counts = orders.cut(fraction_of(share, layer.size()));
      double loss = 0;
      for (std::size_t r = 0; r < counts.size(); ++r)
        loss = std::accumulate(orders.rows[r].loss.begin(),
                               orders.rows[r].loss.begin() + static_cast<std::ptrdiff_t>(counts[r]), loss);
      errors.push_back(loss);
    }
    return errors;
  }
  return sweep_losses(problem, gram, shares, settings);
}

}  // namespace onnxpress
