#include "quant/runtime_graph.h"

#include <algorithm>
#include <cassert>

namespace onnxpress {
namespace {

// Values that the bodies of a node read from outside of them.
void collect_captured(const Node& node, std::vector<std::string>& out) {
  for (const Graph* body : node.subgraphs()) {
    std::vector<std::string> read;
    for (const Node& inner : body->nodes()) {
      for (const std::string& input : inner.inputs()) read.push_back(input);
      collect_captured(inner, read);
    }
    for (const std::string& output : body->outputs()) read.push_back(output);
    for (const std::string& value : read)
      if (!value.empty() && !body->defines(value) && !std::ranges::contains(out, value)) out.push_back(value);
  }
}

}  // namespace

const std::string& RuntimeGraph::Item::input(std::size_t slot) const {
  static const std::string none;
  return slot < inputs.size() ? inputs[slot] : none;
}

std::size_t RuntimeGraph::Item::present_inputs() const {
  return static_cast<std::size_t>(std::ranges::count_if(inputs, [](const std::string& v) { return !v.empty(); }));
}

RuntimeGraph::RuntimeGraph(const Graph& graph) : graph_(graph) {
  const std::vector<Node>& nodes = graph.nodes();
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    items_.push_back({.origin = i,
                      .source = nodes[i],
                      .op = std::string(nodes[i].op()),
                      .domain = std::string(nodes[i].domain()),
                      .inputs = nodes[i].inputs(),
                      .outputs = nodes[i].outputs()});
    captured_.emplace_back();
    if (nodes[i].has_subgraph()) collect_captured(nodes[i], captured_.back());
    link(i);
  }
}

void RuntimeGraph::link(std::size_t item) {
  const Item& node = items_[item];
  for (std::size_t slot = 0; slot < node.inputs.size(); ++slot)
    if (!node.inputs[slot].empty()) readers_[node.inputs[slot]].insert({item, slot});
  for (std::size_t k = 0; k < captured_[item].size(); ++k)
    readers_[captured_[item][k]].insert({item, node.inputs.size() + k, true});
  for (const std::string& output : node.outputs)
    if (!output.empty()) producers_[output] = item;
}

void RuntimeGraph::unlink(std::size_t item) {
  const Item& node = items_[item];
  for (std::size_t slot = 0; slot < node.inputs.size(); ++slot)
    if (!node.inputs[slot].empty()) readers_[node.inputs[slot]].erase({item, slot});
  for (std::size_t k = 0; k < captured_[item].size(); ++k)
    readers_[captured_[item][k]].erase({item, node.inputs.size() + k, true});
  for (const std::string& output : node.outputs) {
    const auto found = producers_.find(output);
    if (found != producers_.end() && found->second == item) producers_.erase(found);
  }
}

// Depth first from the nodes nobody reads, the last one first, into inputs of higher number first: of two equal nodes
// the runtime keeps the one that comes first in this order.
std::vector<std::size_t> RuntimeGraph::order() const {
  std::vector<std::pair<std::size_t, bool>> stack;  // item, and whether all it reads has been visited
  for (std::size_t i = 0; i < items_.size(); ++i)
    if (items_[i].alive && edges(i) == 0) stack.emplace_back(i, false);
  std::vector<bool> visited(items_.size(), false);
  std::vector<std::size_t> sorted;
  while (!stack.empty()) {
    const auto [item, left] = stack.back();
    stack.pop_back();
    if (left) sorted.push_back(item);
    if (left || visited[item]) continue;
    visited[item] = true;
    stack.emplace_back(item, true);
    std::set<std::size_t> sources;
    for (const auto* list : {&items_[item].inputs, &captured_[item]})
      for (const std::string& value : *list)
        if (const std::size_t from = producer(value); from != kNone) sources.insert(from);
    for (const std::size_t from : sources)
      if (!visited[from]) stack.emplace_back(from, false);
  }
  return sorted;
}

std::size_t RuntimeGraph::producer(const std::string& value) const {
  const auto found = producers_.find(value);
  return value.empty() || found == producers_.end() ? kNone : found->second;
}

