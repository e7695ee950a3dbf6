// What single weights are worth without looking at data: the least ones go first.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "num/tensor.h"

namespace onnxpress {

// One f64 score per element, 0 exactly where the weight is 0. Weights that are not finite score infinity.
enum class WeightScore {
  magnitude,   // |w|: L1 and L2 magnitude order single elements alike
  normalized,  // |w| / ||W||_2, to compare tensors (NNCF)
  lamp,        // w_i^2 / sum of w_j^2 over |w_j| >= |w_i| (Lee et al., arXiv 2010.07611)
  random,      // uniform in (0, 1], of `seed` and the element's index
};
Result<Tensor> weight_scores(const Tensor& weight, WeightScore score, std::uint64_t seed);

}  // namespace onnxpress
