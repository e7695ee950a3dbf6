#include "ir/model.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/onnx_pb.h>
#include <onnx/shape_inference/implementation.h>

#include "base/hash.h"
#include "ir/contrib_schemas.h"
#include "ir/index.h"
#include "ir/walk.h"

namespace onnxpress {
namespace {

void add_names(const auto& field, std::unordered_set<std::string_view>& names) {
  for (const auto& value : field) names.insert(value.name());
}

ValueType to_value_type(const onnx::TypeProto& proto) {
  ValueType type;
  if (proto.value_case() == onnx::TypeProto::VALUE_NOT_SET) return type;  // behind operators nobody knows
  type.is_tensor = proto.has_tensor_type();
  if (!type.is_tensor) return type;
  type.dtype = static_cast<DType>(proto.tensor_type().elem_type());
  if (!proto.tensor_type().has_shape()) return type;
  type.shape.emplace();
  for (const auto& dim : proto.tensor_type().shape().dim()) {
    Dim out;
    if (dim.has_dim_value()) out.value = dim.dim_value();
    if (dim.has_dim_param()) out.symbol = dim.dim_param();
    type.shape->push_back(std::move(out));
  }
  return type;
}

void add_types(const auto& field, std::unordered_map<std::string, ValueType>& types) {
  for (const auto& info : field)
    if (info.has_type()) types[info.name()] = to_value_type(info.type());
}

// The graphs of a proto in the order Model::graphs() lists them (functions left out: inference skips their bodies).
void graphs_in_order(const onnx::GraphProto& graph, std::vector<const onnx::GraphProto*>& out) {
  out.push_back(&graph);
  for (const auto& node : graph.node())
    for (const auto& attribute : node.attribute()) {
      if (attribute.has_g()) graphs_in_order(attribute.g(), out);
      for (const auto& body : attribute.graphs()) graphs_in_order(body, out);
    }
}

void infer(onnx::ModelProto& proto) {
  if (proto.opset_import().empty()) proto.add_opset_import()->set_version(1);
  try {
    onnx::shape_inference::InferShapes(proto, &schemas_with_contrib(), onnx::ShapeInferenceOptions(false, 0, true));
  } catch (const std::exception&) {
    // Inference stops at what it does not know; passes cope with unknown types.
  }
}

}  // namespace

Model::Model() : Model(std::make_unique<onnx::ModelProto>(), std::make_shared<TensorStore>()) {}
Model::Model(std::unique_ptr<onnx::ModelProto> proto, std::shared_ptr<TensorStore> store)
    : proto_(std::move(proto)), store_(std::move(store)), cache_(std::make_unique<Cache>()) {}
Model::~Model() = default;
Model::Model(Model&& other) noexcept
    : proto_(std::move(other.proto_)), store_(std::move(other.store_)), cache_(std::move(other.cache_)) {
  for (auto& [key, graph] : cache_->by_proto) graph->model_ = this;
}
Model& Model::operator=(Model&& other) noexcept {
  proto_ = std::move(other.proto_);
  store_ = std::move(other.store_);
  cache_ = std::move(other.cache_);
  for (auto& [key, graph] : cache_->by_proto) graph->model_ = this;
  return *this;
}

Graph& Model::main() const {
  index();
  return *cache_->order.front();
}
const std::vector<Graph*>& Model::graphs() const {
  index();
  return cache_->order;
}

std::int64_t Model::opset(std::string_view domain) const {
  for (const auto& import : proto_->opset_import())
    if (plain_domain(import.domain()) == plain_domain(domain)) return import.version();
  return plain_domain(domain).empty() && proto_->opset_import().empty() ? 1 : 0;
}
void Model::set_opset(std::string_view domain, std::int64_t version) {
  invalidate();
  for (auto& import : *proto_->mutable_opset_import())
    if (plain_domain(import.domain()) == plain_domain(domain)) return import.set_version(version);
  auto* import = proto_->add_opset_import();
  import->set_domain(std::string(domain));
  import->set_version(version);
}
std::int64_t Model::ir_version() const { return proto_->ir_version(); }
void Model::set_ir_version(std::int64_t version) {
  if (proto_->ir_version() < 4 && version >= 4) {
    // Up to IR 3 initializers are inputs by rule, not by choice; from IR 4 on that would make them overridable.
    auto& graph = *proto_->mutable_graph();
    std::unordered_set<std::string> initializers;
    for (const auto& tensor : graph.initializer()) initializers.insert(tensor.name());
    google::protobuf::RepeatedPtrField<onnx::ValueInfoProto> kept;
    for (auto& input : *graph.mutable_input())
      if (!initializers.contains(input.name())) *kept.Add() = std::move(input);
    graph.mutable_input()->Swap(&kept);
  }
  proto_->set_ir_version(version);
  invalidate();
}
std::string Model::metadata(std::string_view key) const {
  for (const auto& entry : proto_->metadata_props())
    if (entry.key() == key) return entry.value();
  return "";
}
void Model::set_metadata(std::string_view key, std::string_view value) {
  for (auto& entry : *proto_->mutable_metadata_props())
    if (entry.key() == key) return entry.set_value(std::string(value));
  auto* entry = proto_->add_metadata_props();
  entry->set_key(std::string(key));
  entry->set_value(std::string(value));
}
void Model::remove_metadata(std::string_view key) {
  auto& entries = *proto_->mutable_metadata_props();
  for (int i = 0; i < entries.size(); ++i)
    if (entries[i].key() == key) return entries.DeleteSubrange(i, 1);
}

Result<std::string> Model::fingerprint() const {
  onnx::ModelProto copy = *proto_;
  Status status;
  for_each_tensor(copy, [&](onnx::TensorProto& tensor, TensorPlace) {
    const auto slot = TensorStore::slot_of(tensor);
    if (!slot || !status) return;
    auto bytes = store_->read(*slot);
    if (!bytes) {
      status = std::unexpected(std::move(bytes).error());
      return;
    }
    tensor.mutable_external_data(0)->set_value(hash_hex(bytes->data));
  });
  OP_TRY(std::move(status));
  std::string text;
  {
    google::protobuf::io::StringOutputStream stream(&text);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    copy.SerializeToCodedStream(&coded);
  }
  return hash_hex(std::as_bytes(std::span(text)));
}

Model Model::clone() const { return Model(std::make_unique<onnx::ModelProto>(*proto_), store_); }

void Model::invalidate() {
  cache_->indexed = false;
  cache_->typed = false;
  cache_->value_names.clear();
  cache_->node_names.clear();
}

void Model::index() const {
  if (!cache_->indexed) build_index();
}

// Gives the scope and the bodies in it their place in order; Graph objects of removed bodies are dropped later.
void Model::collect(Graph* graph) const {
  graph->model_ = const_cast<Model*>(this);
  graph->index_ = std::make_shared<Graph::Index>();
  cache_->order.push_back(graph);
  auto& nodes = graph->proto_ != nullptr ? *graph->proto_->mutable_node() : *graph->function_->mutable_node();
  const auto body = [&](onnx::GraphProto* proto, Node owner) {
    auto& slot = cache_->by_proto[proto];
    if (!slot) slot.reset(new Graph());
    slot->kind_ = Graph::Kind::body;
    slot->parent_ = graph;
    slot->owner_ = owner;
    slot->proto_ = proto;
    slot->function_ = nullptr;
    collect(slot.get());
  };
  for (auto& node : nodes) {
    const Node handle(&node, graph);
    graph->index_->nodes.push_back(handle);
    for (auto& attribute : *node.mutable_attribute()) {
      if (attribute.has_g()) body(attribute.mutable_g(), handle);
      for (auto& proto : *attribute.mutable_graphs()) body(&proto, handle);
    }
  }
}

void Model::build_index() const {
  cache_->order.clear();
  auto& main = cache_->by_proto[proto_->mutable_graph()];
  if (!main) main.reset(new Graph());
  main->proto_ = proto_->mutable_graph();
  collect(main.get());
  for (auto& function : *proto_->mutable_functions()) {
    auto& slot = cache_->by_proto[&function];
    if (!slot) slot.reset(new Graph());
    slot->kind_ = Graph::Kind::function;
    slot->parent_ = nullptr;
    slot->owner_ = Node();
    slot->proto_ = nullptr;
    slot->function_ = &function;
    collect(slot.get());
  }
  const std::unordered_set<Graph*> live(cache_->order.begin(), cache_->order.end());
  std::erase_if(cache_->by_proto, [&](const auto& entry) { return !live.contains(entry.second.get()); });
  cache_->indexed = true;

  for (Graph* graph : cache_->order) {
    Graph::Index& table = *graph->index_;
    if (graph->proto_ != nullptr) {
      add_names(graph->proto_->input(), table.inputs);
      add_names(graph->proto_->output(), table.outputs);
      for (auto& tensor : *graph->proto_->mutable_initializer()) table.initializers[tensor.name()] = &tensor;
      for (const auto& sparse : graph->proto_->sparse_initializer()) table.sparse.insert(sparse.values().name());
    } else {
      for (const auto& name : graph->function_->input()) table.inputs.insert(name);
      for (const auto& name : graph->function_->output()) table.outputs.insert(name);
    }
    for (const Node& node : table.nodes)
      for (const auto& output : node.proto()->output())
        if (!output.empty()) table.producers.emplace(output, node);
  }
  for (Graph* graph : cache_->order) {
    const auto read = [&](const std::string& value, Node reader, std::size_t slot) {
      Graph* scope = value.empty() ? nullptr : graph->scope_of(value);
      if (scope != nullptr) scope->index_->uses[value].push_back({reader, slot, scope != graph});
    };
    for (const Node& node : graph->index_->nodes)
      for (int i = 0; i < node.proto()->input_size(); ++i)
        read(node.proto()->input(i), node, static_cast<std::size_t>(i));
    if (graph->kind_ != Graph::Kind::body) continue;
    for (int i = 0; i < graph->proto_->output_size(); ++i)
      if (!graph->defines(graph->proto_->output(i).name()))
        read(graph->proto_->output(i).name(), Node(), static_cast<std::size_t>(i));
  }
}

void Model::build_types() const {
  index();
  if (cache_->typed) return;
  onnx::ModelProto copy = *proto_;
  infer(copy);
  std::vector<const onnx::GraphProto*> inferred;
  graphs_in_order(copy.graph(), inferred);
  for (std::size_t i = 0; i < inferred.size(); ++i) {
    auto& types = cache_->order[i]->index_->types;
    types.clear();
    add_types(inferred[i]->value_info(), types);
    add_types(inferred[i]->input(), types);
    add_types(inferred[i]->output(), types);
  }
  cache_->typed = true;
}

}  // namespace onnxpress
