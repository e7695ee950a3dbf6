#include "depend/scope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace onnxpress {
namespace {

constexpr std::int64_t kLargestAxis = 1 << 26;  // longer ones are taken for unknown,
constexpr std::size_t kMostAtoms = 1U << 30;    // and all that come after so many

std::string kind_of(const Graph& graph) { return graph.kind() == Graph::Kind::main ? "the model" : "this body"; }

// The node of this scope whose body reads the value, "" when none does.
std::string captured_by(const Graph& graph, const std::string& value) {
  for (const Use& use : graph.uses(value)) {
    if (!use.captured && use.node) continue;
    if (!use.node) return "read inside a body";
    const Graph* scope = &use.node.graph();
    while (scope->parent() != nullptr && scope->parent() != &graph) scope = scope->parent();
    return fmt::format("read inside a body of '{}'", scope->owner() ? scope->owner().label() : scope->name());
  }
  return {};
}

bool is_random(const Node& node) {
  return node.op().starts_with("Random") || node.is("Multinomial") || node.is("Bernoulli");
}

}  // namespace

Scope::Scope(const Graph& scope_graph) : graph(&scope_graph), sizes(scope_graph) {
  for (const Node& node : graph->nodes()) {
    ScopeNode entry{node, {}, {}};
    const auto number = static_cast<std::uint32_t>(nodes.size());
    for (std::size_t i = 0; i < node.input_count(); ++i) entry.in.push_back(add(input_ref(node, i), number));
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      entry.out.push_back(add(output_ref(node, i), number));
      if (entry.out.back() != kNone) tensors[entry.out.back()].node = number;
    }
    nodes.push_back(std::move(entry));
  }
  mark_fixed();
  mark_derived();
}

Operand Scope::add(const TensorRef& ref, std::uint32_t node) {
  if (ref.value.empty()) return kNone;
  const auto [at, fresh] = by_ref.try_emplace(ref, static_cast<Operand>(tensors.size()));
  if (!fresh) return at->second;
  ScopeTensor tensor;
  tensor.ref = ref;
  if (ref.is_constant()) tensor.node = node;
  add_axes(tensor, at->second);
  tensors.push_back(std::move(tensor));
  return at->second;
}

void Scope::add_axes(ScopeTensor& tensor, Operand number) {
  ValueType type;
  if (tensor.ref.is_constant()) {
    const auto constant = graph->constant_type(tensor.ref.value);
    assert(constant);
    type.dtype = constant->first;
    type.shape.emplace();
    for (const std::int64_t dim : constant->second) type.shape->push_back({dim, {}});
  } else {
    type = graph->type(tensor.ref.value);
    if (type.is_tensor) type.shape = sizes.shape(tensor.ref.value);
  }
  tensor.dtype = type.dtype;
  tensor.first_axis = static_cast<Axis>(axes.size());
  if (!type.shape || !type.is_tensor) return;
  tensor.ranked = true;
  tensor.rank = static_cast<std::uint32_t>(type.shape->size());
  for (std::uint32_t i = 0; i < tensor.rank; ++i) {
    const Dim& dim = (*type.shape)[i];
    ScopeAxis axis{.tensor = number, .axis = i, .size = dim.value, .symbol = dim.symbol};
    if (axis.size && (*axis.size < 1 || *axis.size > kLargestAxis || atom_count > kMostAtoms)) axis.size.reset();
    axis.first = static_cast<Atoms::Atom>(atom_count);
    if (axis.size && *axis.size > 1) {
      axis.count = static_cast<std::uint32_t>(*axis.size);
      atom_count += axis.count;
    }
    axes.push_back(std::move(axis));
  }
}

void Scope::mark_fixed() {
  const auto sparse = graph->sparse_initializers();
  const bool main = graph->kind() == Graph::Kind::main;
  for (ScopeTensor& tensor : tensors) {
    const std::string& value = tensor.ref.value;
    const bool constant = tensor.ref.is_constant();
    if (!constant && graph->is_input(value)) tensor.stays = "an input of " + kind_of(*graph);
    if (graph->is_output(value)) tensor.stays = "an output of " + kind_of(*graph);
    if (constant && !main && !graph->defines(value) && graph->scope_of(value)->is_output(value))
      tensor.stays = "an output of the model";
    if (!constant && !graph->defines(value)) tensor.stays = "computed outside this body";
    if (std::ranges::find(sparse, value) != sparse.end()) tensor.stays = "stored as a sparse initializer";
    if (!constant && tensor.stays.empty()) tensor.stays = captured_by(*graph, value);
  }
}

void Scope::mark_derived() {
  for (const ScopeNode& entry : nodes) {
    if (entry.in.empty() || entry.node.has_subgraph() || is_random(entry.node)) continue;
    const bool constant = std::ranges::all_of(
        entry.in, [&](Operand in) { return in == kNone || tensors[in].ref.is_constant() || tensors[in].derived; });
    for (const Operand out : entry.out)
      if (out != kNone) tensors[out].derived = constant;
  }
}

Operand Scope::find(const TensorRef& ref) const {
  const auto found = by_ref.find(ref);
  return found == by_ref.end() ? kNone : found->second;
}

Axis Scope::axis_of(Atoms::Atom atom) const {
  const auto next = std::ranges::upper_bound(axes, atom, {}, &ScopeAxis::first);
  assert(next != axes.begin() && atom < std::prev(next)->first + std::prev(next)->count);
  return static_cast<Axis>(next - axes.begin() - 1);
}

std::string Scope::axis_text(Axis axis) const {
  return fmt::format("axis {} of '{}'", axes[axis].axis, tensors[axes[axis].tensor].ref.value);
}

}  // namespace onnxpress
