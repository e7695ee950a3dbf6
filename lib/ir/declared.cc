#include "ir/declared.h"

#include <onnx/onnx_pb.h>

namespace onnxpress {

void set_declared_dims(Graph& graph, const std::map<std::string, std::map<std::size_t, std::int64_t>>& dims) {
  if (dims.empty() || graph.proto() == nullptr) return;
  for (auto& info : *graph.proto()->mutable_value_info()) {
    const auto found = dims.find(info.name());
    if (found == dims.end() || !info.type().tensor_type().has_shape()) continue;
    auto& shape = *info.mutable_type()->mutable_tensor_type()->mutable_shape();
    for (const auto& [axis, size] : found->second)
      if (axis < static_cast<std::size_t>(shape.dim_size()))
        shape.mutable_dim(static_cast<int>(axis))->set_dim_value(size);
  }
  graph.model().invalidate();
}

}  // namespace onnxpress
