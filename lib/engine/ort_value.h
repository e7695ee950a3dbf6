// Internal to lib/engine: tensors of the runtime as bytes.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <string_view>

#include "base/result.h"
#include "num/tensor.h"

namespace onnxpress {

// Whether tensors of this type go in and out of the runtime as bytes.
bool can_carry(DType dtype);

// What a value of the runtime holds, without a copy.
struct ValueBytes {
  DType dtype = DType::undefined;
  Dims dims;
  std::span<const std::byte> bytes;
  TensorView view() const { return {dtype, dims, bytes}; }
};
// `what` names it in errors: unsupported when it is no tensor of a type that can be carried.
Result<ValueBytes> value_bytes(const Ort::ConstValue& value, std::string_view what);

}  // namespace onnxpress
