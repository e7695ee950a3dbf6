// Which weights of a linear layer to give up, and what the others become, so that its outputs change least.
//
//   Q(w) = sum over rows (y - w x)^2 + ridge * ||w - w0||^2 = (w - c)' H (w - c) + constant
//
//   H = sum x x' + ridge * I,  H c = sum y x + ridge * w0       (lib/calib/gram.h; about the means when a bias is free)
//
// for every output channel w of the layer; all channels of a group share H. c are the best dense weights: what the
// layer would do to make up for the errors of those before it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "sparse/sparsity.h"

namespace onnxpress {

// The weights of one channel in the order in which they go, and what Q grows by with each.
struct RemovalOrder {
  std::vector<std::uint32_t> order;
  std::vector<double> loss;
};

class SparseSolver {
 public:
  // gram [length, length] is symmetric; ridge is relative to the mean of its diagonal. Where the Gram says nothing (an
  // input that is always zero) the ridge alone decides. Errors: resource when it cannot be factored however much is
  // added to its diagonal.
  static Result<SparseSolver> make(std::vector<double> gram, std::size_t length, double ridge);

  // Rows [count, length]: `target` is sum y x, `weight` is w0; in place target becomes c.
  void centre(std::span<double> target, std::span<const double> weight) const;

  // Sets up what eliminate() and sweep() need. False when the inverse is not positive definite in float64.
  bool invert();

  // Weights go one at a time, always the one whose loss, w_p^2 / [H^-1]_pp, is least, the others being fitted again
  // after each (Frantar and Alistarh, "Optimal Brain Compression", arXiv 2208.11580). Zeros of `weight` go first, at no
  // loss. All go, or with a pattern as many as it asks for. Thread-safe. O(length^3 / 3).
  RemovalOrder eliminate(std::span<const double> centre, std::span<const double> weight,
                         const NmPattern& pattern) const;

  // Rows [count, length] from the first column to the last, in blocks of `block` columns: of each block those with the
  // least w^2 / U_jj^2, U'U = H^-1, become zero (with a pattern: of each group when the sweep reaches it), and what
  // that does to the outputs the columns behind make up for (Frantar and Alistarh, "SparseGPT", arXiv 2301.00774).
  // `rows` is c and becomes the weights. Zeros of `weight` stay. Returns the sum of the losses. O(count length^2).
  double sweep(std::span<double> rows, std::span<const double> weight, double share, const NmPattern& pattern,
               std::size_t block, unsigned jobs) const;

  // The least Q over weights that are zero where keep is false. Thread-safe. O(kept^3 / 3).
  std::vector<double> refit(std::span<const double> centre, const std::vector<bool>& keep) const;

 private:
  struct Elimination;
  std::size_t length_ = 0;
  double ridge_ = 0;             // as added to the diagonal
  std::vector<double> hessian_;  // H
  std::vector<double> factor_;   // r with r'r = H
  std::vector<double> inverse_;  // H^-1
  std::vector<double> sweep_;    // U, upper triangular, U'U = H^-1
};

}  // namespace onnxpress
