// Class scores in a tensor: where they are, and which class wins.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "num/tensor.h"

namespace onnxpress {

// Index of the largest score, the first one at ties; NaN never wins. Empty when there is no number.
std::optional<std::size_t> arg_max(std::span<const float> scores);

// Where the class scores of a tensor are: rows x classes, row-major. Accepted: [N, C] and, as pooling leaves them,
// [N, C, 1, 1, ...] with C >= 2; or [N, S, C] when `per_position`. Empty for every other shape ([N, C, 1] is more
// often a list of boxes) and for non-float types.
struct ScoreShape {
  std::size_t rows = 0;
  std::size_t classes = 0;
};
std::optional<ScoreShape> score_shape(const TensorView& tensor, bool per_position);

}  // namespace onnxpress
