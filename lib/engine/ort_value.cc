#include "engine/ort_value.h"

namespace onnxpress {

// DType and the runtime's enumeration both follow TensorProto.DataType.
static_assert(static_cast<int>(DType::string) == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING);
static_assert(static_cast<int>(DType::bf16) == ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16);
static_assert(static_cast<int>(DType::i4) == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4);

bool can_carry(DType dtype) { return dtype != DType::undefined && dtype != DType::string && dtype <= DType::i4; }

Result<ValueBytes> value_bytes(const Ort::ConstValue& value, std::string_view what) {
  if (value == nullptr || !value.HasValue() || !value.IsTensor())
    return fail(Code::unsupported, "{} is not a tensor", what);
  const auto type = value.GetTensorTypeAndShapeInfo();
  ValueBytes found;
  found.dtype = static_cast<DType>(type.GetElementType());
  if (!can_carry(found.dtype)) return fail(Code::unsupported, "{} is of type {}", what, dtype_name(found.dtype));
  found.dims = type.GetShape();
  const auto bytes = byte_count(found.dtype, found.dims);
  if (!bytes) return fail(Code::engine, "{} has the impossible shape {}", what, dims_text(found.dims));
  const auto* data = static_cast<const std::byte*>(value.GetTensorRawData());
  found.bytes = {data, data == nullptr ? 0 : *bytes};
  return found;
}

}  // namespace onnxpress
