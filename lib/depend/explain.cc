// Why things stay: the shortest way over ties from an axis to what fixes it, and all of it in words.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "depend/engine.h"

namespace onnxpress {
namespace {

std::string node_text(const Scope& scope, std::uint32_t number) {
  const Node& node = scope.nodes[number].node;
  return fmt::format("{} '{}'", node.op(), node.label());
}

constexpr std::array kLinear = {"Conv", "ConvTranspose", "Gemm",      "MatMul",    "Einsum",     "LSTM",
                                "GRU",  "RNN",           "FusedConv", "FusedGemm", "FusedMatMul"};

bool is_linear_op(const Node& node) {
  return std::ranges::any_of(kLinear, [&](const char* op) { return node.op() == op; });
}

std::size_t fixed_count(const Scope& scope, const Ties& ties, Axis axis) {
  const ScopeAxis& entry = scope.axes[axis];
  std::size_t count = 0;
  for (std::uint32_t i = 0; i < entry.count; ++i) count += ties.atoms().fixed(entry.first + i) ? 1 : 0;
  return count;
}

}  // namespace

FixedPaths::FixedPaths(const Scope& scope, const Ties& ties)
    : scope_(scope), ties_(ties), distance_(scope.atom_count, kFar), by_(scope.atom_count, kNone) {
  // Ties around each atom, of fixed classes only: all in one array, those of atom a from start[a] on.
  const auto& all = ties.tied();
  const auto fixed = [&](const Ties::Tie& tie) { return ties.atoms().fixed(tie.a); };
  std::vector<std::size_t> start(scope.atom_count + 1, 0);
  for (const Ties::Tie& tie : all)
    if (fixed(tie)) ++start[tie.a + 1], ++start[tie.b + 1];
  for (std::size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
  std::vector<std::uint32_t> around(start.back());
  std::vector<std::size_t> next(start.begin(), start.end() - 1);
  for (std::uint32_t i = 0; i < all.size(); ++i)
    if (fixed(all[i])) around[next[all[i].a]++] = i, around[next[all[i].b]++] = i;

  std::vector<Atoms::Atom> queue;
  for (Atoms::Atom atom = 1; atom < scope.atom_count; ++atom)
    if (ties.reason_of()[atom] != 0) {
      distance_[atom] = 0;
      queue.push_back(atom);
    }
  for (std::size_t head = 0; head < queue.size(); ++head) {
    const Atoms::Atom atom = queue[head];
    for (std::size_t k = start[atom]; k < start[atom + 1]; ++k) {
      const Ties::Tie& tie = all[around[k]];
      const Atoms::Atom other = tie.a == atom ? tie.b : tie.a;
      if (distance_[other] != kFar) continue;
      distance_[other] = distance_[atom] + 1;
      by_[other] = around[k];
      queue.push_back(other);
    }
  }
}

Atoms::Atom FixedPaths::nearest(Axis axis) const {
  const ScopeAxis& entry = scope_.axes[axis];
  Atoms::Atom best = kNone;
  for (Atoms::Atom atom = entry.first; atom < entry.first + entry.count; ++atom)
    if (distance_[atom] != kFar && (best == kNone || distance_[atom] < distance_[best])) best = atom;
  return best;
}

Atoms::Atom FixedPaths::end(Atoms::Atom atom) const {
  while (by_[atom] != kNone) {
    const Ties::Tie& tie = ties_.tied()[by_[atom]];
    atom = tie.a == atom ? tie.b : tie.a;
  }
  return atom;
}

std::string FixedPaths::reason(Atoms::Atom atom) const {
  const Ties::Reason& reason = ties_.reasons()[ties_.reason_of()[end(atom)]];
  if (reason.node != kNone) return fmt::format("{}: {}", node_text(scope_, reason.node), reason.text);
  return fmt::format("'{}' is {}", scope_.tensors[scope_.axes[scope_.axis_of(end(atom))].tensor].ref.value,
                     reason.text);
}

std::vector<std::string> FixedPaths::path(Atoms::Atom atom) const {
  std::vector<std::string> steps = {scope_.axis_text(scope_.axis_of(atom))};
  while (by_[atom] != kNone) {
    const Ties::Tie& tie = ties_.tied()[by_[atom]];
    atom = tie.a == atom ? tie.b : tie.a;
    std::string step =
        fmt::format("{}, tied by {}", scope_.axis_text(scope_.axis_of(atom)), node_text(scope_, tie.node));
    if (step != steps.back()) steps.push_back(std::move(step));
  }
  steps.push_back(reason(atom));
  return steps;
}

std::vector<BlockedAxis> find_blocked(const Scope& scope, const Ties& ties, const FixedPaths& paths) {
  std::vector<BlockedAxis> blocked;
  for (const ScopeNode& entry : scope.nodes) {
    if (!is_linear_op(entry.node)) continue;
    for (const Operand operand : entry.in) {
      if (operand == kNone) continue;
      for (std::uint32_t i = 0; i < scope.tensors[operand].rank; ++i) {
        const Axis axis = scope.axis(operand, i);
        const std::size_t fixed = fixed_count(scope, ties, axis);
        if (ties.roles()[axis] != AxisRole::produces || fixed == 0) continue;
        const Atoms::Atom atom = paths.nearest(axis);
        blocked.push_back({entry.node, scope.tensors[operand].ref, i, scope.axes[axis].count, fixed, paths.reason(atom),
                           paths.path(atom)});
      }
    }
  }
  return blocked;
}

namespace {

// "16 units of group '/conv1/Conv'" for each group that has some on the axis.
void explain_groups(const Scope& scope, const Ties& ties, const Groups& groups, Axis axis,
                    std::vector<std::string>& lines) {
  const ScopeAxis& entry = scope.axes[axis];
  std::vector<std::uint32_t> seen;
  for (std::uint32_t i = 0; i < entry.count; ++i) {
    const std::uint32_t number = groups.group_of[ties.atoms().root(entry.first + i)];
    if (number != kNone && std::ranges::find(seen, number) == seen.end()) seen.push_back(number);
  }
  for (const std::uint32_t number : seen) {
    const UnitGroup& group = groups.groups[number];
    lines.push_back(fmt::format("  {} {} of group '{}'{}; each goes with", group.units, unit_kind_name(group.kind),
                                group.name, group.approximate.empty() ? "" : ", " + group.approximate));
    for (const GroupMember& member : group.members)
      if (member.role != AxisRole::value)
        lines.push_back(fmt::format("    {} of axis {} of '{}' (read by '{}')", member.per_unit, member.axis,
                                    member.tensor.value, member.tensor.reader));
  }
}

}  // namespace

std::vector<std::string> DependencyGraph::explain(const Node& node) const {
  const Scope& scope = impl_->scope;
  const Ties& ties = impl_->ties;
  const auto entry = std::ranges::find(scope.nodes, node, &ScopeNode::node);
  if (entry == scope.nodes.end()) return {fmt::format("'{}' is not in this graph", node.label())};
  const FixedPaths paths(scope, ties);
  std::vector<std::string> lines;
  for (const Operand operand : entry->in) {
    if (operand == kNone || !ties.constant(operand)) continue;
    for (std::uint32_t i = 0; i < scope.tensors[operand].rank; ++i) {
      const Axis axis = scope.axis(operand, i);
      const AxisRole role = ties.roles()[axis];
      if (scope.axes[axis].count == 0 || (role != AxisRole::produces && role != AxisRole::consumes)) continue;
      const std::size_t fixed = fixed_count(scope, ties, axis);
      lines.push_back(fmt::format("{} ({}): {} indices, {} can go", scope.axis_text(axis),
                                  role == AxisRole::produces ? "makes" : "reads", scope.axes[axis].count,
                                  scope.axes[axis].count - fixed));
      explain_groups(scope, ties, impl_->groups, axis, lines);
      if (fixed == 0) continue;
      const auto steps = paths.path(paths.nearest(axis));
      for (std::size_t k = 1; k < steps.size(); ++k)
        lines.push_back((k + 1 == steps.size() ? "  fixed by " : "  with ") + steps[k]);
    }
  }
  if (lines.empty()) lines.push_back(fmt::format("'{}' has no weight that could be cut", node.label()));
  return lines;
}

}  // namespace onnxpress
