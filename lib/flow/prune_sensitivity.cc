#include "flow/prune_sensitivity.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "flow/text_table.h"
#include "pass/lexer.h"
#include "quant/recipe.h"
#include "report/cells.h"

namespace onnxpress {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

constexpr std::size_t kSkips = 3;  // parts that a line to paste leaves whole

std::string percent_text(double share) { return fixed_text(100 * share, 0) + " %"; }

double worst(const PruneSensitivity& part) {
  double most = -1;
  for (const PruneEffect& effect : part.effects) most = std::max(most, effect.divergence);
  return most;
}

std::vector<const PruneSensitivity*> by_worst(const PruneSensitivityTable& table) {
  std::vector<const PruneSensitivity*> order;
  for (const PruneSensitivity& part : table.parts) order.push_back(&part);
  std::ranges::stable_sort(order, std::greater<>(), [](const PruneSensitivity* part) { return worst(*part); });
  return order;
}

Rows part_rows(const PruneSensitivityTable& table) {
  const bool units = table.method == PruneMethod::channels;
  std::vector<std::string> head = {units ? "group" : "node", "kind", units ? "units" : "weights"};
  for (const double ratio : table.ratios) head.push_back("-" + percent_text(ratio));
  if (units) head.insert(head.end(), {"MACs", "parameters"});
  Rows rows = {head};
  for (const PruneSensitivity* part : by_worst(table)) {
    std::vector<std::string> row = {cut_to_width(one_line(part->name), 60), one_line(part->kind),
                                    count_text(part->size)};
    for (const double ratio : table.ratios) {
      const auto effect = std::ranges::find(part->effects, ratio, &PruneEffect::ratio);
      row.push_back(effect == part->effects.end() ? "-" : short_text(effect->divergence));
    }
    if (units) {
      const bool any = !part->effects.empty();
      row.push_back(any ? ratio_text(part->effects.back().macs, table.macs) : "-");
      row.push_back(any ? ratio_text(part->effects.back().parameters, table.parameters) : "-");
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

double median(const std::vector<double>& ratios) { return ratios[(ratios.size() - 1) / 2]; }

std::string pattern_text(const PruneSensitivity& part) { return quote_if_needed(pattern_of(part.name)); }

// prune-magnitude takes a share for every layer; prune-channels can leave the worst groups whole.
std::string pass_text(const PruneSensitivityTable& table) {
  const double share = median(table.ratios);
  if (table.method == PruneMethod::channels) {
    std::vector<std::string> skips;
    for (const PruneSensitivity* part : by_worst(table))
      if (skips.size() < kSkips && worst(*part) >= 0) skips.push_back(pattern_text(*part));
    return fmt::format("prune-channels{{ratio={} skip=[{}]}}", number_text(share), join(skips, ","));
  }
  const std::vector<double> shares = least_divergence_shares(table, share);
  std::vector<std::string> layers;
  for (std::size_t i = 0; i < shares.size(); ++i)
    layers.push_back(quote_if_needed(fmt::format("{}={}", pattern_of(table.parts[i].name), number_text(shares[i]))));
  return fmt::format("prune-magnitude{{sparsity={} layers=[{}]}}", number_text(share), join(layers, ","));
}

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

}  // namespace

Result<PruneSensitivityResult> prune_sensitivity(const PruneSensitivityRequest& request) {
  OP_LET(const auto trial, Trial::open(request, "sensitivity"));
  PruneSensitivityResult result;
  OP_LET(result.model, trial->model.fingerprint());
  result.data = trial->digest();
  result.samples = trial->samples();
  OP_LET(result.table,
         measure_prune_sensitivity(trial->model, trial->context, request.method, request.ratios, trial->compared()));
  return result;
}

std::string prune_sensitivity_text(const PruneSensitivityResult& result, const std::string& pipeline, bool markdown) {
  const PruneSensitivityTable& table = result.table;
  const bool units = table.method == PruneMethod::channels;
  if (table.parts.empty()) return fmt::format("{} finds nothing to prune\n", prune_method_name(table.method));
  std::string out = fmt::format(
      "sensitivity to {} on {}: {} {}, worst first\ndivergence of the outputs with a share of it alone pruned, "
      "not repaired{}\n\n",
      prune_method_name(table.method), one_line(result.samples), table.parts.size(), units ? "groups" : "weights",
      units ? "; MACs and parameters left at the largest share" : "");
  out += text_table(part_rows(table), 2, markdown);
  for (const PruneSensitivity& part : table.parts)
    if (!part.refusal.empty()) out += fmt::format("{}: {}\n", one_line(part.name), one_line(part.refusal));
  out += units ? "\nThe worst groups left whole:\n"
               : fmt::format("\n{} of all weights, where it costs least:\n", percent_text(median(table.ratios)));
  const std::string line = (pipeline.empty() ? "" : pipeline + ",") + pass_text(table);
  return out + (markdown ? "  `" : "  ") + one_line(line) + (markdown ? "`\n" : "\n");
}

std::string prune_sensitivity_json(const PruneSensitivityResult& result) {
  const PruneSensitivityTable& table = result.table;
  Json json = {{"kind", "onnxpress-prune-sensitivity"},
               {"version", 1},
               {"model", result.model},
               {"data", result.data},
               {"samples", result.samples},
               {"method", prune_method_name(table.method)},
               {"macs", table.macs},
               {"parameters", table.parameters},
               {"ratios", table.ratios},
               {"parts", Json::array()}};
  const std::vector<double> shares = least_divergence_shares(table, median(table.ratios));
  for (std::size_t i = 0; i < table.parts.size(); ++i) {
    const PruneSensitivity& part = table.parts[i];
    Json effects = Json::array();
    for (const PruneEffect& effect : part.effects)
      effects.push_back({{"ratio", effect.ratio},
                         {"left", effect.left},
                         {"divergence", finite(effect.divergence)},
                         {"macs", effect.macs},
                         {"parameters", effect.parameters}});
    json["parts"].push_back({{"name", part.name},
                             {"kind", part.kind},
                             {"size", part.size},
                             {"effects", std::move(effects)},
                             {"refusal", part.refusal},
                             {"suggested", shares[i]}});
  }
  // Names from a file need not be UTF-8, JSON has to be.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace onnxpress
