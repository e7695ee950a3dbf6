#include "ir/rewriter.h"

#include <onnx/onnx_pb.h>

#include <cassert>

#include "ir/index.h"
#include "ir/node_proto.h"

namespace onnxpress {
namespace {

onnx::AttributeProto* find_or_add(onnx::NodeProto& node, std::string_view key) {
  for (auto& attribute : *node.mutable_attribute())
    if (attribute.name() == key) return &attribute;
  auto* attribute = node.add_attribute();
  attribute->set_name(std::string(key));
  return attribute;
}

struct AttributeWriter {
  onnx::AttributeProto& out;
  TensorStore& store;

  Status operator()(std::int64_t value) const {
    out.set_type(onnx::AttributeProto::INT);
    out.set_i(value);
    return {};
  }
  Status operator()(float value) const {
    out.set_type(onnx::AttributeProto::FLOAT);
    out.set_f(value);
    return {};
  }
  Status operator()(const std::string& value) const {
    out.set_type(onnx::AttributeProto::STRING);
    out.set_s(value);
    return {};
  }
  Status operator()(const std::vector<std::int64_t>& values) const {
    out.set_type(onnx::AttributeProto::INTS);
    out.mutable_ints()->Add(values.begin(), values.end());
    return {};
  }
  Status operator()(const std::vector<float>& values) const {
    out.set_type(onnx::AttributeProto::FLOATS);
    out.mutable_floats()->Add(values.begin(), values.end());
    return {};
  }
  Status operator()(const std::vector<std::string>& values) const {
    out.set_type(onnx::AttributeProto::STRINGS);
    for (const std::string& value : values) out.add_strings(value);
    return {};
  }
  Status operator()(const Tensor& value) const {
    out.set_type(onnx::AttributeProto::TENSOR);
    return store.write(*out.mutable_t(), value);
  }
};

template <class Field, class Predicate>
void erase_if(Field& field, Predicate drop) {
  for (int i = field.size() - 1; i >= 0; --i)
    if (drop(field.Get(i))) field.DeleteSubrange(i, 1);
}

void set_type(onnx::ValueInfoProto& info, const onnx::TensorProto& tensor) {
  auto* type = info.mutable_type()->mutable_tensor_type();
  type->set_elem_type(tensor.data_type());
  type->mutable_shape()->clear_dim();
  for (const std::int64_t dim : tensor.dims()) type->mutable_shape()->add_dim()->set_dim_value(dim);
}

void declare_input(onnx::GraphProto& graph, const onnx::TensorProto& tensor) {
  auto* info = graph.add_input();
  info->set_name(tensor.name());
  set_type(*info, tensor);
}

std::string first_free(std::string_view base, std::unordered_set<std::string>& taken) {
  std::string name(base);
  for (std::size_t n = 1; !taken.insert(name).second; ++n) name = fmt::format("{}_{}", base, n);
  return name;
}

}  // namespace

onnx::NodeProto node_proto(const NodeSpec& spec) {
  onnx::NodeProto node;
  node.set_op_type(spec.op);
  if (!spec.domain.empty()) node.set_domain(spec.domain);
  if (!spec.name.empty()) node.set_name(spec.name);
  for (const std::string& input : spec.inputs) node.add_input(input);
  for (const std::string& output : spec.outputs) node.add_output(output);
  return node;
}

Status write_attribute(onnx::NodeProto& node, std::string_view key, const AttributeValue& value, TensorStore& store) {
  onnx::AttributeProto* attribute = find_or_add(node, key);
  const std::string name = attribute->name();
  attribute->Clear();
  attribute->set_name(name);
  return std::visit(AttributeWriter{*attribute, store}, value);
}

Rewriter::Rewriter(Graph& graph) : graph_(graph) {}
Rewriter::~Rewriter() = default;

void Rewriter::edit(std::function<Status()> change) {
  changed_ = true;
  edits_.push_back(std::move(change));
}

Node Rewriter::make(NodeSpec spec) {
  auto proto = std::make_unique<onnx::NodeProto>(node_proto(spec));
  onnx::NodeProto* raw = proto.get();
  made_.emplace(raw, std::move(proto));
  for (auto& [key, value] : spec.attributes) set_attribute(Node(raw, &graph_), key, std::move(value));
  changed_ = true;
  return Node(raw, &graph_);
}

void Rewriter::insert_at(Node anchor, bool after, Node node) {
  (after ? after_ : before_)[anchor.proto()].push_back(node.proto());
}
Node Rewriter::insert_before(Node anchor, NodeSpec spec) {
  const Node node = make(std::move(spec));
  insert_at(anchor, false, node);
  return node;
}
Node Rewriter::insert_after(Node anchor, NodeSpec spec) {
  const Node node = make(std::move(spec));
  insert_at(anchor, true, node);
  return node;
}
Node Rewriter::append(NodeSpec spec) {
  const Node node = make(std::move(spec));
  back_.push_back(node.proto());
  return node;
}
Node Rewriter::prepend(NodeSpec spec) {
  const Node node = make(std::move(spec));
  front_.push_back(node.proto());
  return node;
}
void Rewriter::erase(Node node) {
  assert(&node.graph() == &graph_);
  changed_ = true;
  erased_.insert(node.proto());
}

void Rewriter::set_input(Node node, std::size_t slot, std::string_view value) {
  edit([proto = node.proto(), slot, value = std::string(value)]() -> Status {
    while (static_cast<std::size_t>(proto->input_size()) <= slot) proto->add_input();
    proto->set_input(static_cast<int>(slot), value);
    return {};
  });
}
void Rewriter::set_output(Node node, std::size_t slot, std::string_view value) {
  edit([proto = node.proto(), slot, value = std::string(value)]() -> Status {
    while (static_cast<std::size_t>(proto->output_size()) <= slot) proto->add_output();
    proto->set_output(static_cast<int>(slot), value);
    return {};
  });
}
void Rewriter::remove_last_inputs(Node node, std::size_t keep) {
  edit([proto = node.proto(), keep]() -> Status {
    while (static_cast<std::size_t>(proto->input_size()) > keep) proto->mutable_input()->RemoveLast();
    return {};
  });
}
void Rewriter::set_attribute(Node node, std::string_view key, AttributeValue value) {
  edit([this, proto = node.proto(), key = std::string(key), value = std::move(value)]() -> Status {
    return write_attribute(*proto, key, value, graph_.model().store());
  });
}
void Rewriter::remove_attribute(Node node, std::string_view key) {
  edit([proto = node.proto(), key = std::string(key)]() -> Status {
    erase_if(*proto->mutable_attribute(), [&](const auto& attribute) { return attribute.name() == key; });
    return {};
  });
}
void Rewriter::set_op(Node node, std::string_view op, std::string_view domain) {
  edit([proto = node.proto(), op = std::string(op), domain = std::string(domain)]() -> Status {
    proto->set_op_type(op);
    proto->clear_domain();
    if (!domain.empty()) proto->set_domain(domain);
    proto->clear_attribute();
    return {};
  });
}

bool Rewriter::replace_uses(std::string_view from, std::string_view to) {
  if (graph_.is_output(from)) return false;
  const std::vector<Use>& uses = graph_.uses(from);
  const Graph* target = graph_.scope_of(to);
  for (const Use& use : uses) {
    if (!use.node) return false;
    if (use.captured && use.node.graph().scope_of(to) != target) return false;
  }
  std::string final_name(to);
  for (auto next = replaced_.find(final_name); next != replaced_.end(); next = replaced_.find(final_name))
    final_name = next->second;
  for (auto& [key, value] : replaced_)
    if (value == from) value = final_name;
  replaced_[std::string(from)] = final_name;
  edit([this, uses, from = std::string(from)]() -> Status {
    for (const Use& use : uses) use.node.proto()->set_input(static_cast<int>(use.slot), replaced_[from]);
    return {};
  });
  return true;
}

// The payload goes to the store at once (to disk beyond its budget), so buffered edits never hold weights in memory.
std::shared_ptr<onnx::TensorProto> Rewriter::prepare(const onnx::TensorProto* old, Tensor value) {
  auto prepared = old != nullptr ? std::make_shared<onnx::TensorProto>(*old) : std::make_shared<onnx::TensorProto>();
  if (Status status = graph_.model().store().write(*prepared, std::move(value)); !status && status_) status_ = status;
  changed_ = true;
  return prepared;
}

void Rewriter::add_initializer(std::string_view name, Tensor value) {
  assert(graph_.proto() != nullptr);
  auto prepared = prepare(nullptr, std::move(value));
  prepared->set_name(std::string(name));
  edit([this, prepared]() -> Status {
    auto& graph = *graph_.proto();
    // Up to IR 3 the format wants every initializer of the main graph listed as an input too.
    if (graph_.kind() == Graph::Kind::main && graph_.model().ir_version() < 4) declare_input(graph, *prepared);
    graph.add_initializer()->Swap(prepared.get());
    return {};
  });
}
void Rewriter::set_initializer(Initializer initializer, Tensor value) {
  auto prepared = prepare(initializer.proto(), std::move(value));
  edit([this, proto = initializer.proto(), prepared]() -> Status {
    proto->Swap(prepared.get());
    auto& graph = *graph_.proto();
    erase_if(*graph.mutable_value_info(), [&](const auto& info) { return info.name() == proto->name(); });
    for (auto& input : *graph.mutable_input())
      if (input.name() == proto->name()) set_type(input, *proto);
    return {};
  });
}
void Rewriter::remove_initializer(Initializer initializer) {
  edit([this, name = std::string(initializer.name())]() -> Status {
    auto& graph = *graph_.proto();
    const auto named = [&](const auto& item) { return item.name() == name; };
    erase_if(*graph.mutable_initializer(), named);
    erase_if(*graph.mutable_value_info(), named);
    if (graph_.kind() == Graph::Kind::main && graph_.model().ir_version() < 4) erase_if(*graph.mutable_input(), named);
    return {};
  });
}
void Rewriter::remove_input(std::string_view name) {
  edit([this, name = std::string(name)]() -> Status {
    erase_if(*graph_.proto()->mutable_input(), [&](const auto& item) { return item.name() == name; });
    return {};
  });
}
void Rewriter::forget_type(std::string_view value) {
  if (graph_.proto() == nullptr) return;
  for (const auto& info : graph_.proto()->value_info()) {
    if (info.name() != value) continue;
    edit([this, name = std::string(value)]() -> Status {
      erase_if(*graph_.proto()->mutable_value_info(), [&](const auto& item) { return item.name() == name; });
      return {};
    });
    return;
  }
}

std::string Rewriter::fresh_value(std::string_view base) {
  auto& taken = graph_.model().cache_->value_names;
  if (taken.empty()) {
    for (Graph* graph : graph_.model().graphs()) {
      for (const std::string& name : graph->inputs()) taken.insert(name);
      for (const std::string& name : graph->outputs()) taken.insert(name);
      for (const std::string& name : graph->sparse_initializers()) taken.insert(name);
      for (const Initializer& initializer : graph->initializers()) taken.emplace(initializer.name());
      for (const Node& node : graph->nodes()) {
        taken.insert(node.proto()->output().begin(), node.proto()->output().end());
        taken.insert(node.proto()->input().begin(), node.proto()->input().end());
      }
    }
  }
  return first_free(base, taken);
}
std::string Rewriter::fresh_node(std::string_view base) {
  auto& taken = graph_.model().cache_->node_names;
  if (taken.empty())
    for (Graph* graph : graph_.model().graphs())
      for (const Node& node : graph->nodes()) taken.emplace(node.name());
  return first_free(base, taken);
}

// New order: each old node between what was inserted before and after it; insertions may be anchors themselves.
void Rewriter::compact() {
  if (made_.empty() && erased_.empty()) return;
  auto& field = graph_.proto() != nullptr ? *graph_.proto()->mutable_node() : *graph_.function_proto()->mutable_node();
  NodeList old(static_cast<std::size_t>(field.size()));
  if (!old.empty()) field.ExtractSubrange(0, field.size(), old.data());
  NodeList order;
  const auto place = [&](const auto& self, onnx::NodeProto* node) -> void {
    if (const auto found = before_.find(node); found != before_.end())
      for (auto* inserted : found->second) self(self, inserted);
    order.push_back(node);
    if (const auto found = after_.find(node); found != after_.end())
      for (auto* inserted : found->second) self(self, inserted);
  };
  for (auto* node : front_) place(place, node);
  for (auto* node : old) place(place, node);
  for (auto* node : back_) place(place, node);
  for (auto* node : order) {
    const auto made = made_.find(node);
    const bool is_new = made != made_.end();
    if (is_new) static_cast<void>(made->second.release());
    if (erased_.contains(node)) {
      delete node;
    } else {
      field.AddAllocated(node);
    }
  }
  made_.clear();
}

Result<bool> Rewriter::commit() {
  const bool changed = changed_;
  Status status = std::exchange(status_, Status());
  for (const auto& change : edits_) {
    if (status) status = change();
  }
  compact();
  edits_.clear();
  replaced_.clear();
  front_.clear();
  back_.clear();
  before_.clear();
  after_.clear();
  erased_.clear();
  changed_ = false;
  if (changed) graph_.model().invalidate();
  if (!status) return std::unexpected(std::move(status).error());
  return changed;
}

}  // namespace onnxpress
