#include "flow/compare.h"

#include "base/log.h"
#include "engine/session.h"
#include "eval/evaluate.h"
#include "eval/latency.h"
#include "eval/layers.h"
#include "flow/compress.h"
#include "flow/inputs.h"

namespace onnxpress {
namespace {

// Timing is a side line of these commands: it may take this long and no longer.
constexpr double kLatencySeconds = 5;

Result<Batch> first_batch(SampleSource& source) {
  OP_TRY(source.rewind());
  OP_LET(std::optional<Batch> batch, source.next());
  if (!batch) return fail(Code::bad_input, "{}: no samples", source.description());
  return std::move(*batch);
}

void take_warnings(Report& report, const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) log::warning("{}", warning);
  report.warnings.insert(report.warnings.end(), warnings.begin(), warnings.end());
}

void take_provenance(Report& report, const std::string& version, const SampleSource* source) {
  report.provenance.tool_version = version;
  if (source == nullptr) return;
  report.provenance.runtime_version = runtime_version();
  report.provenance.data.push_back(describe_data("evaluation", *source));
}

}  // namespace

Result<Report> inspect(const InspectRequest& request) {
  OP_LET(LoadedModel loaded, load_with_stats(request.model, request.jobs));
  Report report;
  report.command = "inspect";
  report.input = std::move(loaded.file);
  report.before = std::move(loaded.stats);
  report.provenance.pipeline = loaded.model.metadata(kPipelineKey);
  take_provenance(report, request.tool_version, nullptr);
  return report;
}

Result<Report> eval_model(const EvalRequest& request) {
  OP_LET(LoadedModel loaded, load_with_stats(request.model, request.jobs));
  Report report;
  report.command = "eval";
  report.input = std::move(loaded.file);
  report.before = std::move(loaded.stats);
  OP_LET(const auto source, open_samples(request.eval, report.before));
  if (!source) return fail(Code::usage, "eval needs --eval");
  OP_LET(report.evaluation, evaluate(loaded.model, *source, {.metric = request.metric, .jobs = request.jobs}));
  take_warnings(report, report.evaluation->warnings);
  if (request.latency) {
    OP_LET(const Batch batch, first_batch(*source));
    LatencyOptions options;
    options.max_seconds = kLatencySeconds;
    OP_LET(report.latency, measure_latency(loaded.model, batch.inputs, options));
  }
  take_provenance(report, request.tool_version, source.get());
  return report;
}

Status compare_into(Report& report, const Model& before, const Model& after, SampleSource& source,
                    const CompareSettings& settings) {
  OP_LET(report.comparison, compare(before, after, source, {.metric = settings.metric, .jobs = settings.jobs}));
  take_warnings(report, report.comparison->warnings);
  if (settings.layers) {
    LayerOptions options;
    if (settings.memory_limit != 0) options.memory_limit = settings.memory_limit;
    OP_TRY(source.rewind());
    OP_LET(report.layers, compare_layers(before, after, source, options));
  }
  if (settings.latency) {
    OP_LET(const Batch batch, first_batch(source));
    LatencyOptions options;
    options.max_seconds = kLatencySeconds;
    OP_LET(report.latencies, compare_latency(before, after, batch.inputs, options));
  }
  return {};
}

Result<Report> compare_models(const CompareRequest& request) {
  OP_LET(LoadedModel before, load_with_stats(request.before, request.settings.jobs));
  OP_LET(LoadedModel after, load_with_stats(request.after, request.settings.jobs));
  Report report;
  report.command = "compare";
  report.input = std::move(before.file);
  report.output = std::move(after.file);
  report.before = std::move(before.stats);
  report.after = std::move(after.stats);
  OP_LET(const auto source, open_samples(request.eval, report.before));
  if (source) OP_TRY(compare_into(report, before.model, after.model, *source, request.settings));
  take_provenance(report, request.tool_version, source.get());
  OP_TRY(apply_gates(report, request.gates));
  return report;
}

}  // namespace onnxpress
