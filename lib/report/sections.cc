#include "report/sections.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/text.h"
#include "report/cells.h"

namespace onnxpress {
namespace {

constexpr std::size_t kNamesShown = 4;  // of the nodes behind one reason

std::string metric_title(Metric metric) {
  switch (metric) {
    case Metric::top1:
      return "top-1";
    case Metric::top5:
      return "top-5";
    default:
      return std::string(metric_name(metric));
  }
}

int metric_decimals(Metric metric) { return metric == Metric::perplexity ? 4 : 2; }

std::string change_text(std::uint64_t before, std::uint64_t after) {
  if (after > before) return "+" + human_bytes(after - before);
  return after == before ? "0 B" : "-" + human_bytes(before - after);
}

// A table whose second model may be missing: label, before, after, ratio.
struct SizeTable {
  Section section;
  bool two;

  SizeTable(std::string title, bool has_after) : two(has_after) {
    section.title = std::move(title);
    section.columns = {{""}, {two ? "before" : "", true}};
    if (two) section.columns.insert(section.columns.end(), {{"after", true}, {"ratio", true}});
  }
  void add(std::string label, std::uint64_t before, std::optional<std::uint64_t> after,
           std::string (*text)(std::uint64_t)) {
    std::vector<std::string> row = {std::move(label), text(before)};
    if (two) {
      row.push_back(text(after.value_or(0)));
      row.push_back(ratio_text(after.value_or(0), before));
    }
    section.rows.push_back(std::move(row));
  }
};

std::string free_dims_note(const ModelStats& stats) {
  return stats.free_dims.empty()
             ? ""
             : "MACs are of one run with these free dimensions as 1: " + join(stats.free_dims, ", ");
}

void add_mac_notes(const ModelStats& stats, std::string_view which, std::vector<std::string>& notes) {
  for (const auto& [op, count] : stats.macs_unknown)
    notes.push_back(fmt::format("MACs{} leave out {} {} (shape not known)", which, count, op));
  for (const std::string& note : stats.notes)
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(note);
}

Section size_section(const Report& report) {
  const ModelStats& before = report.before;
  const ModelStats* after = report.after ? &*report.after : nullptr;
  SizeTable table("Size", after != nullptr);
  if (report.input.bytes() > 0)
    table.add("file", report.input.bytes(), report.output ? std::optional(report.output->bytes()) : std::nullopt,
              human_bytes);
  if (report.input.data_bytes > 0 || (report.output && report.output->data_bytes > 0))
    table.add("  of it external data", report.input.data_bytes,
              report.output ? std::optional(report.output->data_bytes) : std::nullopt, human_bytes);
  table.add("weights", before.weight_bytes, after ? std::optional(after->weight_bytes) : std::nullopt, human_bytes);
  std::set<std::string> dtypes;
  for (const ModelStats* stats : {&before, after})
    if (stats != nullptr)
      for (const auto& [dtype, weights] : stats->weights) dtypes.insert(dtype);
  const auto bytes_of = [](const ModelStats& stats, const std::string& dtype) {
    const auto at = stats.weights.find(dtype);
    return at == stats.weights.end() ? 0 : at->second.bytes;
  };
  for (const std::string& dtype : dtypes)
    table.add("  " + dtype, bytes_of(before, dtype), after ? std::optional(bytes_of(*after, dtype)) : std::nullopt,
              human_bytes);
  const auto count = [&](const char* label, std::uint64_t first, auto member) {
    table.add(label, first, after ? std::optional<std::uint64_t>(after->*member) : std::nullopt, count_text);
  };
  count("parameters", before.parameters, &ModelStats::parameters);
  count("non-zeros", before.nonzeros, &ModelStats::nonzeros);
  table.add("MACs", before.macs, after ? std::optional(after->macs) : std::nullopt, human_count);
  // All unknown is not zero.
  const auto unknown = [](const ModelStats& stats) { return stats.macs == 0 && !stats.macs_unknown.empty(); };
  std::vector<std::string>& macs = table.section.rows.back();
  if (unknown(before)) macs[1] = "unknown";
  if (after != nullptr && unknown(*after)) macs[2] = "unknown";
  if (after != nullptr && (unknown(before) || unknown(*after))) macs[3] = "-";
  count("nodes", before.nodes, &ModelStats::nodes);
  auto& notes = table.section.notes;
  if (std::string note = free_dims_note(before); !note.empty()) notes.push_back(std::move(note));
  add_mac_notes(before, after ? " before" : "", notes);
  if (after != nullptr) add_mac_notes(*after, " after", notes);
  return std::move(table.section);
}

Section signature_section(const Report& report) {
  Section section{"Model", {{""}, {"name"}, {"type"}}, {}};
  for (const ValueInfo& input : report.before.inputs)
    section.rows.push_back({"input", input.name, value_type_text(input.type)});
  for (const ValueInfo& output : report.before.outputs)
    section.rows.push_back({"output", output.name, value_type_text(output.type)});
  std::vector<std::string> opsets;
  for (const auto& [domain, version] : report.before.opsets)
    opsets.push_back(fmt::format("{} {}", domain.empty() ? "ai.onnx" : domain, version));
  section.notes.push_back(fmt::format("opsets: {}; IR version {}", join(opsets, ", "), report.before.ir_version));
  return section;
}

Section operators_section(const Report& report) {
  Section section{"Operators", {{"op"}, {report.after ? "before" : "nodes", true}}, {}};
  if (report.after) section.columns.push_back({"after", true});
  std::set<std::string> ops;
  for (const auto& [op, count] : report.before.ops) ops.insert(op);
  if (report.after)
    for (const auto& [op, count] : report.after->ops) ops.insert(op);
  const auto count_of = [](const ModelStats& stats, const std::string& op) {
    const auto at = stats.ops.find(op);
    return std::to_string(at == stats.ops.end() ? 0 : at->second);
  };
  for (const std::string& op : ops) {
    section.rows.push_back({op, count_of(report.before, op)});
    if (report.after) section.rows.back().push_back(count_of(*report.after, op));
  }
  return section;
}

Section layer_table_section(const Report& report) {
  Section section{
      "Layers", {{"node"}, {"op"}, {"parameters", true}, {"bytes", true}, {"MACs", true}, {"zeros", true}}, {}};
  for (const LayerStats& layer : report.before.layers) {
    const double zeros = layer.parameters == 0 ? 0
                                               : 100.0 * static_cast<double>(layer.parameters - layer.nonzeros) /
                                                     static_cast<double>(layer.parameters);
    section.rows.push_back({layer.node, layer.op, count_text(layer.parameters), human_bytes(layer.bytes),
                            layer.macs ? human_count(*layer.macs) : "-", fixed_text(zeros, 1) + " %"});
  }
  return section;
}

Section passes_section(const Report& report) {
  Section section{"Passes",
                  {{"pass"},
                   {"changed"},
                   {"nodes", true},
                   {"skipped", true},
                   {"weight bytes", true},
                   {"seconds", true},
                   {"peak memory", true}},
                  {}};
  for (const PassRecord& record : report.passes)
    section.rows.push_back({record.pass, record.changed ? "yes" : "no", std::to_string(record.nodes_done),
                            std::to_string(record.nodes_skipped), change_text(record.bytes_before, record.bytes_after),
                            fixed_text(record.seconds, 2), human_bytes(record.peak_memory)});
  return section;
}

Section comparison_section(const Comparison& comparison) {
  Section section{"Accuracy",
                  {{"metric"}, {"output"}, {"before", true}, {"after", true}, {"drop", true}, {"measured on", true}},
                  {}};
  for (const ScorePair& score : comparison.scores) {
    const std::string unit = score.metric == Metric::perplexity ? " %" : "";
    section.rows.push_back(
        {metric_title(score.metric), score.output, fixed_text(score.before, metric_decimals(score.metric)),
         fixed_text(score.after, metric_decimals(score.metric)), score.drop ? signed_text(*score.drop, 2) + unit : "-",
         count_text(score.count) + (score.metric == Metric::perplexity ? " tokens" : " rows")});
  }
  section.notes.push_back("drop: positive is worse; points, for perplexity relative %");
  return section;
}

Section evaluation_section(const Evaluation& evaluation) {
  Section section{"Accuracy", {{"metric"}, {"output"}, {"value", true}, {"measured on", true}}, {}};
  for (const Score& score : evaluation.scores)
    section.rows.push_back({metric_title(score.metric), score.output,
                            fixed_text(score.value, metric_decimals(score.metric)),
                            count_text(score.count) + (score.metric == Metric::perplexity ? " tokens" : " rows")});
  return section;
}

void add_closeness(std::string title, const std::vector<OutputCloseness>& outputs, std::vector<Section>& sections) {
  if (outputs.empty()) return;
  Section section{std::move(title),
                  {{"output"}, {"SQNR dB", true}, {"cosine", true}, {"max |error|", true}, {"differing", true}},
                  {}};
  for (const auto& [output, closeness] : outputs)
    section.rows.push_back({output, decibel_text(closeness.sqnr_db()), fixed_text(closeness.cosine(), 6),
                            short_text(closeness.max_abs_error),
                            fmt::format("{} of {}", count_text(closeness.unequal), count_text(closeness.elements))});
  sections.push_back(std::move(section));
}

Section latency_section(const Report& report) {
  Section section{"Latency", {{""}, {"p50", true}, {"p90", true}, {"mean", true}, {"runs", true}}, {}};
  const auto add = [&](const char* label, const LatencyStats& stats) {
    section.rows.push_back({label, seconds_text(stats.p50), seconds_text(stats.p90), seconds_text(stats.mean),
                            std::to_string(stats.runs)});
  };
  if (report.latency) add("one run", *report.latency);
  if (report.latencies) {
    add("before", report.latencies->before);
    add("after", report.latencies->after);
    section.notes.push_back(fmt::format("{:.2f}x as fast (p50), {} thread{}, runs interleaved",
                                        report.latencies->speedup(), report.latencies->threads,
                                        report.latencies->threads == 1 ? "" : "s"));
  }
  return section;
}

Section layer_error_section(const std::vector<LayerError>& layers) {
  Section section{"Error inside the network, worst first",
                  {{"value"}, {"node"}, {"op"}, {"SQNR dB", true}, {"cosine", true}, {"max |error|", true}},
                  {}};
  for (const LayerError& layer : layers)
    section.rows.push_back({layer.value, layer.node, layer.op, decibel_text(layer.closeness.sqnr_db()),
                            fixed_text(layer.closeness.cosine(), 6), short_text(layer.closeness.max_abs_error)});
  return section;
}

Section skipped_section(const Report& report) {
  Section section{"Not touched", {{"pass"}, {"nodes", true}, {"reason"}, {"which"}}, {}};
  for (const SkipGroup& group : group_skips(report.journal)) {
    const std::size_t shown = std::min(kNamesShown, group.nodes.size());
    std::string names = join(std::span(group.nodes).first(shown), ", ");
    if (shown < group.nodes.size()) names += fmt::format(" and {} more", group.nodes.size() - shown);
    section.rows.push_back({group.pass, std::to_string(group.count), group.reason, std::move(names)});
  }
  return section;
}

std::string gate_text(const Gate& gate, const std::optional<double>& value) {
  if (!value) return "nan";
  if (gate.name == "max-size") return human_bytes(static_cast<std::uint64_t>(std::max(0.0, *value)));
  return gate.name == "min-sqnr" ? decibel_text(*value) + " dB" : short_text(*value);
}

Section gates_section(const Report& report) {
  Section section{"Gates", {{"gate"}, {"limit", true}, {"value", true}, {"result"}}, {}};
  for (const Gate& gate : report.gates)
    section.rows.push_back(
        {gate.name, gate_text(gate, gate.limit), gate_text(gate, gate.value), gate.pass ? "pass" : "FAIL"});
  return section;
}

Section provenance_section(const Report& report) {
  const Provenance& from = report.provenance;
  Section section{"Provenance", {{""}, {""}}, {}};
  const auto add = [&](std::string key, std::string value) {
    if (!value.empty()) section.rows.push_back({std::move(key), std::move(value)});
  };
  add("onnxpress", from.tool_version);
  add("runtime", from.runtime_version);
  add("pipeline", from.pipeline);
  add("seed", std::to_string(from.seed));
  add("input", report.input.path);
  add("input hash", report.input.hash);
  if (report.output) {
    add("output", report.output->path);
    add("output hash", report.output->hash);
  }
  for (const DataReport& data : from.data) {
    add(data.role, fmt::format("{}{}", data.description, data.synthetic ? " (SYNTHETIC)" : ""));
    add(data.role + " samples", std::to_string(data.samples));
    add(data.role + " hash", data.digest);
    add(data.role + " preprocessing", data.formula);
  }
  return section;
}

std::vector<std::string> warning_lines(const Report& report) {
  std::vector<std::string> lines = report.warnings;
  const auto add = [&](const std::vector<std::string>& more) { lines.insert(lines.end(), more.begin(), more.end()); };
  if (report.comparison) add(report.comparison->warnings);
  if (report.evaluation) add(report.evaluation->warnings);
  return lines;
}

std::vector<std::string> note_lines(const Report& report) {
  std::vector<std::string> lines;
  for (const JournalEntry& entry : report.journal) {
    if (!entry.node.empty() || entry.done) continue;
    std::string line = entry.pass.empty() ? entry.text : entry.pass + ": " + entry.text;
    if (std::ranges::find(report.warnings, line) == report.warnings.end()) lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace

std::string report_title(const Report& report) {
  std::string title = report.command + " " + report.input.path;
  if (report.output && !report.output->path.empty()) title += " -> " + report.output->path;
  return title;
}

std::vector<std::string> report_stamps(const Report& report) {
  std::vector<std::string> stamps;
  if (report.dry_run) stamps.emplace_back("DRY RUN: nothing was written");
  for (const DataReport& data : report.provenance.data)
    if (data.synthetic)
      stamps.push_back(fmt::format("{}: synthetic data ({}); accuracy and ranges mean nothing for real inputs",
                                   data.role, data.description));
  for (const Gate& gate : report.gates)
    if (!gate.pass)
      stamps.push_back(fmt::format("GATE FAILED: {} is {}, the limit is {}", gate.name, gate_text(gate, gate.value),
                                   gate_text(gate, gate.limit)));
  return stamps;
}

std::vector<Section> report_sections(const Report& report) {
  std::vector<Section> sections;
  const auto add = [&](Section section) {
    if (!section.rows.empty() || !section.notes.empty()) sections.push_back(std::move(section));
  };
  if (!report.after) add(signature_section(report));
  add(size_section(report));
  if (report.comparison && !report.comparison->scores.empty()) add(comparison_section(*report.comparison));
  if (report.evaluation && !report.evaluation->scores.empty()) add(evaluation_section(*report.evaluation));
  if (report.comparison) {
    add_closeness("Outputs, after against before", report.comparison->outputs, sections);
    add_closeness("Expected outputs, before", report.comparison->expected_before, sections);
    add_closeness("Expected outputs, after", report.comparison->expected_after, sections);
  }
  if (report.evaluation) add_closeness("Expected outputs", report.evaluation->expected, sections);
  if (report.latency || report.latencies) add(latency_section(report));
  add(passes_section(report));
  add(operators_section(report));
  if (!report.after && report.command == "inspect") add(layer_table_section(report));
  if (report.layers) add(layer_error_section(*report.layers));
  add(skipped_section(report));
  add({"Notes", {}, {}, note_lines(report)});
  add({"Warnings", {}, {}, warning_lines(report)});
  add(gates_section(report));
  add(provenance_section(report));
  return sections;
}

}  // namespace onnxpress
