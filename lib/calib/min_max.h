// The range of a tensor over all samples.
#pragma once

#include <cstdint>

#include "num/quantize.h"
#include "num/tensor.h"
#include "pass/pass.h"

namespace onnxpress {

// Smallest and largest finite value of a stream of tensors. NaN and infinities never widen the range (an attention
// mask of -inf would make every scale useless); they are counted so that a caller can report them.
struct ValueRange {
  float min = 0;
  float max = 0;
  std::uint64_t finite = 0;  // elements the range is made of; 0 = no range
  std::uint64_t nan = 0;
  std::uint64_t infinite = 0;

  bool empty() const { return finite == 0; }
  void merge(const ValueRange& other);
  bool operator==(const ValueRange&) const = default;
};

// Of one tensor. Complex and string tensors give an empty range. Wider types are rounded to float.
ValueRange range_of(const TensorView& value);

// The same from what min_max(values) found.
ValueRange range_of_floats(std::span<const float> values, const MinMax& found);

class MinMaxAccumulator : public Accumulator {
 public:
  std::any reduce(const TensorView& value) const override;  // a ValueRange
  void merge(std::any partial) override;
  const ValueRange& range() const { return range_; }

 private:
  ValueRange range_;
};

}  // namespace onnxpress
