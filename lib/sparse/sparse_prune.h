// A layer made sparse so that its outputs stay close to wanted ones, from the second moments of its input and those
// outputs alone.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "calib/gram.h"
#include "sparse/sparse_layer.h"
#include "sparse/sparse_solve.h"

namespace onnxpress {

enum class MaskSearch { automatic, sweep, eliminate };

struct SparsePruneSettings {
  double share = 0.5;
  NmPattern pattern;  // instead of a share
  MaskSearch search = MaskSearch::automatic;
  double damping = 0.01;  // ridge while weights are chosen
  std::int64_t block = 128;
  unsigned jobs = 0;
};

struct SparsePruneResult {
  LayerRows rows;
  double error_zeroed = 0, error = 0;  // squared error of the outputs over their power, on held-out rows if there are
                                       // any: of the old weights with zeros, and of `rows`
  bool refitted = false;               // weights are not the old ones
  double ridge = 0;                    // that they were fitted with
};

// Chooses what goes (SparseSolver), then fits what stays anew, row by row, where that is affordable; with the ridge, of
// several, that does best on `held_out`, or not at all when the old weights do better there.
Result<SparsePruneResult> sparsify(const SparseLayer& layer, const LayerRows& rows, const Gram& fitted,
                                   const Gram& held_out, const SparsePruneSettings& settings);

// The squared error of the layer's output at each of `shares`, ascending.
Result<std::vector<double>> sparsity_errors(const SparseLayer& layer, const LayerRows& rows, const Gram& gram,
                                            std::span<const double> shares, const SparsePruneSettings& settings);

// sum over rows of (y - w x - b)^2 over sum of y^2.
double relative_error(const LayerRows& rows, const Gram& gram);

// What sparsify() takes at its peak, in bytes, without its arguments.
std::uint64_t sparsify_bytes(const SparseLayer& layer, unsigned jobs);

}  // namespace onnxpress
