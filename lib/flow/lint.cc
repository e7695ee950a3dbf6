#include "flow/lint.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "engine/optimized_graph.h"
#include "flow/inputs.h"
#include "flow/text_table.h"
#include "ir/macs.h"
#include "quant/saturation.h"
#include "report/cells.h"

namespace onnxpress {
namespace {

constexpr double kWantedShare = 0.99;  // of nodes predicted right

Result<Target> target_from_name(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [each, target] : target_choices()) {
    if (each == name) return resolve(target);
    names.push_back(each);
  }
  return fail(Code::usage, "--target: unknown target '{}'{}", name, did_you_mean(name, names));
}

std::string scope_text(const Graph& graph) {
  if (graph.kind() == Graph::Kind::main) return "";
  return graph.kind() == Graph::Kind::function ? "function " + graph.name() : graph.owner().label();
}

const char* fate_name(Fate fate) {
  switch (fate) {
    case Fate::integer:
      return "integer";
    case Fate::absorbed:
      return "absorbed";
    case Fate::boundary:
      return "conversion";
    case Fate::floating:
      break;
  }
  return "float";
}

// What a node computes in: integers multiply under the name of a kernel, movement on codes is only named.
std::string becomes_text(const NodeFate& fate) {
  if (fate.fate == Fate::absorbed) return "-";
  if (fate.fate == Fate::boundary) return "stays";
  if (fate.fate == Fate::floating) return "float";
  const bool moves = fate.kernel == fate.node.op() && !is_integer_kernel(fate.node.op(), fate.node.domain());
  return moves ? fate.kernel + " on codes" : fate.kernel;
}

Result<LintRow> row_of(const NodeFate& fate, Target target) {
  LintRow row{.node = fate.node.label(),
              .op = std::string(fate.node.op()),
              .scope = scope_text(fate.node.graph()),
              .fate = fate_name(fate.fate),
              .becomes = becomes_text(fate),
              .note = fate.why,
              .macs = {}};
  if (const auto macs = node_macs(fate.node, nullptr)) {
    row.compute = true;
    row.macs = *macs;
  }
  if (fate.fate == Fate::integer && saturates(target)) {
    OP_LET(const auto found, saturation_of(fate.node));
    if (found && found->saturating > 0) {
      row.saturating = found->saturating;
      row.channels = found->channels;
      row.note = fmt::format("{} of {} channels can saturate", found->saturating, found->channels);
    }
  }
  return row;
}

void count(LintResult& result, const LintRow& row) {
  result.conversions += row.fate == "conversion";
  if (!row.compute || row.fate == "absorbed") return;
  ++result.compute;
  result.integer += row.fate == "integer";
  result.blocked += row.fate == "float" && !row.note.empty();
  result.macs += row.macs.value_or(0);
  if (row.fate == "integer") result.integer_macs += row.macs.value_or(0);
}

std::string percent(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? "-" : fixed_text(100.0 * static_cast<double>(part) / static_cast<double>(whole), 1) + " %";
}

void warn(LintResult& result) {
  std::size_t saturating = 0;
  for (const LintRow& row : result.rows) saturating += row.saturating > 0;
  if (saturating > 0)
    result.warnings.push_back(fmt::format("8-bit products of {} nodes can saturate on {}: quantize with target={}",
                                          saturating, result.target, result.target));
}

}  // namespace

Result<LintResult> lint(const LintRequest& request) {
  OP_LET(const Target target, target_from_name(request.target));
  OP_LET(const LoadedModel loaded, load_with_stats(request.model, 0));
  const bool arm = target == Target::ort_arm64;
  const std::vector<NodeFate> fates = predict_fusion(loaded.model, {.int8_activations = arm});
  LintResult result{.model = request.model, .target = target_name(target), .rows = {}, .warnings = {}, .check = {}};
  for (const NodeFate& fate : fates) {
    OP_LET(LintRow row, row_of(fate, target));
    count(result, row);
    result.rows.push_back(std::move(row));
  }
  warn(result);
  if (request.verify) {
    OP_LET(const auto nodes, optimized_nodes(loaded.model, {.int8_activations = arm}));
    result.check = check_fusion(fates, nodes);
    result.passed = result.check->share() >= kWantedShare;
  }
  if (request.fail_on_blocker && (result.blocked > 0 || !result.warnings.empty())) result.passed = false;
  return result;
}

