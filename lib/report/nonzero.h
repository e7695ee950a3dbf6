// Counting what pruning left over, in every element type.
#pragma once

#include <cstdint>
#include <vector>

#include "num/tensor.h"

namespace onnxpress {

// The zero points of a quantized tensor along one axis; empty = 0 everywhere, one value = the same everywhere.
struct ZeroPoints {
  std::vector<std::int64_t> values;
  std::size_t axis = 0;
};

// Elements that are not zero: -0.0 is zero, NaN is not, an integer is zero when it equals its zero point. Strings,
// complex numbers and booleans count as non-zero. A zero-point list whose length does not fit the axis is ignored.
std::uint64_t count_nonzeros(const TensorView& tensor, const ZeroPoints& zero_points = {});

}  // namespace onnxpress
