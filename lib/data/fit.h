// Do the data fit the model's inputs? Shapes, kinds of numbers, and how samples are grouped into runs.
#pragma once

#include <span>
#include <string>

#include "base/result.h"
#include "num/tensor.h"
#include "num/value_type.h"

namespace onnxpress {

// One run's tensor may take this much; a file that asks for more is refused before anything is allocated.
inline constexpr std::uint64_t kMaxTensorBytes = std::uint64_t{2} << 30;

std::string type_text(const ValueType& type);  // "float[batch, 3, 32, 32]"

// Fixed dimensions must be equal, free ones take any size, an unknown rank takes anything. Error bad_input.
Status check_shape(std::span<const std::int64_t> dims, const ValueInfo& input);
// Equal types, integer to integer and float to float are accepted; no kind of number turns into another.
Status check_kind(DType from, const ValueInfo& input);
// The tensor in the input's type. Integers must keep their values; floats are rounded to nearest even.
Result<Tensor> fit_tensor(Tensor tensor, const ValueInfo& input);
// Byte count of a tensor to be allocated. Errors: bad_input on overflow, resource above kMaxTensorBytes.
Result<std::uint64_t> allocation_bytes(DType dtype, std::span<const std::int64_t> dims, const std::string& name);

}  // namespace onnxpress
