#include "ir/extract.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cassert>
#include <set>

namespace onnxpress {
namespace {

// The first IR version whose initializers need not be inputs too. The part uses nothing newer, and engines are stricter
// about the version of a file than about what is in it.
constexpr std::int64_t kFreeInitializers = 4;

void add_tensor(onnx::GraphProto& graph, const NamedTensor& given) {
  onnx::TensorProto& tensor = *graph.add_initializer();
  tensor.set_name(given.name);
  tensor.set_data_type(static_cast<int>(given.tensor.dtype()));
  for (const std::int64_t dim : given.tensor.dims()) tensor.add_dims(dim);
  const auto bytes = given.tensor.bytes();
  tensor.set_raw_data(bytes.data(), bytes.size());
}

void add_constant(onnx::GraphProto& graph, const Graph& source, const std::string& value) {
  assert(source.is_constant(value));
  if (const Initializer initializer = source.constant_initializer(value)) {
    *graph.add_initializer() = *initializer.proto();
  } else {
    *graph.add_node() = *source.scope_of(value)->producer(value).proto();
  }
}

void add_output(onnx::GraphProto& graph, const Graph& source, const std::string& value) {
  onnx::ValueInfoProto& output = *graph.add_output();
  output.set_name(value);
  const ValueType type = source.type(value);
  if (type.dtype != DType::undefined && type.is_tensor)
    output.mutable_type()->mutable_tensor_type()->set_elem_type(static_cast<int>(type.dtype));
}

// What a node reads, bodies included. A name that only exists inside a body does no harm: outside, nothing makes it.
void add_reads(const onnx::NodeProto& node, std::set<std::string>& names) {
  for (const std::string& input : node.input()) names.insert(input);
  const auto add_body = [&](const onnx::GraphProto& body) {
    for (const onnx::NodeProto& inner : body.node()) add_reads(inner, names);
    for (const onnx::ValueInfoProto& output : body.output()) names.insert(output.name());
  };
  for (const onnx::AttributeProto& attribute : node.attribute()) {
    if (attribute.has_g()) add_body(attribute.g());
    for (const onnx::GraphProto& body : attribute.graphs()) add_body(body);
  }
}

}  // namespace

Model extract(const Graph& graph, const Part& part) {
  const onnx::ModelProto& source = graph.model().proto();
  auto proto = std::make_unique<onnx::ModelProto>();
  proto->set_ir_version(kFreeInitializers);
  *proto->mutable_opset_import() = source.opset_import();
  onnx::GraphProto& target = *proto->mutable_graph();
  target.set_name("part");

  std::set<std::string> known = {""};
  for (const NamedTensor& given : part.given) {
    add_tensor(target, given);
    known.insert(given.name);
  }
  for (const Node& node : part.nodes)
    for (std::string& output : node.outputs()) known.insert(std::move(output));
  for (const Node& node : part.nodes)
    for (const std::string& input : node.inputs())
      if (known.insert(input).second) add_constant(target, graph, input);
  for (const Node& node : part.nodes) *target.add_node() = *node.proto();
  for (const std::string& output : part.outputs) add_output(target, graph, output);
  return Model(std::move(proto), graph.model().shared_store());
}

Model extract_prefix(const Model& model, std::span<const std::string> values) {
  auto proto = std::make_unique<onnx::ModelProto>(model.proto());
  onnx::GraphProto& graph = *proto->mutable_graph();
  graph.clear_output();
  std::set<std::string> wanted;
  for (const std::string& value : values) {
    assert(model.main().defines(value));
    if (wanted.insert(value).second) add_output(graph, model.main(), value);
  }
  // Nodes are in topological order: from the last to the first, what a node makes is wanted by then or never.
  std::vector<bool> keep(static_cast<std::size_t>(graph.node_size()), false);
  for (std::size_t i = keep.size(); i-- > 0;) {
    const onnx::NodeProto& node = graph.node(static_cast<int>(i));
    keep[i] = std::ranges::any_of(node.output(), [&](const std::string& output) { return wanted.contains(output); });
    if (keep[i]) add_reads(node, wanted);
  }
  std::size_t at = 0;
  auto& nodes = *graph.mutable_node();
  nodes.erase(std::remove_if(nodes.begin(), nodes.end(), [&](const auto&) { return !keep[at++]; }), nodes.end());
  // Before IR version 4 initializers are inputs as well; one that goes must not become a real input.
  std::set<std::string> dropped;
  for (const onnx::TensorProto& tensor : graph.initializer())
    if (!wanted.contains(tensor.name())) dropped.insert(tensor.name());
  auto& inputs = *graph.mutable_input();
  inputs.erase(
      std::remove_if(inputs.begin(), inputs.end(), [&](const auto& input) { return dropped.contains(input.name()); }),
      inputs.end());
  auto& initializers = *graph.mutable_initializer();
  initializers.erase(std::remove_if(initializers.begin(), initializers.end(),
                                    [&](const auto& tensor) { return dropped.contains(tensor.name()); }),
                     initializers.end());
  return Model(std::move(proto), model.shared_store());
}

}  // namespace onnxpress
