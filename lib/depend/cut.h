// Cutting a tensor along several axes.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "depend/axes.h"
#include "num/tensor.h"

namespace onnxpress {

using AxisCuts = std::map<std::size_t, Indices>;  // by axis: the indices it keeps

// What is left of a constant as one node reads it; empty when it stays whole.
AxisCuts cuts_of(const KeptAxes& kept, const TensorRef& tensor, std::size_t rank);
std::string cuts_key(const AxisCuts& cuts);  // equal for equal cuts

// Error unsupported: strings; an axis or index the tensor lacks.
Status check_cuts(DType dtype, std::span<const std::int64_t> dims, const AxisCuts& cuts);

// Every numeric type; two 4-bit values share a byte. Errors: of check_cuts().
Result<Tensor> cut_tensor(const TensorView& tensor, const AxisCuts& cuts);

// The tensor in its old size with `zero` (the bytes of one element, one byte for 4-bit types; empty: all bits 0) in
// place of every element that cut_tensor() would drop. Same errors.
Result<Tensor> blank_tensor(Tensor tensor, const AxisCuts& cuts, std::span<const std::byte> zero = {});

}  // namespace onnxpress
