#include "prune/unit_obs.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "num/linalg.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

// The rows and columns c of the inverse; and the columns c of the weight.
struct Block {
  Doubles inverse;  // [k, k]
  Doubles weight;   // [outputs, k]
};

Block block_of(const ObsReader& reader, const Indices& columns) {
  const std::size_t k = columns.size();
  Block block{Doubles(k * k), Doubles(reader.outputs * k)};
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < k; ++j)
      block.inverse[i * k + j] = reader.inverse[columns[i] * reader.columns + columns[j]];
  for (std::size_t o = 0; o < reader.outputs; ++o)
    for (std::size_t j = 0; j < k; ++j) block.weight[o * k + j] = reader.weight[o * reader.columns + columns[j]];
  return block;
}

// W_c B, row by row. Rounding can cost a block its definiteness: then only its diagonal counts.
Doubles times_b(Block& block, std::size_t outputs, std::size_t k) {
  Doubles result = block.weight;
  Doubles factor = block.inverse;
  if (cholesky(factor, k)) {
    solve_cholesky(factor, k, result);
    return result;
  }
  for (std::size_t o = 0; o < outputs; ++o)
    for (std::size_t j = 0; j < k; ++j) {
      const double diagonal = block.inverse[j * k + j];
      result[o * k + j] = diagonal > 0 ? block.weight[o * k + j] / diagonal : 0;
    }
  return result;
}

double cost_of(const ObsReader& reader, const Indices& columns) {
  if (columns.empty() || !(reader.power > 0)) return 0;
  Block block = block_of(reader, columns);
  const Doubles solved = times_b(block, reader.outputs, columns.size());
  double cost = 0;
  for (std::size_t i = 0; i < solved.size(); ++i) cost += solved[i] * block.weight[i];
  return std::max(0.0, cost) / reader.power;
}

// Takes the columns out: the others make up for them as well as they can.
void remove(ObsReader& reader, const Indices& columns) {
  const std::size_t k = columns.size(), n = reader.columns;
  if (k == 0) return;
  Block block = block_of(reader, columns);
  Doubles rows(k * n);  // [H^-1]_c,:
  for (std::size_t i = 0; i < k; ++i)
    std::copy_n(reader.inverse.begin() + static_cast<std::ptrdiff_t>(columns[i] * n), n,
                rows.begin() + static_cast<std::ptrdiff_t>(i * n));
  const Doubles solved = times_b(block, reader.outputs, k);
  gemm({.m = reader.outputs, .n = n, .k = k}, -1, solved, rows, 1, reader.weight);
  Block inverse{block.inverse, Doubles(n * k)};
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t i = 0; i < k; ++i) inverse.weight[r * k + i] = rows[i * n + r];
  const Doubles scaled = times_b(inverse, n, k);
  gemm({.m = n, .n = n, .k = k}, -1, scaled, rows, 1, reader.inverse);
}

}  // namespace

std::vector<double> damped_inverse(std::vector<double> moments, std::size_t n, double damping) {
  assert(moments.size() == n * n);
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) mean += moments[i * n + i] / static_cast<double>(n);
  const double ridge = mean > 0 ? damping * mean : 1;
  for (std::size_t i = 0; i < n; ++i) moments[i * n + i] += ridge;
  if (!std::isfinite(mean) || !cholesky(moments, n)) return {};
  Doubles inverse(n * n);
  for (std::size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  solve_cholesky(moments, n, inverse);
  return inverse;
}

std::vector<double> obs_costs(std::vector<ObsReader> readers, std::size_t units, std::size_t most) {
  constexpr double kNext = 1 + 1e-9;  // keeps the order of units of equal cost
  Doubles costs(units);
  std::vector<bool> gone(units);
  double last = 0;
  for (std::size_t step = 0; step < units; ++step) {
    std::size_t cheapest = units;
    double least = 0;
    for (std::size_t u = 0; u < units; ++u) {
      if (gone[u]) continue;
      double cost = 0;
      for (const ObsReader& reader : readers) cost += cost_of(reader, reader.of_unit[u]);
      costs[u] = std::max(cost, last * kNext);
      if (cheapest == units || cost < least) {
        cheapest = u;
        least = cost;
      }
    }
    if (step >= most) break;
    gone[cheapest] = true;
    last = costs[cheapest];
    for (ObsReader& reader : readers) remove(reader, reader.of_unit[cheapest]);
  }
  return costs;
}

}  // namespace onnxpress
