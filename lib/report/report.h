// Everything one command found out, and its forms: JSON, text, Markdown. Any part may be missing (`inspect` has one
// model and no accuracy); the same struct and the same JSON Schema (docs/report.schema.json) serve all commands.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "eval/evaluate.h"
#include "eval/latency.h"
#include "eval/layers.h"
#include "pass/journal.h"
#include "pass/pipeline.h"
#include "report/stats.h"

namespace onnxpress {

struct FileReport {
  std::string path;               // as the user gave it
  std::uint64_t model_bytes = 0;  // of the .onnx file
  std::uint64_t data_bytes = 0;   // of external data
  std::string hash;               // XXH3-128 of the .onnx file; "" when not known
  std::uint64_t bytes() const { return model_bytes + data_bytes; }
};

// Samples that were used, and for what.
struct DataReport {
  std::string role;         // "calibration" or "evaluation"
  std::string description;  // SampleSource::description()
  std::string digest;
  std::string formula;  // resolved preprocessing; "" when none
  std::size_t samples = 0;
  bool synthetic = false;  // invented: shown in every form of the report
};
DataReport describe_data(std::string role, const SampleSource& source);

// A limit the user set. `value` is empty when it could not be measured (NaN); then it has failed.
struct Gate {
  std::string name;  // "max-drop", "min-sqnr", "max-size", "max-ratio"
  double limit = 0;
  std::optional<double> value;
  bool pass = false;
};

struct Provenance {
  std::string tool_version;     // "0.1.0"
  std::string runtime_version;  // runtime_version() of the engine; "" when nothing was run
  std::string pipeline;         // canonical text; "" when there is none
  std::uint64_t seed = 0;
  std::vector<DataReport> data;
};

struct Report {
  std::string command;  // "compress", "quant-static", "inspect", "eval", "compare"
  bool dry_run = false;
  FileReport input;                  // compare: the first model
  std::optional<FileReport> output;  // compare: the second model; sizes without a hash for a dry run
  ModelStats before;
  std::optional<ModelStats> after;
  std::vector<PassRecord> passes;
  std::vector<JournalEntry> journal;
  std::optional<Evaluation> evaluation;  // eval
  std::optional<Comparison> comparison;  // compress --eval, compare
  std::optional<LatencyStats> latency;   // eval
  std::optional<Latency> latencies;      // both models
  std::optional<std::vector<LayerError>> layers;
  std::vector<std::string> warnings;
  std::vector<Gate> gates;
  Provenance provenance;
};

struct GateLimits {
  std::optional<double> max_drop = {};         // of the headline metric, in the unit of metric_drop()
  std::optional<double> min_sqnr = {};         // dB, worst output
  std::optional<std::uint64_t> max_size = {};  // bytes of the output with its external data
  std::optional<double> max_ratio = {};        // output bytes / input bytes
};
// Fills report.gates. Error usage when a limit needs something the report does not have (max_drop without an
// evaluation, or with a metric that has no drop).
Status apply_gates(Report& report, const GateLimits& limits);
bool gates_pass(const Report& report);  // true when there are none

// Skipped nodes with the same pass and reason, in order of first appearance.
struct SkipGroup {
  std::string pass, reason;
  std::vector<std::string> nodes;  // labels; "" entries (notes on the model) left out
  std::size_t count = 0;
};
std::vector<SkipGroup> group_skips(const std::vector<JournalEntry>& journal);

// "1.09 MB -> 0.31 MB (0.28x) · top-1 91.75 -> 91.70 (-0.05) · ...", without the file name.
std::string summary_line(const Report& report);

// JSON, indented by two, newline at the end. schema_version 1: fields are only ever added. The same report gives the
// same bytes except for the timing fields passes[].seconds, passes[].peak_memory, latency and latencies.
// Infinite and NaN numbers are null (`equal` and `broken` beside them say which).
std::string report_json(const Report& report);
inline constexpr int kReportSchemaVersion = 1;

struct TextOptions {
  bool color = false;
  std::size_t max_rows = 20;  // of layers, skipped nodes and so on; 0 = all
};
// Tables for a terminal, aligned by display width (UTF-8), control characters escaped.
std::string report_text(const Report& report, const TextOptions& options = {});

// GitHub-flavoured Markdown of at most `max_bytes` (comments there end at 64 kB): long tables are cut with
// "N more in the JSON report".
std::string report_markdown(const Report& report, std::size_t max_bytes = 60000);

// Writes the form the file name asks for: .json, .md or .txt. Errors: usage (another ending), io.
Status write_report(const Report& report, const std::string& path);

}  // namespace onnxpress