const std::set<RuntimeGraph::Reader>& RuntimeGraph::readers(const std::string& value) const {
  static const std::set<Reader> none;
  const auto found = readers_.find(value);
  return found == readers_.end() ? none : found->second;
}

std::size_t RuntimeGraph::edges(std::size_t item) const {
  std::size_t count = 0;
  for (const std::string& output : items_[item].outputs) count += readers(output).size();
  return count;
}

bool RuntimeGraph::makes_output(std::size_t item) const {
  return std::ranges::any_of(items_[item].outputs, [&](const std::string& output) { return is_output(output); });
}

std::size_t RuntimeGraph::only_reader(std::size_t item) const {
  assert(edges(item) == 1);
  for (const std::string& output : items_[item].outputs)
    if (const auto& all = readers(output); !all.empty()) return all.begin()->item;
  return kNone;
}

std::size_t RuntimeGraph::add(Item item) {
  items_.push_back(std::move(item));
  captured_.emplace_back();
  link(items_.size() - 1);
  return items_.size() - 1;
}

void RuntimeGraph::remove(std::size_t item, std::string why) {
  unlink(item);
  items_[item].alive = false;
  if (items_[item].origin != kNone) gone.insert_or_assign(items_[item].origin, std::move(why));
}

void RuntimeGraph::set_input(std::size_t item, std::size_t slot, const std::string& value) {
  unlink(item);
  if (items_[item].inputs.size() <= slot) items_[item].inputs.resize(slot + 1);
  items_[item].inputs[slot] = value;
  link(item);
}

void RuntimeGraph::set_output(std::size_t item, std::size_t slot, const std::string& value) {
  unlink(item);
  items_[item].outputs[slot] = value;
  link(item);
}

void RuntimeGraph::move_readers(const std::string& from, const std::string& to) {
  const std::set<Reader> all = readers(from);
  for (const Reader& reader : all)
    if (!reader.captured) set_input(reader.item, reader.slot, to);
}

std::string RuntimeGraph::fresh(std::string_view base) {
  return std::string(base) + "\x01" + std::to_string(fresh_++);  // no model can have this name
}

bool RuntimeGraph::is_constant(const std::string& value) const {
  return !value.empty() && (constants_.contains(value) || graph_.is_constant(value));
}

void RuntimeGraph::make_constant(const std::string& value, DType dtype, std::optional<Dims> dims,
                                 std::optional<Tensor> bytes) {
  constants_[value] = {dtype, std::move(dims), std::move(bytes)};
}

std::optional<std::pair<DType, std::optional<Dims>>> RuntimeGraph::constant_type(const std::string& value) const {
  if (value.empty()) return std::nullopt;
  if (const auto found = constants_.find(value); found != constants_.end())
    return std::pair{found->second.dtype, found->second.dims};
  const auto type = graph_.constant_type(value);
  if (!type) return std::nullopt;
  return std::pair{type->first, std::optional(type->second)};
}

std::optional<Tensor> RuntimeGraph::scalar(const std::string& value) const {
  const auto type = constant_type(value);
  if (!type || !type->second || element_count(*type->second) != 1) return std::nullopt;
  if (const auto found = constants_.find(value); found != constants_.end()) return found->second.bytes;
  auto tensor = graph_.constant(value);
  return tensor ? std::move(*tensor) : std::nullopt;
}

bool RuntimeGraph::is_scalar(const std::string& value) const {
  if (const auto constant = constant_type(value))
    return constant->second && constant->second->size() <= 1 && element_count(*constant->second) == 1;
  const auto shape = type(value).shape;
  return shape && (shape->empty() || (shape->size() == 1 && shape->front().value == 1));
}

ValueType RuntimeGraph::type(const std::string& value) const {
  if (const auto found = types_.find(value); found != types_.end()) return found->second;
  if (const auto constant = constant_type(value)) {
    ValueType out;
    out.dtype = constant->first;
    if (constant->second) {
      out.shape.emplace();
      for (const std::int64_t dim : *constant->second) out.shape->push_back({dim, ""});
    }
    return out;
  }
  const Graph* scope = graph_.scope_of(value);
  return scope == nullptr ? ValueType{} : scope->type(value);
}

}  // namespace onnxpress
