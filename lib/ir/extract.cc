#include "ir/extract.h"

#include <onnx/onnx_pb.h>

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

}  // namespace onnxpress
