// A linear layer fitted to what it should give, on rows of samples.
//
//   W', b' = argmin  sum over rows |c(t) - c(W x + b + s)|^2 + lambda |W - W0|^2
//
// x is what the layer reads, s what else is added to its result (the other side of a residual connection; else 0), t
// the sum as it should be, and c what the Relu or Clip behind it does (else nothing). Without c this is a ridge
// regression on second moments. With it, each step fits to targets that lie where c cannot tell the difference from
// where the layer is: t where c passes it, and the nearest number with the same c(t) elsewhere. As |c(t) - c(p)| is
// never above |t' - p'|, no step makes the fit worse.
// Source: the asymmetric, nonlinear reconstruction of Zhang et al., "Accelerating Very Deep Convolutional Networks for
// Classification and Detection" (arXiv 1505.06798), with majorization (de Leeuw) in place of its relaxation.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "calib/gram.h"
#include "calib/rows.h"

namespace onnxpress {

struct LinearWeights {
  std::vector<double> weight;  // [outputs, length]
  std::vector<double> bias;    // [outputs]
};

struct Regression {
  PatchShape shape;
  const RowsAccumulator* input = nullptr;
  const RowsAccumulator* target = nullptr;      // t = (target - offset) / scale, at the same positions or more
  const RowsAccumulator* shortcut = nullptr;    // s = shortcut / scale, at the positions of target; may be null
  std::vector<double> scale = {}, offset = {};  // of a BatchNormalization behind the layer; empty: 1 and 0
  std::vector<double> low = {}, high = {};      // what c clips t to; empty: no c
  std::uint64_t seed = 0;                       // of the positions
};

struct ReconstructSettings {
  std::optional<double> ridge = {};  // lambda over the mean of the diagonal of sum x x'; none: the best of several
  bool keep_zeros = false;           // weights that are 0 stay 0
  bool can_shift = true;             // b may change
  unsigned jobs = 0;
};

struct Reconstruction {
  enum class Change { none, exact, bias, weights };  // exact: there is nothing to fit
  Change change = Change::none;
  LinearWeights weights;
  double error_before = 0, error_after = 0;  // squared error over power, of c(.), on samples held out
  double ridge = 0;                          // that was used
  std::uint64_t rows = 0;                    // fitted to in the end
};

// Of the layer as it is, with a new bias, and fitted anew at each ridge, all on four fifths of the samples, the one
// with the least error on the others is chosen, and then fitted to all. Errors: unsupported says why the rows are of no
// use.
Result<Reconstruction> reconstruct(const Regression& regression, const LinearWeights& now,
                                   const ReconstructSettings& settings);

// argmin over D of the quadratic with moments `gram`: W0 + D, and the bias that goes with it. `support` says which
// weights may change (empty: all). nullopt when the moments are singular.
std::optional<LinearWeights> ridge_fit(const Gram& gram, const LinearWeights& now, const std::vector<bool>& support,
                                       double ridge, bool can_shift, unsigned jobs);

}  // namespace onnxpress
