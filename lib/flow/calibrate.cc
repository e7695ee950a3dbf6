#include "flow/calibrate.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/log.h"
#include "engine/activations.h"
#include "engine/session.h"
#include "flow/inputs.h"

namespace onnxpress {
namespace {

bool is_wanted(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64;
}

Result<StatisticsFile> measure(const CalibrateRequest& request, std::vector<std::string>& warnings) {
  OP_LET(LoadedModel loaded, load_with_stats(request.model, request.jobs));
  OP_LET(const auto source, open_samples(request.data, loaded.stats));
  if (!source) return fail(Code::usage, "calibrate needs --data");
  EngineActivations activations(*source, request.jobs, request.memory_limit);
  EngineRunner runner;
  PassContext context;
  context.jobs = request.jobs;
  context.seed = request.seed;
  context.memory_limit = request.memory_limit;
  context.activations = &activations;
  context.runner = &runner;
  OP_TRY(request.before.run(loaded.model, context, {}, nullptr));
  warnings = context.journal.warnings();
  const std::vector<ValueRef> values = calibratable_values(loaded.model);
  if (values.empty()) return fail(Code::bad_input, "{}: no value of a float type is known", request.model);
  StatisticsFile file;
  OP_LET(file.model, model_print(loaded.model));
  OP_LET(file.values, collect_statistics(context, loaded.model, values));
  return file;
}

Result<StatisticsFile> merge(const std::vector<std::string>& paths) {
  OP_LET(StatisticsFile merged, read_statistics(paths.front()));
  for (const std::string& path : std::span(paths).subspan(1)) {
    OP_LET(const StatisticsFile shard, read_statistics(path));
    OP_TRY(merge_statistics(merged, shard, path));
  }
  return merged;
}

CalibrateResult summarize(const StatisticsFile& file, const RangeTable& ranges, const CalibrateRequest& request) {
  CalibrateResult result;
  for (const auto& [name, statistics] : file.values) {
    CalibratedValue value{.name = name, .seen = statistics.range, .chosen = ranges.at(name)};
    const double error = quantization_mse(statistics, value.chosen, request.dtype, request.symmetric);
    value.sqnr_db = error > 0 ? 10 * std::log10(mean_square(statistics) / error) : HUGE_VAL;
    result.samples = std::max(result.samples, statistics.samples);
    result.values.push_back(std::move(value));
  }
  return result;
}

}  // namespace

std::vector<ValueRef> calibratable_values(const Model& model) {
  std::vector<ValueRef> values;
  for (const Graph* graph : model.graphs()) {
    const Graph* outermost = graph;
    while (outermost->parent() != nullptr) outermost = outermost->parent();
    if (outermost->kind() == Graph::Kind::function) continue;
    const auto add = [&](const std::string& name) {
      const ValueType type = name.empty() ? ValueType{} : graph->type(name);
      if (!type.is_tensor || !is_wanted(type.dtype) || graph->is_constant(name)) return;
      values.push_back({name, graph->kind() == Graph::Kind::main ? nullptr : graph});
    };
    for (const std::string& input : graph->inputs()) add(input);
    for (const Node& node : graph->nodes())
      for (const std::string& output : node.outputs()) add(output);
  }
  return values;
}

Result<CalibrateResult> calibrate(const CalibrateRequest& request) {
  OP_TRY(request.ranges.check());
  for (const std::string* path : {&request.output, &request.export_path})
    if (!path->empty()) OP_TRY(check_output_path(*path, request.overwrite));
  std::vector<std::string> warnings;
  StatisticsFile file;
  if (request.merge.empty()) {
    OP_LET(file, measure(request, warnings));
  } else {
    OP_LET(file, merge(request.merge));
  }
  const RangeTable ranges = choose_ranges(file.values, request.ranges, request.dtype, request.symmetric, request.jobs);
  if (!request.output.empty()) OP_TRY(write_statistics(request.output, file));
  if (!request.export_path.empty())
    OP_TRY(write_text_file(request.export_path,
                           ort_ranges_text(ranges, request.export_form, request.dtype, request.symmetric)));
  CalibrateResult result = summarize(file, ranges, request);
  result.warnings = std::move(warnings);
  return result;
}

}  // namespace onnxpress
