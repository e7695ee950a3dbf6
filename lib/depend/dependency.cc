#include "depend/dependency.h"

#include <cassert>

#include "depend/engine.h"
#include "depend/rules.h"

namespace onnxpress {
namespace {

constexpr int kRounds = 6;

// Weights that are stored transposed, in half precision or in integers reach their reader through other nodes: the
// constant itself plays the part then.
void hand_roles_back(const Scope& scope, const Atoms& atoms, std::vector<AxisRole>& roles) {
  for (auto entry = scope.nodes.rbegin(); entry != scope.nodes.rend(); ++entry) {
    if (entry->out.empty() || entry->out[0] == kNone || !scope.tensors[entry->out[0]].derived) continue;
    const ScopeTensor& made = scope.tensors[entry->out[0]];
    if (entry->in.empty() || entry->in[0] == kNone) continue;
    const ScopeTensor& read = scope.tensors[entry->in[0]];
    for (std::uint32_t i = 0; i < made.rank; ++i)
      for (std::uint32_t k = 0; k < read.rank; ++k) {
        const ScopeAxis &from = scope.axes[made.first_axis + i], &to = scope.axes[read.first_axis + k];
        if (from.count == 0 || from.count != to.count || atoms.root(from.first) != atoms.root(to.first)) continue;
        roles[read.first_axis + k] = roles[made.first_axis + i];
      }
  }
}

}  // namespace

const char* unit_kind_name(UnitKind kind) {
  switch (kind) {
    case UnitKind::channels:
      return "channels";
    case UnitKind::neurons:
      return "neurons";
    case UnitKind::heads:
      return "heads";
    case UnitKind::hidden:
      return "hidden";
    case UnitKind::other:
      return "other";
  }
  return "other";
}

Status DependencyGraph::Impl::round() {
  ties.restart();
  ties.fix_scope();
  for (std::uint32_t i = 0; i < scope.nodes.size(); ++i) {
    const Node& node = scope.nodes[i].node;
    if (node.is("Constant")) continue;
    ties.enter(i);
    const Rule rule = find_rule(node);
    if (node.has_subgraph()) {
      ties.fix_all("a node with bodies");
    } else if (rule == nullptr) {
      ties.fix_all("no rule for this operator");
    } else {
      OP_TRY(rule(ties));
    }
  }
  return {};
}

Status DependencyGraph::Impl::analyze() {
  OP_TRY(round());
  ties.decide_products();
  for (int i = 0; i < kRounds; ++i) {
    OP_TRY(round());
    if (i + 1 == kRounds || !ties.revise_products()) break;
  }
  hand_roles_back(scope, ties.atoms(), ties.roles());
  groups = extract_groups(scope, ties);
  blocked = find_blocked(scope, ties, FixedPaths(scope, ties));
  return {};
}

Result<DependencyGraph> DependencyGraph::analyze(const Graph& graph, const DependencyOptions& options) {
  auto impl = std::make_unique<Impl>(graph, options);
  OP_TRY(impl->analyze());
  return DependencyGraph(std::move(impl));
}

DependencyGraph::DependencyGraph(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DependencyGraph::~DependencyGraph() = default;
DependencyGraph::DependencyGraph(DependencyGraph&&) noexcept = default;
DependencyGraph& DependencyGraph::operator=(DependencyGraph&&) noexcept = default;

const std::vector<UnitGroup>& DependencyGraph::groups() const { return impl_->groups.groups; }
const std::vector<BlockedAxis>& DependencyGraph::blocked() const { return impl_->blocked; }
std::size_t DependencyGraph::atoms() const { return impl_->scope.atom_count; }

std::size_t DependencyGraph::size(const TensorRef& tensor, std::size_t axis) const {
  const Scope& scope = impl_->scope;
  const Operand operand = scope.find(tensor);
  assert(operand != kNone && axis < scope.tensors[operand].rank);
  return static_cast<std::size_t>(scope.axes[scope.axis(operand, axis)].size.value_or(0));
}

}  // namespace onnxpress
