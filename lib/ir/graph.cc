#include <onnx/onnx_pb.h>

#include "ir/index.h"
#include "ir/model.h"

namespace onnxpress {
namespace {

template <class Field>
std::vector<std::string> names_of(const Field& field) {
  std::vector<std::string> names;
  for (const auto& value : field) names.push_back(value.name());
  return names;
}

// The tensor a Constant node holds; nullopt for strings and sparse values.
Result<std::optional<Tensor>> constant_node_value(const Node& node) {
  if (node.has_attr("value")) return node.attr_tensor("value");
  if (node.has_attr("value_float")) return Tensor::scalar<float>(DType::f32, node.attr_float("value_float", 0));
  if (node.has_attr("value_int")) return Tensor::scalar<std::int64_t>(DType::i64, node.attr_int("value_int", 0));
  if (node.has_attr("value_floats")) {
    const auto values = node.attr_floats("value_floats");
    return Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values);
  }
  if (node.has_attr("value_ints")) {
    const auto values = node.attr_ints("value_ints");
    return Tensor::of_int64s({static_cast<std::int64_t>(values.size())}, values);
  }
  return std::nullopt;
}

bool is_dense_constant_node(const Node& node) {
  return node && node.is("Constant") &&
         (node.has_attr("value") || node.has_attr("value_float") || node.has_attr("value_int") ||
          node.has_attr("value_floats") || node.has_attr("value_ints"));
}

}  // namespace

const Graph::Index& Graph::index() const {
  model_->index();
  return *index_;
}

std::string Graph::name() const { return proto_ != nullptr ? proto_->name() : function_->name(); }
const std::vector<Node>& Graph::nodes() const { return index().nodes; }

std::vector<Initializer> Graph::initializers() const {
  std::vector<Initializer> found;
  if (proto_ == nullptr) return found;
  for (auto& tensor : *proto_->mutable_initializer()) found.emplace_back(&tensor, const_cast<Graph*>(this));
  return found;
}
std::vector<std::string> Graph::inputs() const {
  if (proto_ != nullptr) return names_of(proto_->input());
  return {function_->input().begin(), function_->input().end()};
}
std::vector<std::string> Graph::outputs() const {
  if (proto_ != nullptr) return names_of(proto_->output());
  return {function_->output().begin(), function_->output().end()};
}
std::vector<std::string> Graph::sparse_initializers() const {
  std::vector<std::string> names;
  if (proto_ != nullptr)
    for (const auto& sparse : proto_->sparse_initializer()) names.push_back(sparse.values().name());
  return names;
}

Initializer Graph::initializer(std::string_view name) const {
  const auto found = index().initializers.find(name);
  return found == index_->initializers.end() ? Initializer() : Initializer(found->second, const_cast<Graph*>(this));
}
Node Graph::producer(std::string_view value) const {
  const auto found = index().producers.find(value);
  return found == index_->producers.end() ? Node() : found->second;
}
const std::vector<Use>& Graph::uses(std::string_view value) const {
  static const std::vector<Use> none;
  const auto found = index().uses.find(value);
  return found == index_->uses.end() ? none : found->second;
}
bool Graph::is_input(std::string_view value) const { return index().inputs.contains(value); }
bool Graph::is_output(std::string_view value) const { return index().outputs.contains(value); }
bool Graph::defines(std::string_view value) const {
  const Index& table = index();
  return table.producers.contains(value) || table.initializers.contains(value) || table.inputs.contains(value) ||
         table.sparse.contains(value);
}
Graph* Graph::scope_of(std::string_view value) const {
  for (auto* scope = const_cast<Graph*>(this); scope != nullptr; scope = scope->parent_)
    if (scope->defines(value)) return scope;
  return nullptr;
}

Initializer Graph::constant_initializer(std::string_view value) const {
  const Graph* scope = value.empty() ? nullptr : scope_of(value);
  if (scope == nullptr) return {};
  // Before IR 4 every initializer is listed as an input and no runtime lets callers override it.
  if (scope->is_input(value) && model_->ir_version() >= 4) return {};
  return scope->initializer(value);
}
bool Graph::is_constant(std::string_view value) const { return constant_type(value).has_value(); }

std::optional<std::pair<DType, Dims>> Graph::constant_type(std::string_view value) const {
  if (const Initializer found = constant_initializer(value)) return std::pair(found.dtype(), found.dims());
  const Graph* scope = value.empty() ? nullptr : scope_of(value);
  if (scope == nullptr) return std::nullopt;
  const Node node = scope->producer(value);
  if (!is_dense_constant_node(node)) return std::nullopt;
  for (const auto& attribute : node.proto()->attribute())
    if (attribute.name() == "value" && attribute.has_t())
      return std::pair(static_cast<DType>(attribute.t().data_type()),
                       Dims(attribute.t().dims().begin(), attribute.t().dims().end()));
  const auto tensor = constant_node_value(node);
  if (!tensor || !*tensor) return std::nullopt;
  return std::pair((*tensor)->dtype(), (*tensor)->dims());
}

Result<std::optional<Tensor>> Graph::constant(std::string_view value) const {
  if (const Initializer found = constant_initializer(value)) {
    OP_LET(Tensor tensor, found.read());
    return tensor;
  }
  const Graph* scope = value.empty() ? nullptr : scope_of(value);
  if (scope == nullptr) return std::nullopt;
  const Node node = scope->producer(value);
  if (!is_dense_constant_node(node)) return std::nullopt;
  return constant_node_value(node);
}

ValueType Graph::type(std::string_view value) const {
  const Graph* scope = value.empty() ? nullptr : scope_of(value);
  if (scope == nullptr) return {};
  if (const Initializer found = scope->initializer(value)) {
    ValueType type;
    type.dtype = found.dtype();
    type.shape.emplace();
    for (const std::int64_t dim : found.dims()) type.shape->push_back({dim, ""});
    return type;
  }
  if (scope->index().sparse.contains(value)) {
    for (const auto& sparse : scope->proto_->sparse_initializer()) {
      if (sparse.values().name() != value) continue;
      ValueType type{.dtype = static_cast<DType>(sparse.values().data_type()), .shape = std::vector<Dim>()};
      for (const std::int64_t dim : sparse.dims()) type.shape->push_back({dim, ""});
      return type;
    }
  }
  model_->build_types();
  const auto found = scope->index_->types.find(std::string(value));
  return found == scope->index_->types.end() ? ValueType() : found->second;
}

}  // namespace onnxpress
