#include "flow/groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "depend/dependency.h"
#include "engine/session.h"
#include "flow/inputs.h"
#include "flow/text_table.h"
#include "ir/macs.h"
#include "report/cells.h"

namespace onnxpress {
namespace {

// How many indices of each axis of a tensor go when all units of one group go.
struct Share {
  std::size_t group = 0;
  std::map<std::size_t, std::int64_t> gone;  // by axis
};
using Shares = std::map<TensorRef, std::vector<Share>>;

Shares shares_of(const DependencyGraph& dependencies) {
  Shares shares;
  const std::vector<UnitGroup>& groups = dependencies.groups();
  for (std::size_t i = 0; i < groups.size(); ++i)
    for (const GroupMember& member : groups[i].members) {
      std::vector<Share>& of_tensor = shares[member.tensor];
      if (of_tensor.empty() || of_tensor.back().group != i) of_tensor.push_back({i, {}});
      of_tensor.back().gone[member.axis] += static_cast<std::int64_t>(member.indices.size());
    }
  return shares;
}

Dims left_of(const Shares& shares, const TensorRef& tensor, std::size_t group, Dims dims) {
  const auto found = shares.find(tensor);
  if (found == shares.end()) return dims;
  const auto share = std::ranges::find(found->second, group, &Share::group);
  if (share == found->second.end()) return dims;
  for (const auto& [axis, gone] : share->gone)
    if (axis < dims.size()) dims[axis] = std::max<std::int64_t>(dims[axis] - gone, 0);
  return dims;
}

// The groups that a node has to do with.
std::vector<std::size_t> groups_at(const Node& node, const Shares& shares) {
  std::vector<std::size_t> groups;
  const auto add = [&](const TensorRef& tensor) {
    if (const auto found = shares.find(tensor); found != shares.end())
      for (const Share& share : found->second) groups.push_back(share.group);
  };
  for (std::size_t i = 0; i < node.input_count(); ++i) add(input_ref(node, i));
  for (std::size_t i = 0; i < node.output_count(); ++i) add(output_ref(node, i));
  std::ranges::sort(groups);
  const auto repeated = std::ranges::unique(groups);
  groups.erase(repeated.begin(), repeated.end());
  return groups;
}

// Adds to rows[first + group] what each group takes part in.
void add_costs(const Graph& graph, const Shares& shares, std::size_t first, GroupsResult& result) {
  for (const auto& [tensor, of_tensor] : shares) {
    if (!tensor.is_constant()) continue;
    const auto type = graph.constant_type(tensor.value);
    for (const Share& share : of_tensor)
      if (type)
        result.groups[first + share.group].parameters +=
            element_count(type->second).value_or(0) -
            element_count(left_of(shares, tensor, share.group, type->second)).value_or(0);
  }
  for (const Node& node : graph.nodes()) {
    const auto all = node_macs(node, nullptr);
    if (!all) continue;
    if (!*all) {  // a shape is not known
      for (const std::size_t group : groups_at(node, shares)) result.groups[first + group].macs_known = false;
      continue;
    }
    result.macs += **all;
    for (const std::size_t group : groups_at(node, shares)) {
      const auto rest = node_macs(node, nullptr, [&](const Node& at, bool output, std::size_t slot, Dims dims) {
        return left_of(shares, output ? output_ref(at, slot) : input_ref(at, slot), group, std::move(dims));
      });
      if (rest && *rest) result.groups[first + group].macs += **all - std::min(**rest, **all);
    }
  }
}

std::string scope_text(const Graph& graph) { return graph.kind() == Graph::Kind::main ? "" : graph.owner().label(); }

void add_scope(const Graph& graph, const DependencyGraph& dependencies, GroupsResult& result) {
  const std::size_t first = result.groups.size();
  const std::string scope = scope_text(graph);
  for (const UnitGroup& group : dependencies.groups())
    result.groups.push_back({.name = group.name,
                             .kind = unit_kind_name(group.kind),
                             .scope = scope,
                             .approximate = group.approximate,
                             .units = group.units,
                             .width = group.width});
  for (const BlockedAxis& axis : dependencies.blocked())
    result.blocked.push_back({.node = axis.node.label(),
                              .op = std::string(axis.node.op()),
                              .scope = scope,
                              .weight = axis.tensor.value,
                              .axis = axis.axis,
                              .size = axis.size,
                              .blocked = axis.blocked,
                              .reason = axis.reason,
                              .path = axis.path});
  add_costs(graph, shares_of(dependencies), first, result);
}

Result<Node> find_node(const Model& model, const std::string& name) {
  std::vector<std::string> names;
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes()) {
      if (node.label() == name) return node;
      names.push_back(node.label());
    }
  return fail(Code::usage, "--explain: no node '{}'{}", escape_control(name), did_you_mean(name, names));
}

}  // namespace

