#include "engine/optimized_graph.h"

#include <onnx/onnx_pb.h>

#include <charconv>
#include <limits>
#include <unordered_map>

namespace onnxpress {
namespace {

// Every node is given a name of its own for the run, so that the runtime's nodes can be told by name: models leave
// names out or give one twice. The runtime keeps names, or puts text around them ("_inlfunc_f_NAME",
// "NAME/duplicated").
constexpr std::string_view kOpen = "{node ", kClose = "}";

std::size_t name_nodes(google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes, std::size_t next);

// In the order of Model::graphs(): a graph's own nodes first, then the bodies of its nodes, each with what is in it.
std::size_t name_bodies(google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes, std::size_t next) {
  for (auto& node : nodes)
    for (auto& attribute : *node.mutable_attribute()) {
      if (attribute.has_g()) next = name_nodes(*attribute.mutable_g()->mutable_node(), next);
      for (auto& body : *attribute.mutable_graphs()) next = name_nodes(*body.mutable_node(), next);
    }
  return next;
}

std::size_t name_nodes(google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes, std::size_t next) {
  for (auto& node : nodes) node.set_name(std::string(kOpen) + std::to_string(next++) + std::string(kClose));
  return name_bodies(nodes, next);
}

void read_origin(OptimizedNode& node) {
  const std::size_t open = node.name.rfind(kOpen);
  if (open == std::string::npos) return;
  const std::size_t begin = open + kOpen.size(), close = node.name.find(kClose, begin);
  if (close == std::string::npos) return;
  std::size_t number = 0;
  std::from_chars(node.name.data() + begin, node.name.data() + close, number);
  const std::string_view rest = std::string_view(node.name).substr(close + kClose.size());
  if (!rest.empty() && !rest.starts_with("/duplicated") && !rest.starts_with("/MatMulAddFusion")) return;
  node.origin = number;
  node.copy = rest.starts_with("/duplicated");
}

using Types = std::unordered_map<std::string, DType>;

void read_types(const google::protobuf::RepeatedPtrField<onnx::ValueInfoProto>& values, Types& types) {
  for (const auto& value : values)
    if (value.type().has_tensor_type())
      types[value.name()] = static_cast<DType>(value.type().tensor_type().elem_type());
}

void read_nodes(const google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes, const Types& types,
                std::vector<OptimizedNode>& out);

void read_graph(const onnx::GraphProto& graph, std::vector<OptimizedNode>& out) {
  Types types;
  read_types(graph.value_info(), types);
  read_types(graph.output(), types);
  read_nodes(graph.node(), types, out);
}

void read_nodes(const google::protobuf::RepeatedPtrField<onnx::NodeProto>& nodes, const Types& types,
                std::vector<OptimizedNode>& out) {
  for (const auto& proto : nodes) {
    OptimizedNode node{.name = proto.name(), .op = proto.op_type(), .domain = proto.domain()};
    if (node.domain == "ai.onnx") node.domain.clear();
    node.inputs.assign(proto.input().begin(), proto.input().end());
    for (const std::string& output : proto.output()) {
      node.outputs.push_back(output);
      const auto type = types.find(output);
      node.output_types.push_back(type == types.end() ? DType::undefined : type->second);
    }
    read_origin(node);
    out.push_back(std::move(node));
    for (const auto& attribute : proto.attribute()) {
      if (attribute.has_g()) read_graph(attribute.g(), out);
      for (const auto& body : attribute.graphs()) read_graph(body, out);
    }
  }
}

}  // namespace

Result<std::vector<OptimizedNode>> optimized_nodes(const Model& model, const OptimizedGraphOptions& options) {
  Model named = model.clone();
  onnx::ModelProto& proto = named.proto();
  std::size_t next = name_nodes(*proto.mutable_graph()->mutable_node(), 0);
  for (auto& function : *proto.mutable_functions()) next = name_nodes(*function.mutable_node(), next);
  named.invalidate();
  OP_LET(const std::vector<std::byte> bytes, optimized_graph(named, options));
  onnx::ModelProto result;
  if (bytes.size() > std::numeric_limits<int>::max() ||
      !result.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return fail(Code::engine, "ONNX Runtime's optimized graph could not be read");
  std::vector<OptimizedNode> nodes;
  read_graph(result.graph(), nodes);
  for (const auto& function : result.functions()) read_nodes(function.node(), {}, nodes);
  return nodes;
}

}  // namespace onnxpress
