#include <onnx/onnx_pb.h>

#include "ir/index.h"
#include "ir/model.h"

namespace onnxpress {
namespace {

const onnx::AttributeProto* find(const onnx::NodeProto& node, std::string_view key) {
  for (const auto& attribute : node.attribute())
    if (attribute.name() == key) return &attribute;
  return nullptr;
}

}  // namespace

std::string_view plain_domain(std::string_view domain) { return domain == "ai.onnx" ? "" : domain; }

std::string_view Node::name() const { return proto_->name(); }
std::string_view Node::op() const { return proto_->op_type(); }
std::string_view Node::domain() const { return plain_domain(proto_->domain()); }
bool Node::is(std::string_view op) const { return proto_->op_type() == op && domain().empty(); }

std::string Node::label() const {
  if (!proto_->name().empty()) return proto_->name();
  for (const auto& output : proto_->output())
    if (!output.empty()) return proto_->op_type() + "->" + output;
  return proto_->op_type();
}

std::size_t Node::input_count() const { return static_cast<std::size_t>(proto_->input_size()); }
std::size_t Node::output_count() const { return static_cast<std::size_t>(proto_->output_size()); }
std::string_view Node::input(std::size_t i) const {
  return i < input_count() ? std::string_view(proto_->input(static_cast<int>(i))) : std::string_view();
}
std::string_view Node::output(std::size_t i) const {
  return i < output_count() ? std::string_view(proto_->output(static_cast<int>(i))) : std::string_view();
}
std::vector<std::string> Node::inputs() const { return {proto_->input().begin(), proto_->input().end()}; }
std::vector<std::string> Node::outputs() const { return {proto_->output().begin(), proto_->output().end()}; }

bool Node::has_attr(std::string_view key) const { return find(*proto_, key) != nullptr; }
std::vector<std::string> Node::attr_names() const {
  std::vector<std::string> names;
  for (const auto& attribute : proto_->attribute()) names.push_back(attribute.name());
  return names;
}
std::int64_t Node::attr_int(std::string_view key, std::int64_t fallback) const {
  const auto* attribute = find(*proto_, key);
  return attribute != nullptr && attribute->has_i() ? attribute->i() : fallback;
}
float Node::attr_float(std::string_view key, float fallback) const {
  const auto* attribute = find(*proto_, key);
  return attribute != nullptr && attribute->has_f() ? attribute->f() : fallback;
}
std::string Node::attr_string(std::string_view key, std::string_view fallback) const {
  const auto* attribute = find(*proto_, key);
  return attribute != nullptr && attribute->has_s() ? attribute->s() : std::string(fallback);
}
std::vector<std::int64_t> Node::attr_ints(std::string_view key, std::vector<std::int64_t> fallback) const {
  const auto* attribute = find(*proto_, key);
  if (attribute == nullptr) return fallback;
  return {attribute->ints().begin(), attribute->ints().end()};
}
std::vector<float> Node::attr_floats(std::string_view key, std::vector<float> fallback) const {
  const auto* attribute = find(*proto_, key);
  if (attribute == nullptr) return fallback;
  return {attribute->floats().begin(), attribute->floats().end()};
}
Result<std::optional<Tensor>> Node::attr_tensor(std::string_view key) const {
  const auto* attribute = find(*proto_, key);
  if (attribute == nullptr || !attribute->has_t()) return std::nullopt;
  OP_LET(Tensor tensor, graph_->model().store().read(attribute->t()));
  return tensor;
}

Result<std::vector<std::pair<std::string, AttributeValue>>> Node::attributes() const {
  std::vector<std::pair<std::string, AttributeValue>> out;
  for (const auto& a : proto_->attribute()) {
    switch (a.type()) {
      case onnx::AttributeProto::INT:
        out.emplace_back(a.name(), a.i());
        break;
      case onnx::AttributeProto::FLOAT:
        out.emplace_back(a.name(), a.f());
        break;
      case onnx::AttributeProto::STRING:
        out.emplace_back(a.name(), a.s());
        break;
      case onnx::AttributeProto::INTS:
        out.emplace_back(a.name(), attr_ints(a.name()));
        break;
      case onnx::AttributeProto::FLOATS:
        out.emplace_back(a.name(), attr_floats(a.name()));
        break;
      case onnx::AttributeProto::STRINGS:
        out.emplace_back(a.name(), std::vector<std::string>(a.strings().begin(), a.strings().end()));
        break;
      case onnx::AttributeProto::TENSOR: {
        OP_LET(Tensor tensor, graph_->model().store().read(a.t()));
        out.emplace_back(a.name(), std::move(tensor));
        break;
      }
      default:
        return fail(Code::unsupported, "node '{}': attribute '{}' is a graph or sparse", label(), a.name());
    }
  }
  return out;
}

bool Node::has_subgraph() const {
  for (const auto& attribute : proto_->attribute())
    if (attribute.has_g() || attribute.graphs_size() > 0) return true;
  return false;
}

std::vector<Graph*> Node::subgraphs() const {
  std::vector<Graph*> found;
  for (Graph* graph : graph_->model().graphs())
    if (graph->owner() == *this) found.push_back(graph);
  return found;
}

std::string_view Initializer::name() const { return proto_->name(); }
DType Initializer::dtype() const { return static_cast<DType>(proto_->data_type()); }
Dims Initializer::dims() const { return {proto_->dims().begin(), proto_->dims().end()}; }
std::uint64_t Initializer::size() const { return element_count(dims()).value_or(0); }
std::uint64_t Initializer::bytes() const { return byte_count(dtype(), dims()).value_or(0); }
Result<Tensor> Initializer::read() const {
  auto tensor = graph_->model().store().read(*proto_);
  if (!tensor) return rethrow(std::move(tensor).error(), "initializer '" + proto_->name() + "'");
  return tensor;
}

}  // namespace onnxpress
