#include <cmath>
#include <nlohmann/json.hpp>

#include "report/cells.h"
#include "report/report.h"

namespace onnxpress {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json number(const std::optional<double>& value) { return value ? number(*value) : Json(nullptr); }
Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

template <class T, class Make>
Json array_of(const std::vector<T>& items, Make make) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(make(item));
  return list;
}

template <class T, class Make>
Json or_null(const std::optional<T>& item, Make make) {
  return item ? make(*item) : Json(nullptr);
}

template <class T>
Json object_of(const std::map<std::string, T>& items) {
  Json object = Json::object();
  for (const auto& [key, value] : items) object[key] = value;
  return object;
}

Json file_json(const FileReport& file) {
  return {{"path", file.path},
          {"bytes", file.bytes()},
          {"model_bytes", file.model_bytes},
          {"external_bytes", file.data_bytes},
          {"hash", text_or_null(file.hash)}};
}

Json value_json(const ValueInfo& value) { return {{"name", value.name}, {"type", value_type_text(value.type)}}; }

Json layer_json(const LayerStats& layer) {
  return {{"node", layer.node},
          {"op", layer.op},
          {"parameters", layer.parameters},
          {"nonzeros", layer.nonzeros},
          {"bytes", layer.bytes},
          {"macs", or_null(layer.macs, [](std::uint64_t macs) { return Json(macs); })}};
}

Json stats_json(const ModelStats& stats) {
  Json weights = Json::object();
  for (const auto& [dtype, each] : stats.weights)
    weights[dtype] = {{"tensors", each.tensors}, {"elements", each.elements}, {"bytes", each.bytes}};
  Json opsets = Json::object();
  for (const auto& [domain, version] : stats.opsets) opsets[domain.empty() ? "ai.onnx" : domain] = version;
  return {{"parameters", stats.parameters},
          {"nonzeros", stats.nonzeros},
          {"weight_bytes", stats.weight_bytes},
          {"weights", std::move(weights)},
          {"macs", stats.macs},
          {"free_dims", stats.free_dims},
          {"macs_unknown", object_of(stats.macs_unknown)},
          {"nodes", stats.nodes},
          {"ops", object_of(stats.ops)},
          {"opsets", std::move(opsets)},
          {"ir_version", stats.ir_version},
          {"inputs", array_of(stats.inputs, value_json)},
          {"outputs", array_of(stats.outputs, value_json)},
          {"layers", array_of(stats.layers, layer_json)},
          {"notes", stats.notes}};
}

Json pass_json(const PassRecord& record) {
  return {{"pass", record.pass},
          {"changed", record.changed},
          {"nodes_done", record.nodes_done},
          {"nodes_skipped", record.nodes_skipped},
          {"weight_bytes_before", record.bytes_before},
          {"weight_bytes_after", record.bytes_after},
          {"seconds", number(record.seconds)},
          {"peak_memory", record.peak_memory}};
}

Json closeness_json(const Closeness& closeness) {
  return {{"equal", closeness.equal()},
          {"sqnr_db", number(closeness.sqnr_db())},
          {"cosine", number(closeness.cosine())},
          {"max_abs_error", number(closeness.max_abs_error)},
          {"elements", closeness.elements},
          {"unequal", closeness.unequal},
          {"broken", closeness.broken}};
}

Json output_json(const OutputCloseness& output) {
  Json object = {{"output", output.output}};
  object.update(closeness_json(output.closeness));
  return object;
}

Json score_pair_json(const ScorePair& score) {
  return {{"metric", metric_name(score.metric)}, {"output", score.output},     {"before", number(score.before)},
          {"after", number(score.after)},        {"drop", number(score.drop)}, {"count", score.count}};
}

Json score_json(const Score& score) {
  return {{"metric", metric_name(score.metric)},
          {"output", score.output},
          {"value", number(score.value)},
          {"count", score.count}};
}

