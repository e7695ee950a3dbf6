// onnxpress eval MODEL --eval E
#include <memory>

#include "base/log.h"
#include "compress_flags.h"
#include "flow/compare.h"

namespace onnxpress::cmd {
namespace {

struct Flags {
  EvalRequest request;
  DataFlags data;
  std::vector<std::string> reports;
  bool no_latency = false;
};

Result<Report> run(Flags& flags) {
  EvalRequest& request = flags.request;
  OP_TRY(check_report_paths(flags.reports));
  OP_LET(request.metric, metric_from_name(flags.data.metric));
  request.tool_version = kVersion;
  request.eval = {.path = flags.data.eval,
                  .samples = flags.data.samples,
                  .labels = flags.data.labels,
                  .preprocess = flags.data.preprocess};
  request.latency = !flags.no_latency;
  log::info("onnxpress {} eval", kVersion);
  log::info("  model       {}", request.model);
  log::info("  eval        {}", request.eval.path);
  log::info("  metric      {}", flags.data.metric);
  OP_LET(Report report, eval_model(request));
  OP_TRY(write_reports(report, flags.reports));
  return report;
}

}  // namespace

void add_eval(Cli& cli) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command = cli.add("eval", "Metrics and latency of one model", [&cli, flags] {
    auto report = run(*flags);
    return report ? print_report(cli, *report) : report_error(report.error());
  });
  command->add_option("MODEL", flags->request.model, "The model; '-' is stdin")->required();
  flags->data.add_eval(command);
  flags->data.add_samples(command, "Use at most N samples");
  command->add_flag("--no-latency", flags->no_latency, "Do not time the model");
  command->add_option("--report", flags->reports, "Also write the report: .json, .md or .txt; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("-j,--jobs", flags->request.jobs, "Threads; the result does not depend on them")->type_name("N");
}

}  // namespace onnxpress::cmd
