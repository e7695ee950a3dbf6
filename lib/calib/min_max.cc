#include "calib/min_max.h"

#include <algorithm>
#include <cmath>

namespace onnxpress {

ValueRange range_of_floats(std::span<const float> values, const MinMax& found) {
  ValueRange range{found.min, found.max, found.finite, 0, 0};
  if (found.non_finite > 0) {
    range.nan = static_cast<std::uint64_t>(std::ranges::count_if(values, [](float v) { return std::isnan(v); }));
    range.infinite = found.non_finite - range.nan;
  }
  return range;
}

void ValueRange::merge(const ValueRange& other) {
  if (!other.empty()) {
    min = empty() ? other.min : std::min(min, other.min);
    max = empty() ? other.max : std::max(max, other.max);
  }
  finite += other.finite;
  nan += other.nan;
  infinite += other.infinite;
}

ValueRange range_of(const TensorView& value) {
  if (value.dtype == DType::f32) return range_of_floats(value.as<float>(), min_max(value.as<float>()));
  const auto floats = to_floats(value);
  return floats ? range_of_floats(*floats, min_max(*floats)) : ValueRange{};
}

std::any MinMaxAccumulator::reduce(const TensorView& value) const { return range_of(value); }

void MinMaxAccumulator::merge(std::any partial) { range_.merge(std::any_cast<const ValueRange&>(partial)); }

}  // namespace onnxpress
