// NodeSpec to NodeProto. For lib/ir only.
#pragma once

#include <string_view>

#include "ir/rewriter.h"

namespace onnx {
class NodeProto;
}

namespace onnxpress {

onnx::NodeProto node_proto(const NodeSpec& spec);  // without attributes
// Adds the attribute or replaces it; large tensors go to the store.
Status write_attribute(onnx::NodeProto& node, std::string_view key, const AttributeValue& value, TensorStore& store);

}  // namespace onnxpress