Json comparison_json(const Comparison& comparison) {
  return {{"metric", metric_name(comparison.metric)},
          {"samples", comparison.samples},
          {"scores", array_of(comparison.scores, score_pair_json)},
          {"outputs", array_of(comparison.outputs, output_json)},
          {"expected_before", array_of(comparison.expected_before, output_json)},
          {"expected_after", array_of(comparison.expected_after, output_json)},
          {"warnings", comparison.warnings}};
}

Json evaluation_json(const Evaluation& evaluation) {
  return {{"metric", metric_name(evaluation.metric)},
          {"samples", evaluation.samples},
          {"scores", array_of(evaluation.scores, score_json)},
          {"expected", array_of(evaluation.expected, output_json)},
          {"warnings", evaluation.warnings}};
}

Json latency_json(const LatencyStats& stats) {
  return {{"p50_seconds", number(stats.p50)},
          {"p90_seconds", number(stats.p90)},
          {"mean_seconds", number(stats.mean)},
          {"min_seconds", number(stats.min)},
          {"runs", stats.runs}};
}

Json latencies_json(const Latency& latency) {
  return {{"before", latency_json(latency.before)},
          {"after", latency_json(latency.after)},
          {"threads", latency.threads},
          {"speedup", number(latency.speedup())}};
}

Json layer_error_json(const LayerError& layer) {
  Json object = {{"value", layer.value}, {"compared_with", layer.tap}, {"node", layer.node}, {"op", layer.op}};
  object.update(closeness_json(layer.closeness));
  return object;
}

// Entries of the journal about nodes that were changed, or those left alone.
Json journal_json(const std::vector<JournalEntry>& journal, bool done) {
  Json list = Json::array();
  for (const JournalEntry& entry : journal)
    if (entry.done == done && !entry.node.empty())
      list.push_back(
          {{"pass", entry.pass}, {"node", entry.node}, {"op", entry.op}, {done ? "what" : "reason", entry.text}});
  return list;
}

Json notes_json(const std::vector<JournalEntry>& journal) {
  Json list = Json::array();
  for (const JournalEntry& entry : journal)
    if (entry.node.empty()) list.push_back({{"pass", entry.pass}, {"text", entry.text}});
  return list;
}

Json gate_json(const Gate& gate) {
  return {{"name", gate.name}, {"limit", number(gate.limit)}, {"value", number(gate.value)}, {"pass", gate.pass}};
}

Json data_json(const DataReport& data) {
  return {{"role", data.role},       {"description", data.description},
          {"hash", data.digest},     {"preprocessing", text_or_null(data.formula)},
          {"samples", data.samples}, {"synthetic", data.synthetic}};
}

Json provenance_json(const Provenance& from) {
  return {{"tool", "onnxpress"},
          {"tool_version", from.tool_version},
          {"runtime", text_or_null(from.runtime_version)},
          {"pipeline", from.pipeline},
          {"seed", from.seed},
          {"data", array_of(from.data, data_json)}};
}

}  // namespace

std::string report_json(const Report& report) {
  const Json json = {{"schema_version", kReportSchemaVersion},
                     {"command", report.command},
                     {"dry_run", report.dry_run},
                     {"input", file_json(report.input)},
                     {"output", or_null(report.output, file_json)},
                     {"before", stats_json(report.before)},
                     {"after", or_null(report.after, stats_json)},
                     {"passes", array_of(report.passes, pass_json)},
                     {"comparison", or_null(report.comparison, comparison_json)},
                     {"evaluation", or_null(report.evaluation, evaluation_json)},
                     {"latency", or_null(report.latency, latency_json)},
                     {"latencies", or_null(report.latencies, latencies_json)},
                     {"layer_errors", report.layers ? array_of(*report.layers, layer_error_json) : Json(nullptr)},
                     {"changed", journal_json(report.journal, true)},
                     {"skipped", journal_json(report.journal, false)},
                     {"notes", notes_json(report.journal)},
                     {"warnings", report.warnings},
                     {"gates", array_of(report.gates, gate_json)},
                     {"provenance", provenance_json(report.provenance)}};
  // Names are bytes from a file: what is no UTF-8 is replaced, not thrown at.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace onnxpress
