// onnxpress calibrate MODEL --data D -o STATS, and calibrate --merge A B -o C
#include "flow/calibrate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "compress_flags.h"
#include "pass/registry.h"

namespace onnxpress::cmd {
namespace {

struct Flags {
  CalibrateRequest request;
  DataFlags data;
  std::string pipeline, memory_limit, form = "overrides", dtype = "uint8";
  std::map<std::string, std::string> ranges;  // options of RangeSettings, as typed
};

// How ranges are chosen is spelled as in quant-static.
std::vector<Field> range_fields() {
  Schema<RangeSettings> schema;
  RangeSettings::describe(schema);
  std::vector<Field> fields = schema.take();
  std::erase_if(fields, [](const Field& field) { return field.key == "stats"; });
  return fields;
}

Result<CalibrateResult> run(const CLI::App& command, Flags& flags) {
  CalibrateRequest& request = flags.request;
  if (request.model.empty() == request.merge.empty())
    return fail(Code::usage, "calibrate takes a MODEL, or files with --merge");
  if (request.output.empty() && request.export_path.empty())
    return fail(Code::usage, "calibrate writes to --output, to --export or to both");
  for (const Field& field : range_fields()) {
    const std::string flag = flag_of(field.key);
    if (command.count(flag) == 0) continue;
    if (Status set = field.parse(&request.ranges, {{flags.ranges.at(field.key)}, false}); !set)
      return rethrow(std::move(set).error(), flag);
  }
  OP_LET(request.before, Pipeline::parse(flags.pipeline, all_passes()));
  const auto dtype = dtype_from_name(flags.dtype);
  assert(dtype);  // CLI11 has checked it
  request.dtype = *dtype;
  request.export_form = flags.form == "overrides" ? OrtForm::overrides : OrtForm::calibration;
  if (!flags.memory_limit.empty()) {
    OP_LET(request.memory_limit, parse_size(flags.memory_limit, "--memory-limit"));
  }
  request.data = {.path = flags.data.data,
                  .samples = flags.data.samples,
                  .labels = flags.data.labels,
                  .preprocess = flags.data.preprocess};
  log::info("onnxpress {} calibrate", kVersion);
  log::info("  {:<11} {}", request.model.empty() ? "merge" : "model",
            request.model.empty() ? join(request.merge, ", ") : request.model);
  if (request.merge.empty()) log::info("  data        {}", request.data.path.empty() ? "none" : request.data.path);
  return calibrate(request);
}

std::string as_json(const CalibrateResult& result) {
  nlohmann::json values = nlohmann::json::array();
  for (const CalibratedValue& value : result.values) {
    nlohmann::json row = {{"name", value.name},          {"min", value.seen.min},          {"max", value.seen.max},
                          {"low", value.chosen.min},     {"high", value.chosen.max},       {"nan", value.seen.nan},
                          {"finite", value.seen.finite}, {"infinite", value.seen.infinite}};
    row["sqnr_db"] = std::isfinite(value.sqnr_db) ? nlohmann::json(value.sqnr_db) : nlohmann::json();
    values.push_back(std::move(row));
  }
  const nlohmann::json out = {{"samples", result.samples}, {"warnings", result.warnings}, {"values", values}};
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string as_text(const CalibrateResult& result) {
  std::size_t width = 5;
  for (const CalibratedValue& value : result.values)
    width = std::max(width, std::min<std::size_t>(value.name.size(), 48));
  std::string out = fmt::format("{:<{}}  {:>12} {:>12} {:>12} {:>12} {:>9}\n", "value", width, "min", "max", "low",
                                "high", "SQNR dB");
  for (const CalibratedValue& value : result.values) {
    const std::string sqnr = std::isfinite(value.sqnr_db) ? fmt::format("{:.1f}", value.sqnr_db) : "exact";
    out += fmt::format("{:<{}}  {:>12.5g} {:>12.5g} {:>12.5g} {:>12.5g} {:>9}\n", escape_control(value.name), width,
                       value.seen.min, value.seen.max, value.chosen.min, value.chosen.max, sqnr);
  }
  return out + fmt::format("{} values, {} samples\n", result.values.size(), result.samples);
}

}  // namespace

void add_calibrate(Cli& cli) {
  auto flags = std::make_shared<Flags>();
  auto command = std::make_shared<CLI::App*>();
  *command = cli.add("calibrate", "Statistics of a model's values, for quant-static --stats", [&cli, flags, command] {
    const auto result = run(**command, *flags);
    if (!result) return report_error(result.error());
    for (const std::string& warning : result->warnings) log::warning("{}", warning);
    return print(cli.format == "json" ? as_json(*result) : as_text(*result));
  });
  CalibrateRequest& request = flags->request;
  CLI::App* const app = *command;
  app->add_option("MODEL", request.model, "The model; '-' is stdin");
  app->add_option("-o,--output", request.output, "Where to write the statistics")->type_name("STATS");
  app->add_option("--merge", request.merge, "Add up statistics of the same model over several sets of samples")
      ->type_name("STATS");
  app->add_option("--export", request.export_path, "Also write the chosen ranges, as JSON for ONNX Runtime's quantizer")
      ->type_name("FILE");
  app->add_option("--export-form", flags->form, "overrides (TensorQuantOverrides) or calibration (calibration.json)")
      ->check(CLI::IsMember({"overrides", "calibration"}))
      ->capture_default_str();
  app->add_flag("--force", request.overwrite, "Overwrite the outputs");
  flags->data.add_data(app);
  flags->data.add_samples(app, "Use at most N samples");
  app->add_option("--labels", flags->data.labels, "Class of each image folder, lines of 'name index'")
      ->type_name("FILE");
  app->add_option("--preprocess", flags->data.preprocess, "For images, as in compress")->type_name("SPEC");
  app->add_option("-p,--pipeline", flags->pipeline, "Passes to run on the model first, e.g. '@clean,fold-batchnorm'")
      ->type_name("PIPELINE");
  for (const Field& field : range_fields())
    app->add_option(flag_of(field.key), flags->ranges[field.key], field.help + " (default " + field.fallback + ")")
        ->type_name(field.type);
  app->add_option("--dtype", flags->dtype, "Codes the ranges are for")
      ->check(CLI::IsMember({"int8", "uint8", "int16", "uint16", "int4", "uint4"}))
      ->capture_default_str();
  app->add_flag("--symmetric", request.symmetric, "Ranges with the zero point in the middle");
  app->add_option("-j,--jobs", request.jobs, "Threads; the result does not depend on them")->type_name("N");
  app->add_option("--memory-limit", flags->memory_limit, "For samples in flight and statistics, e.g. 512M")
      ->type_name("SIZE");
}

}  // namespace onnxpress::cmd