Result<GroupsResult> find_groups(const GroupsRequest& request) {
  OP_LET(LoadedModel loaded, load_with_stats(request.model, 0));
  EngineRunner runner;
  PassContext context;
  context.runner = &runner;
  OP_TRY(request.pipeline.run(loaded.model, context, {}, nullptr));
  loaded.model.index();
  GroupsResult result{.model = request.model, .groups = {}, .blocked = {}, .node = request.explain, .explanation = {}};
  result.parameters = loaded.stats.parameters;
  Node wanted;
  if (!request.explain.empty()) {
    OP_LET(wanted, find_node(loaded.model, request.explain));
  }
  for (const Graph* graph : loaded.model.graphs()) {
    if (graph->kind() == Graph::Kind::function) continue;
    OP_LET(const DependencyGraph dependencies,
           DependencyGraph::analyze(*graph, {.allow_normalized = request.allow_normalized}));
    add_scope(*graph, dependencies, result);
    if (wanted && &wanted.graph() == graph) result.explanation = dependencies.explain(wanted);
  }
  return result;
}

namespace {

using Cells = std::vector<std::string>;

std::string percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? "-" : fixed_text(100.0 * static_cast<double>(part) / static_cast<double>(whole), 1) + " %";
}

std::string in_scope(const std::string& scope, const std::string& name) {
  return scope.empty() ? name : scope + " / " + name;
}

std::string explanation_text(const GroupsResult& result) {
  std::string out = one_line(result.node) + "\n";
  for (const std::string& line : result.explanation) {
    const std::size_t indent = line.find_first_not_of(' ');
    out += std::string(2 + (indent == std::string::npos ? 0 : indent), ' ') + one_line(trim(line)) + "\n";
  }
  return out;
}

}  // namespace

std::string groups_text(const GroupsResult& result) {
  if (!result.node.empty()) return explanation_text(result);
  std::size_t units = 0;
  for (const GroupRow& row : result.groups) units += row.units;
  std::string out = fmt::format("groups {}\n{} groups with {} units\n", one_line(result.model), result.groups.size(),
                                count_text(units));
  if (!result.groups.empty()) {
    std::vector<Cells> rows = {{"group", "kind", "units", "width", "parameters", "MACs", "note"}};
    for (const GroupRow& row : result.groups)
      rows.push_back({in_scope(row.scope, row.name), row.kind, count_text(row.units), count_text(row.width),
                      human_count(row.parameters), row.macs_known ? percent(row.macs, result.macs) : "-",
                      row.approximate.empty() ? "" : "approximate: " + row.approximate});
    out += "\n" + column_table(rows, {2, 3, 4, 5});
  }
  if (result.blocked.empty()) return out;
  out += "\nWhat stays, and why (--explain NODE shows the way):\n";
  std::vector<Cells> rows = {{"node", "weight", "axis", "stays", "of", "because"}};
  for (const BlockedRow& row : result.blocked)
    rows.push_back({in_scope(row.scope, row.node), row.weight, std::to_string(row.axis), count_text(row.blocked),
                    count_text(row.size), row.reason});
  return out + column_table(rows, {2, 3, 4});
}

std::string groups_json(const GroupsResult& result) {
  using nlohmann::ordered_json;
  ordered_json out = {{"command", "groups"}, {"model", result.model},           {"parameters", result.parameters},
                      {"macs", result.macs}, {"groups", ordered_json::array()}, {"blocked", ordered_json::array()}};
  for (const GroupRow& row : result.groups)
    out["groups"].push_back({{"name", row.name},
                             {"scope", row.scope},
                             {"kind", row.kind},
                             {"units", row.units},
                             {"width", row.width},
                             {"parameters", row.parameters},
                             {"macs", row.macs_known ? ordered_json(row.macs) : ordered_json(nullptr)},
                             {"approximate", row.approximate}});
  for (const BlockedRow& row : result.blocked)
    out["blocked"].push_back({{"node", row.node},
                              {"op", row.op},
                              {"scope", row.scope},
                              {"weight", row.weight},
                              {"axis", row.axis},
                              {"size", row.size},
                              {"blocked", row.blocked},
                              {"reason", row.reason},
                              {"path", row.path}});
  if (!result.node.empty()) out["explanation"] = {{"node", result.node}, {"lines", result.explanation}};
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace onnxpress
