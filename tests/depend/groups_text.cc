#include "groups_text.h"

#include <fmt/format.h>

#include "base/text.h"

namespace onnxpress::testing {
namespace {

Lines lines_of(const DependencyGraph& graph, bool values) {
  Lines lines;
  for (const UnitGroup& group : graph.groups()) {
    std::string line = fmt::format("{}: {} {} |", group.name, group.units, unit_kind_name(group.kind));
    for (const GroupMember& member : group.members) {
      CHECK(member.indices.size() == group.units * member.per_unit);
      CHECK(member.tensor.is_constant() == (member.role != AxisRole::value));
      if (member.role == AxisRole::value && !values) continue;
      line += fmt::format(" {}.{}", member.tensor.value, member.axis);
      if (member.per_unit != 1) line += fmt::format("*{}", member.per_unit);
    }
    lines.push_back(line + (group.approximate.empty() ? "" : " ~"));
  }
  return lines;
}

// "float[2,3] w" => "float[2,3] w = {0,0,0,0,0,0}"
std::string filled(std::string_view declaration) {
  if (declaration.contains('=')) return std::string(declaration);
  const std::size_t open = declaration.find('['), close = declaration.find(']');
  std::size_t count = 1;
  if (open != std::string_view::npos)
    for (const std::string& dim : split(declaration.substr(open + 1, close - open - 1), ',')) count *= std::stoul(dim);
  std::string zeros = "0";
  for (std::size_t i = 1; i < count; ++i) zeros += ",0";
  return fmt::format("{} = {{{}}}", declaration, zeros);
}

}  // namespace

std::string with_zeros(std::string_view text) {
  const std::size_t outputs = text.find("=>"), body = text.find('{', outputs);
  const std::size_t open = text.find('<', outputs);
  if (open == std::string_view::npos) return std::string(text);
  std::size_t close = open;
  std::string result(text.substr(0, open + 1));
  int depth = 0;
  for (std::size_t i = open + 1, from = i;; ++i) {
    if (text[i] == '[' || text[i] == '{') ++depth;
    if (text[i] == ']' || text[i] == '}') --depth;
    if (depth != 0 || (text[i] != ',' && text[i] != '>')) continue;
    result += filled(text.substr(from, i - from)) + text[i];
    from = i + 1;
    close = i;
    if (text[i] == '>') break;
  }
  return body < open ? std::string(text) : result + std::string(text.substr(close + 1));
}

Analyzed analyze(std::string_view text, const DependencyOptions& options) {
  Model model = parse(with_zeros(text));
  auto graph = DependencyGraph::analyze(model.main(), options);
  INFO((graph ? "" : graph.error().text()));
  REQUIRE(graph);
  return {std::move(model), std::move(*graph)};
}

Lines groups_of(const DependencyGraph& graph) { return lines_of(graph, false); }
Lines groups_of(std::string_view text, const DependencyOptions& options) {
  return lines_of(analyze(text, options).graph, false);
}
Lines whole_groups_of(std::string_view text, const DependencyOptions& options) {
  return lines_of(analyze(text, options).graph, true);
}

Lines blocked_of(std::string_view text, const DependencyOptions& options) {
  Lines lines;
  const Analyzed analyzed = analyze(text, options);
  for (const BlockedAxis& axis : analyzed.graph.blocked()) {
    CHECK(axis.path.size() >= 2);
    CHECK(axis.path.back() == axis.reason);
    lines.push_back(fmt::format("{}.{} {}/{} {}", axis.tensor.value, axis.axis, axis.blocked, axis.size, axis.reason));
  }
  return lines;
}

}  // namespace onnxpress::testing
