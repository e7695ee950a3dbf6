#include "flow/sensitivity.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "flow/inputs.h"
#include "flow/text_table.h"
#include "flow/trial.h"
#include "pass/lexer.h"
#include "report/cells.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kLargestCache = std::uint64_t{256} << 20;
constexpr std::chrono::seconds kSaveEvery{2};

// The table of an earlier run, if the file is there.
Result<std::optional<SensitivityTable>> read_cache(const SensitivityRequest& request, const SensitivityKey& key) {
  std::error_code error;
  if (request.cache.empty() || request.fresh || !std::filesystem::exists(request.cache, error))
    return std::optional<SensitivityTable>();
  OP_LET(const std::string text, read_text_file(request.cache, kLargestCache));
  auto table = parse_sensitivity(text);
  if (!table) return rethrow(std::move(table).error(), request.cache);
  std::string other;
  if (table->key.model != key.model)
    other = "another model (or other passes before)";
  else if (table->key.data != key.data)
    other = "other samples";
  else if (table->key.settings != key.settings)
    other = "other settings (" + escape_control(table->key.settings) + ")";
  if (!other.empty())
    return fail(Code::bad_input, "{}: measured for {}; --force overwrites it, or name another file", request.cache,
                other);
  log::info("  continuing  {}", request.cache);
  return std::optional(std::move(*table));
}

class CacheFile {
 public:
  explicit CacheFile(std::string path) : path_(std::move(path)), written_(std::chrono::steady_clock::now()) {}

  Status save(const SensitivityTable& table, bool last) {
    const auto now = std::chrono::steady_clock::now();
    if (path_.empty() || (!last && now - written_ < kSaveEvery)) return {};
    written_ = now;
    return write_text_file(path_, sensitivity_json(table));
  }

 private:
  std::string path_;
  std::chrono::steady_clock::time_point written_;
};

using Rows = std::vector<std::vector<std::string>>;

std::string cell(const std::optional<double>& value, int decimals) {
  return value ? fixed_text(*value, decimals) : "-";
}

void add_cells(std::vector<std::string>& row, const Effect* effect, bool classes) {
  row.push_back(effect == nullptr ? "-" : decibel_text(effect->error.sqnr_db()));
  if (!classes) return;
  row.push_back(effect == nullptr || !effect->error.kl ? "-" : short_text(*effect->error.kl));
  row.push_back(effect == nullptr ? "-" : cell(effect->error.agreement, 2));
}

// The worst effect a node has by itself; nodes that cannot be quantized alone come last.
double worst_noise(const NodeSensitivity& row) {
  double worst = -1;
  for (const auto& [format, effect] : row.alone) worst = std::max(worst, effect.error.noise);
  return worst;
}

Rows node_rows(const SensitivityTable& table, bool classes) {
  std::vector<std::string> head = {"node", "op"};
  const auto add_head = [&](const std::string& what) {
    head.push_back(what + " dB");
    if (classes) head.insert(head.end(), {"KL", "agree %"});
  };
  for (const auto& [format, effect] : table.all) add_head(std::string(node_format_name(format)) + " alone");
  head.push_back("bytes");
  add_head("all but it");
  Rows rows = {head};
  std::vector<const NodeSensitivity*> order;
  for (const NodeSensitivity& row : table.nodes) order.push_back(&row);
  std::ranges::stable_sort(order, std::greater<>(), [](const NodeSensitivity* row) { return worst_noise(*row); });
  for (const NodeSensitivity* each : order) {
    std::string name = cut_to_width(one_line(each->node), 60);
    if (!each->with.empty()) name += fmt::format(" (+{})", each->with.size());
    std::vector<std::string> row = {name, one_line(each->op)};
    std::string bytes = "-";
    for (const auto& [format, unused] : table.all) {
      const auto found = each->alone.find(format);
      add_cells(row, found == each->alone.end() ? nullptr : &found->second, classes);
      if (found != each->alone.end()) bytes = fmt::format("{:+}", found->second.bytes);
    }
    row.push_back(bytes);
    add_cells(row, each->rest ? &*each->rest : nullptr, classes);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string skip_line(const SkipSet& set, const std::string& pipeline) {
  std::vector<std::string> patterns;
  for (const std::string& node : set.nodes) patterns.push_back(quote_if_needed(pattern_of(node)));
  return (pipeline.empty() ? "" : pipeline + ",") + "quant-static{skip=[" + join(patterns, ",") + "]}";
}

std::string effect_text(const Effect& effect) {
  std::string text = decibel_text(effect.error.sqnr_db()) + " dB";
  if (effect.error.agreement) text += ", agreement " + fixed_text(*effect.error.agreement, 2) + " %";
  return text;
}

}  // namespace

Result<SensitivityTable> sensitivity(const SensitivityRequest& request) {
  if (!request.cache.empty()) OP_TRY(check_output_path(request.cache, true));
  OP_LET(const auto trial, Trial::open(request, "sensitivity"));
  SensitivityRun run;
  OP_LET(run.key.model, trial->model.fingerprint());
  run.key.data = trial->digest();
  run.key.settings = settings_text(request.quantization);
  run.samples = trial->samples();
  OP_LET(const auto known, read_cache(request, run.key));
  if (known) run.known = &*known;
  CacheFile file(request.cache);
  run.save = [&](const SensitivityTable& table, bool last) { return file.save(table, last); };
  Meter meter(trial->model, trial->context, request.quantization, &trial->compared());
  return measure_sensitivity(trial->model, meter, run);
}

std::string sensitivity_text(const SensitivityTable& table, const std::string& pipeline, bool markdown) {
  if (table.nodes.empty()) return "no node of the model has an integer form\n";
  const bool classes =
      std::ranges::any_of(table.all, [](const auto& entry) { return entry.second.error.kl.has_value(); });
  std::string out =
      fmt::format("sensitivity on {}: {} nodes, worst first\n\n", one_line(table.samples), table.nodes.size());
  out += text_table(node_rows(table, classes), 2, markdown) + "\n";
  for (const auto& [format, effect] : table.all)
    out += fmt::format("all {}: {}, weights {} -> {}\n", node_format_name(format), effect_text(effect),
                       human_bytes(table.float_bytes),
                       human_bytes(table.float_bytes + static_cast<std::uint64_t>(effect.bytes)));
  out += "\nLeft float, what buys most:\n";
  for (const SkipSet& set : table.skips) {
    out += fmt::format("  {}: {}\n", effect_text(set.effect),
                       set.nodes.size() == 1 ? "one node" : fmt::format("{} nodes", set.nodes.size()));
    out += (markdown ? "    `" : "    ") + skip_line(set, pipeline) + (markdown ? "`\n" : "\n");
  }
  return out;
}

}  // namespace onnxpress
