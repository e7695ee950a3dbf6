#include "prune/unit_cost.h"

#include <algorithm>
#include <set>

#include "ir/macs.h"

namespace onnxpress {
namespace {

bool is_parameter(DType dtype) {
  return dtype != DType::i64 && dtype != DType::u64 && dtype != DType::boolean && dtype != DType::string;
}

// Of the constants that a scope defines: name and type.
std::vector<std::pair<std::string, std::pair<DType, Dims>>> constants_of(const Graph& graph) {
  std::vector<std::pair<std::string, std::pair<DType, Dims>>> found;
  for (const Initializer& initializer : graph.initializers())
    found.push_back({std::string(initializer.name()), {initializer.dtype(), initializer.dims()}});
  for (const Node& node : graph.nodes())
    if (node.is("Constant"))
      if (auto type = graph.constant_type(node.output(0))) found.emplace_back(std::string(node.output(0)), *type);
  return found;
}

}  // namespace

PlanCost::PlanCost(const Model& model, const std::vector<ScopedGroup>& groups) {
  std::map<const Graph*, std::map<TensorRef, Losses>> losses;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    units_.push_back(groups[g].group->units);
    for (const GroupMember& member : groups[g].group->members)
      losses[groups[g].scope][member.tensor].push_back({member.axis, g, member.per_unit});
  }
  for (auto& [scope, tensors] : losses)
    for (auto& [tensor, of_tensor] : tensors) std::ranges::sort(of_tensor);
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes()) add_node(node, losses[graph]);
  add_constants(model, losses);
}

void PlanCost::add_node(const Node& node, const std::map<TensorRef, Losses>& losses) {
  const auto macs = node_macs(node, nullptr);
  if (!macs || !*macs) return;
  NodeCost cost{node, {}, {}};
  bool shrinks = false;
  const auto find = [&](const TensorRef& tensor) {
    const auto found = losses.find(tensor);
    shrinks = shrinks || found != losses.end();
    return found == losses.end() ? Losses() : found->second;
  };
  for (std::size_t slot = 0; slot < node.input_count(); ++slot) cost.inputs.push_back(find(input_ref(node, slot)));
  for (std::size_t slot = 0; slot < node.output_count(); ++slot) cost.outputs.push_back(find(output_ref(node, slot)));
  if (shrinks)
    nodes_.push_back(std::move(cost));
  else
    fixed_macs_ += **macs;
}

void PlanCost::add_constants(const Model& model, const std::map<const Graph*, std::map<TensorRef, Losses>>& losses) {
  // How each constant is read, wherever that is.
  std::map<std::pair<const Graph*, std::string>, std::set<Losses>> readers;
  for (const Graph* graph : model.graphs()) {
    const auto of_scope = losses.find(graph);
    for (const Node& node : graph->nodes())
      for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
        const TensorRef tensor = input_ref(node, slot);
        if (!tensor.is_constant()) continue;
        Losses cut;
        if (of_scope != losses.end())
          if (const auto found = of_scope->second.find(tensor); found != of_scope->second.end()) cut = found->second;
        readers[{graph->scope_of(tensor.value), tensor.value}].insert(std::move(cut));
      }
  }
  for (const Graph* graph : model.graphs())
    for (auto& [name, type] : constants_of(*graph)) {
      if (!is_parameter(type.first)) continue;
      const auto found = readers.find({graph, name});
      const bool whole = found == readers.end() || (found->second.size() == 1 && found->second.begin()->empty());
      if (whole)
        fixed_parameters_ += element_count(type.second).value_or(0);
      else
        constants_.push_back({std::move(type.second), {found->second.begin(), found->second.end()}});
    }
}

Dims PlanCost::shrunk(Dims dims, const Losses& losses, std::span<const std::size_t> kept) const {
  for (const AxisLoss& loss : losses)
    if (loss.axis < dims.size())
      dims[loss.axis] -= static_cast<std::int64_t>((units_[loss.group] - kept[loss.group]) * loss.per_unit);
  return dims;
}

std::uint64_t PlanCost::macs(std::span<const std::size_t> kept) const {
  std::uint64_t total = fixed_macs_;
  for (const NodeCost& cost : nodes_) {
    const auto macs = node_macs(cost.node, nullptr, [&](const Node&, bool output, std::size_t slot, Dims dims) {
      const auto& slots = output ? cost.outputs : cost.inputs;
      return slot < slots.size() ? shrunk(std::move(dims), slots[slot], kept) : dims;
    });
    if (macs && *macs) total += **macs;
  }
  return total;
}

std::uint64_t PlanCost::parameters(std::span<const std::size_t> kept) const {
  std::uint64_t total = fixed_parameters_;
  for (const Constant& constant : constants_) {
    std::vector<Losses> versions;  // without groups that lose nothing: readers may then share what others do not
    for (Losses losses : constant.readers) {
      std::erase_if(losses, [&](const AxisLoss& loss) { return kept[loss.group] == units_[loss.group]; });
      if (std::ranges::contains(versions, losses)) continue;
      total += element_count(shrunk(constant.dims, losses, kept)).value_or(0);
      versions.push_back(std::move(losses));
    }
  }
  return total;
}

std::uint64_t constant_bytes(const Model& model) {
  constexpr std::uint64_t kFrame = 16;  // tags and lengths of a TensorProto with its dims
  std::uint64_t bytes = 0;
  for (const Graph* graph : model.graphs())
    for (const auto& [name, type] : constants_of(*graph))
      bytes += kFrame + name.size() + byte_count(type.first, type.second).value_or(0);
  return bytes;
}

}  // namespace onnxpress
