#include "num/scores.h"

#include <algorithm>
#include <cmath>

namespace onnxpress {

std::optional<std::size_t> arg_max(std::span<const float> scores) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) continue;
    if (!best || scores[i] > scores[*best]) best = i;
  }
  return best;
}

std::optional<ScoreShape> score_shape(const TensorView& tensor, bool per_position) {
  if (!is_float(tensor.dtype)) return std::nullopt;
  const auto dims = tensor.dims;
  if (std::ranges::any_of(dims, [](std::int64_t dim) { return dim <= 0; })) return std::nullopt;
  const auto size = [&](std::size_t axis) { return static_cast<std::size_t>(dims[axis]); };
  if (per_position) {
    if (dims.size() != 3 || dims[2] < 2) return std::nullopt;
    return ScoreShape{size(0) * size(1), size(2)};
  }
  if (dims.size() < 2 || dims.size() == 3 || dims[1] < 2) return std::nullopt;
  for (const std::int64_t dim : dims.subspan(2))
    if (dim != 1) return std::nullopt;
  return ScoreShape{size(0), size(1)};
}

}  // namespace onnxpress
