#include "ir/file_bytes.h"

#include <onnx/onnx_pb.h>

#include "ir/node_proto.h"

namespace onnxpress {
namespace {

// A field of `bytes` bytes whose number is below 16.
std::uint64_t field_bytes(std::uint64_t bytes) {
  std::uint64_t length = 1;
  for (std::uint64_t rest = bytes; rest >= 0x80; rest >>= 7) ++length;
  return 1 + length + bytes;
}

std::uint64_t tensor_bytes(std::string_view name, DType dtype, const Dims& dims) {
  onnx::TensorProto tensor;
  if (!name.empty()) tensor.set_name(std::string(name));
  tensor.set_data_type(static_cast<int>(dtype));
  for (const std::int64_t dim : dims) tensor.add_dims(dim);
  return tensor.ByteSizeLong() + field_bytes(byte_count(dtype, dims).value_or(0));
}

}  // namespace

std::uint64_t initializer_bytes(std::string_view name, DType dtype, const Dims& dims) {
  return field_bytes(tensor_bytes(name, dtype, dims));
}

std::uint64_t sparse_initializer_bytes(std::string_view name, DType dtype, const Dims& dims, std::uint64_t stored) {
  const Dims list = {static_cast<std::int64_t>(stored)};
  onnx::SparseTensorProto shape;
  for (const std::int64_t dim : dims) shape.add_dims(dim);
  return field_bytes(field_bytes(tensor_bytes(name, dtype, list)) + field_bytes(tensor_bytes({}, DType::i64, list)) +
                     shape.ByteSizeLong());
}

std::uint64_t node_bytes(const NodeSpec& spec) {
  TensorStore payloads;
  onnx::NodeProto node = node_proto(spec);
  std::uint64_t bytes = 0;
  for (const auto& [key, value] : spec.attributes) {
    if (!write_attribute(node, key, value, payloads)) continue;  // memory is all it needs
    if (const auto* tensor = std::get_if<Tensor>(&value); tensor != nullptr && tensor->bytes().size() > kInlineLimit)
      bytes += tensor->bytes().size();
  }
  return field_bytes(node.ByteSizeLong() + bytes);
}

}  // namespace onnxpress
