#include "calib/min_max.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

ValueRange range_of_floats(std::span<const float> values) {
  ValueRange range;
  float low = std::numeric_limits<float>::infinity();
  float high = -low;
  for (const float value : values) {
    if (std::isfinite(value)) {
      low = std::min(low, value);
      high = std::max(high, value);
      ++range.finite;
    } else {
      ++(std::isnan(value) ? range.nan : range.infinite);
    }
  }
  if (!range.empty()) {
    range.min = low;
    range.max = high;
  }
  return range;
}

}  // namespace

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
  if (value.dtype == DType::f32) return range_of_floats(value.as<float>());
  const auto floats = to_floats(value);
  return floats ? range_of_floats(*floats) : ValueRange{};
}

std::any MinMaxAccumulator::reduce(const TensorView& value) const { return range_of(value); }

void MinMaxAccumulator::merge(std::any partial) { range_.merge(std::any_cast<const ValueRange&>(partial)); }

}  // namespace onnxpress
