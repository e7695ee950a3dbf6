#include "engine/observed_graph.h"

#include <algorithm>
#include <cassert>
#include <map>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace onnxpress {
namespace {

// Every name that is read in `graph` or in a body inside it; those the graph defines itself are among them.
void add_reads(const onnx::GraphProto& graph, std::vector<std::string_view>& reads);

void add_reads(const onnx::NodeProto& node, std::vector<std::string_view>& reads) {
  reads.insert(reads.end(), node.input().begin(), node.input().end());
  for (const auto& attribute : node.attribute()) {
    if (attribute.has_g()) add_reads(attribute.g(), reads);
    for (const auto& body : attribute.graphs()) add_reads(body, reads);
  }
}

void add_reads(const onnx::GraphProto& graph, std::vector<std::string_view>& reads) {
  for (const auto& node : graph.node()) add_reads(node, reads);
  for (const auto& output : graph.output()) reads.push_back(output.name());
}

// Keeps the elements at the indices for which `keep` holds, in order.
template <class T, class Keep>
void keep_if(google::protobuf::RepeatedPtrField<T>& field, const Keep& keep) {
  int kept = 0;
  for (int i = 0; i < field.size(); ++i)
    if (keep(field.Get(i))) field.SwapElements(kept++, i);
  field.DeleteSubrange(kept, field.size() - kept);
}

// The graph in the copy of the model that stands where `scope` stands in the model, and the node of the main graph
// that it is in (-1 for the main graph itself).
struct Place {
  onnx::GraphProto* graph = nullptr;
  int node = -1;
};

Result<Place> place_of(onnx::ModelProto& copy, const Graph& scope) {
  if (scope.kind() == Graph::Kind::main) return Place{copy.mutable_graph(), -1};
  if (scope.kind() == Graph::Kind::function)
    return fail(Code::unsupported, "the values of model-local function '{}' cannot be observed", scope.name());
  OP_LET(const Place parent, place_of(copy, *scope.parent()));
  const auto& nodes = scope.parent()->nodes();
  const auto owner = std::ranges::find(nodes, scope.owner());
  assert(owner != nodes.end());
  const auto index = static_cast<int>(owner - nodes.begin());
  const onnx::NodeProto& original = *owner->proto();
  onnx::NodeProto& node = *parent.graph->mutable_node(index);
  for (int i = 0; i < original.attribute_size(); ++i) {
    const int top = parent.node < 0 ? index : parent.node;
    auto& attribute = *node.mutable_attribute(i);
    if (original.attribute(i).has_g() && &original.attribute(i).g() == scope.proto())
      return Place{attribute.mutable_g(), top};
    for (int k = 0; k < original.attribute(i).graphs_size(); ++k)
      if (&original.attribute(i).graphs(k) == scope.proto()) return Place{attribute.mutable_graphs(k), top};
  }
  return fail(Code::internal, "a body of node '{}' is not in the copy of its model", scope.owner().label());
}

Status check_observable(const Graph& scope, const std::string& value) {
  const Graph* definer = value.empty() ? nullptr : scope.scope_of(value);
  if (definer == nullptr) {
    const std::string where =
        scope.kind() == Graph::Kind::main ? "the main graph" : "the body of node '" + scope.owner().label() + "'";
    return fail(Code::bad_input, "{} has no value '{}' to observe", where, value);
  }
  const ValueType type = definer->type(value);
  if (!type.is_tensor) return fail(Code::bad_input, "value '{}' is not a tensor and cannot be observed", value);
  if (type.dtype == DType::string) return fail(Code::bad_input, "value '{}' holds text and cannot be observed", value);
  return {};
}

struct Watched {
  std::string value;
  std::size_t index;
};

// In reverse order of the producers, after all other nodes.
void add_observers(onnx::GraphProto& graph, std::vector<Watched> watched) {
  std::unordered_map<std::string_view, int> position;
  for (int i = 0; i < graph.node_size(); ++i)
    for (const std::string& output : graph.node(i).output()) position.emplace(output, i);
  std::ranges::stable_sort(watched, std::greater(), [&](const Watched& one) {
    const auto found = position.find(one.value);
    return found == position.end() ? -1 : found->second;
  });
  for (const Watched& one : watched) {
    auto* node = graph.add_node();
    node->set_op_type(kObserveOp);
    node->set_domain(kObserveDomain);
    node->add_input(one.value);
    auto* attribute = node->add_attribute();
    attribute->set_name(kObserveIndex);
    attribute->set_type(onnx::AttributeProto::INT);
    attribute->set_i(static_cast<std::int64_t>(one.index));
  }
}

// Leaves only the nodes that `values` and the nodes `roots` depend on.
void keep_needed_nodes(onnx::GraphProto& graph, std::vector<std::string_view> values, const std::vector<int>& roots) {
  std::unordered_map<std::string_view, int> producers;
  for (int i = 0; i < graph.node_size(); ++i)
    for (const std::string& output : graph.node(i).output()) producers.emplace(output, i);
  std::vector<bool> needed(static_cast<std::size_t>(graph.node_size()));
  const auto need = [&](int i) {
    if (needed[static_cast<std::size_t>(i)]) return;
    needed[static_cast<std::size_t>(i)] = true;
    add_reads(graph.node(i), values);
  };
  for (const int root : roots) need(root);
  while (!values.empty()) {
    const auto producer = producers.find(values.back());
    values.pop_back();
    if (producer != producers.end()) need(producer->second);
  }
  std::size_t at = 0;
  keep_if(*graph.mutable_node(), [&](const auto&) -> bool { return needed[at++]; });
}

// Initializers and types that no node is left to use. An initializer that is the default of an input stays.
void drop_unused(onnx::GraphProto& graph) {
  std::vector<std::string_view> reads;
  add_reads(graph, reads);
  std::unordered_set<std::string_view> used(reads.begin(), reads.end());
  for (const auto& input : graph.input()) used.insert(input.name());
  keep_if(*graph.mutable_initializer(), [&](const auto& tensor) { return used.contains(tensor.name()); });
  keep_if(*graph.mutable_sparse_initializer(),
          [&](const auto& tensor) { return used.contains(tensor.values().name()); });
  for (const auto& node : graph.node()) used.insert(node.output().begin(), node.output().end());
  keep_if(*graph.mutable_value_info(), [&](const auto& value) { return used.contains(value.name()); });
}

void add_output(onnx::GraphProto& graph, const Model& model) {
  std::string name = "observed";
  while (std::ranges::any_of(model.graphs(), [&](const Graph* scope) { return scope->defines(name); })) name += '_';
  auto* constant = graph.add_initializer();
  constant->set_name(name);
  constant->set_data_type(onnx::TensorProto::INT32);
  constant->add_int32_data(0);
  auto* output = graph.add_output();
  output->set_name(name);
  output->mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::INT32);
  output->mutable_type()->mutable_tensor_type()->mutable_shape();
}

}  // namespace

Status observe_values(onnx::ModelProto& copy, const Model& model, std::span<const ObservedValue> values) {
  std::map<onnx::GraphProto*, std::vector<Watched>> by_graph;
  onnx::GraphProto& main = *copy.mutable_graph();
  std::vector<std::string_view> needed;
  std::vector<int> roots;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Graph& scope = values[i].scope == nullptr ? model.main() : *values[i].scope;
    assert(&scope.model() == &model);
    OP_LET(const Place place, place_of(copy, scope));
    OP_TRY(check_observable(scope, values[i].value));
    by_graph[place.graph].push_back({values[i].value, i});
    if (place.node < 0)
      needed.push_back(values[i].value);
    else
      roots.push_back(place.node);
  }
  for (auto& [graph, watched] : by_graph)
    if (graph != &main) add_observers(*graph, std::move(watched));
  main.clear_output();
  keep_needed_nodes(main, std::move(needed), roots);
  if (const auto here = by_graph.find(&main); here != by_graph.end()) add_observers(main, std::move(here->second));
  drop_unused(main);
  add_output(main, model);
  auto* opset = copy.add_opset_import();
  opset->set_domain(kObserveDomain);
  opset->set_version(1);
  return {};
}

}  // namespace onnxpress