namespace {

using Cells = std::vector<std::string>;

std::string check_text(const FusionCheck& check) {
  std::string out = fmt::format(
      "\nChecked against the runtime's graph: {} of {} nodes right ({}); of those with "
      "quantized values {} of {} ({})\n",
      check.right, check.nodes, percent(check.right, check.nodes), check.quantized_right, check.quantized,
      percent(check.quantized_right, check.quantized));
  if (check.misses.empty()) return out;
  std::vector<Cells> rows = {{"node", "op", "predicted", "the runtime"}};
  for (const FusionMiss& miss : check.misses) rows.push_back({miss.node, miss.op, miss.predicted, miss.actual});
  return out + column_table(rows, {});
}

}  // namespace

std::string lint_text(const LintResult& result, bool all) {
  std::string out = fmt::format("lint {} for {}\n", one_line(result.model), result.target);
  out += fmt::format("{} of {} compute nodes integer, {} blocked · {} of MACs integer · {} conversions\n\n",
                     result.integer, result.compute, result.blocked, percent(result.integer_macs, result.macs),
                     result.conversions);
  std::vector<Cells> rows = {{"node", "op", "becomes", "MACs", "why"}};
  for (const LintRow& row : result.rows) {
    const bool told = row.compute || (row.fate == "float" && !row.note.empty()) || row.saturating > 0;
    if (!all && (!told || row.fate == "absorbed")) continue;
    const std::string macs = row.macs ? human_count(*row.macs) : "";
    rows.push_back({row.scope.empty() ? row.node : row.scope + " / " + row.node, row.op, row.becomes, macs, row.note});
  }
  if (rows.size() > 1) out += column_table(rows, {3});
  for (const std::string& warning : result.warnings) out += "warning: " + warning + "\n";
  return result.check ? out + check_text(*result.check) : out;
}

std::string lint_json(const LintResult& result) {
  using nlohmann::ordered_json;
  ordered_json out = {{"command", "lint"},
                      {"model", result.model},
                      {"target", result.target},
                      {"passed", result.passed},
                      {"compute_nodes", result.compute},
                      {"integer_nodes", result.integer},
                      {"blocked_nodes", result.blocked},
                      {"conversions", result.conversions},
                      {"macs", result.macs},
                      {"integer_macs", result.integer_macs},
                      {"warnings", result.warnings},
                      {"nodes", ordered_json::array()}};
  for (const LintRow& row : result.rows) {
    ordered_json node = {{"node", row.node},       {"op", row.op},     {"scope", row.scope},     {"fate", row.fate},
                         {"becomes", row.becomes}, {"note", row.note}, {"compute", row.compute}, {"macs", nullptr}};
    if (row.macs) node["macs"] = *row.macs;
    if (row.saturating > 0) node["saturating_channels"] = row.saturating;
    out["nodes"].push_back(std::move(node));
  }
  if (result.check) {
    ordered_json misses = ordered_json::array();
    for (const FusionMiss& miss : result.check->misses)
      misses.push_back({{"node", miss.node}, {"op", miss.op}, {"predicted", miss.predicted}, {"runtime", miss.actual}});
    out["check"] = {{"nodes", result.check->nodes},
                    {"right", result.check->right},
                    {"quantized_nodes", result.check->quantized},
                    {"quantized_right", result.check->quantized_right},
                    {"misses", std::move(misses)}};
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace onnxpress
