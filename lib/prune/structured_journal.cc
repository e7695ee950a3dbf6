#include "prune/structured_journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "prune/unit_scores.h"

namespace onnxpress {
namespace {

void add_once(std::vector<Node>& nodes, const Node& node) {
  if (!std::ranges::contains(nodes, node)) nodes.push_back(node);
}

// "conv1, conv2, conv3 and 4 more"
std::string names(const std::vector<Node>& nodes, const Node& except) {
  constexpr std::size_t kNamed = 3;
  std::vector<std::string> labels;
  std::size_t more = 0;
  for (const Node& node : nodes) {
    if (node == except) continue;
    if (labels.size() < kNamed)
      labels.push_back(node.label());
    else
      ++more;
  }
  return join(labels, ", ") + (more > 0 ? fmt::format(" and {} more", more) : "");
}

}  // namespace

std::string unit_words(const UnitGroup& group) {
  const std::string kind = group.kind == UnitKind::other ? "units" : unit_kind_name(group.kind);
  if (group.width <= 1) return kind;
  if (group.kind == UnitKind::channels) return fmt::format("blocks of {} channels", group.width);
  return fmt::format("{} of {}", kind, group.width);
}

GroupNodes group_nodes(const UnitGroup& group, const Graph& graph) {
  const auto nodes = nodes_by_key(graph);
  GroupNodes result;
  std::vector<Node> others;
  for (const GroupMember& member : group.members) {
    if (!member.tensor.is_constant()) continue;
    const auto node = nodes.find(member.tensor.reader);
    if (node == nodes.end()) continue;
    if (member.role == AxisRole::produces) add_once(result.makers, node->second);
    if (member.role == AxisRole::consumes) add_once(result.readers, node->second);
    add_once(others, node->second);
  }
  if (result.makers.empty() && result.readers.empty()) result.makers = std::move(others);
  return result;
}

bool is_residual_stream(const UnitGroup& group, const Graph& graph) {
  std::set<std::string_view> values;
  for (const GroupMember& member : group.members)
    if (!member.tensor.is_constant()) values.insert(member.tensor.value);
  return std::ranges::any_of(values, [&](std::string_view value) {
    const Node add = graph.producer(value);
    if (!add || !(add.is("Add") || add.is("Sum"))) return false;
    std::size_t carrying = 0;
    for (const std::string& input : add.inputs()) carrying += values.contains(input) ? 1 : 0;
    return carrying > 1;
  });
}

std::string group_pattern(const UnitGroup& group, const Graph& graph) {
  const auto nodes = nodes_by_key(graph);
  std::vector<std::string> parts;
  for (const GroupMember& member : group.members) {
    if (!member.tensor.is_constant()) continue;
    const auto node = nodes.find(member.tensor.reader);
    const std::string op = node == nodes.end() ? "" : std::string(node->second.op());
    parts.push_back(fmt::format("{}.{}.{}", op, member.tensor.slot, static_cast<int>(member.role)));
  }
  std::ranges::sort(parts);
  return join(parts, " ");
}

void DoneLines::add(const UnitGroup& group, const Graph& graph, std::size_t kept) {
  const GroupNodes nodes = group_nodes(group, graph);
  const std::string words = unit_words(group);
  for (const Node& node : nodes.makers) {
    const std::string others = names(nodes.makers, node);
    makers_.emplace_back(node, fmt::format("{} -> {} {} (group {}{}{})", group.units, kept, words, group.name,
                                           others.empty() ? "" : ", with " + others,
                                           group.approximate.empty() ? "" : "; approximate: " + group.approximate));
  }
  for (const Node& node : nodes.readers) {
    if (std::ranges::contains(nodes.makers, node)) continue;
    auto reads = std::ranges::find(readers_, node, &Reads::node);
    if (reads == readers_.end()) reads = readers_.insert(reads, {.node = node, .words = words, .group = group.name});
    ++reads->groups;
    reads->kept += kept;
    reads->units += group.units;
  }
}

void DoneLines::journal(PassContext& context) const {
  for (const auto& [node, text] : makers_) context.done(node, text);
  for (const Reads& reads : readers_) {
    const std::string more = reads.groups > 1 ? fmt::format(" and {} more", reads.groups - 1) : "";
    context.done(reads.node, fmt::format("reads {} of {} {} (group {}{})", reads.kept, reads.units, reads.words,
                                         reads.group, more));
  }
}

void journal_blocked(const DependencyGraph& dependencies, PassContext& context) {
  for (const BlockedAxis& axis : dependencies.blocked()) {
    const std::string part = axis.blocked == axis.size ? "all" : fmt::format("{} of", axis.blocked);
    context.skipped(axis.node, fmt::format("{} {} indices of axis {} of '{}' must stay: blocked by {}", part, axis.size,
                                           axis.axis, axis.tensor.value, axis.reason));
  }
}

void journal_whole(const UnitGroup& group, const Graph& graph, const std::string& why, PassContext& context) {
  const GroupNodes nodes = group_nodes(group, graph);
  const auto& tell = nodes.makers.empty() ? nodes.readers : nodes.makers;
  for (const Node& node : tell)
    context.skipped(node, fmt::format("group {} keeps its {} {}: {}", group.name, group.units, unit_words(group), why));
  if (tell.empty())
    context.journal.note(fmt::format("group {} keeps its {} {}: {}", group.name, group.units, unit_words(group), why));
}

}  // namespace onnxpress
