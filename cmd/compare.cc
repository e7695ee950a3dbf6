// onnxpress compare A B --eval E
#include "flow/compare.h"

#include <memory>

#include "base/log.h"
#include "compress_flags.h"

namespace onnxpress::cmd {
namespace {

struct Flags {
  CompareRequest request;
  DataFlags data;
  std::vector<std::string> reports;
  std::string max_drop, max_size;
  bool no_latency = false, no_layers = false;
};

Result<Report> run(Flags& flags) {
  CompareRequest& request = flags.request;
  OP_TRY(check_report_paths(flags.reports));
  OP_LET(request.settings.metric, metric_from_name(flags.data.metric));
  if (!flags.max_drop.empty()) {
    OP_LET(request.gates.max_drop, parse_percent(flags.max_drop, "--max-drop"));
  }
  if (!flags.max_size.empty()) {
    OP_LET(request.gates.max_size, parse_size(flags.max_size, "--max-size"));
  }
  if (flags.data.eval.empty() && (request.gates.max_drop || request.gates.min_sqnr))
    return fail(Code::usage, "{} needs --eval", request.gates.max_drop ? "--max-drop" : "--min-sqnr");
  request.tool_version = kVersion;
  request.eval = {.path = flags.data.eval,
                  .samples = flags.data.samples,
                  .labels = flags.data.labels,
                  .preprocess = flags.data.preprocess};
  request.settings.latency = !flags.no_latency;
  request.settings.layers = !flags.no_layers;
  log::info("onnxpress {} compare", kVersion);
  log::info("  before      {}", request.before);
  log::info("  after       {}", request.after);
  log::info("  eval        {}", request.eval.path.empty() ? "none" : request.eval.path);
  log::info("  metric      {}", flags.data.metric);
  OP_LET(Report report, compare_models(request));
  OP_TRY(write_reports(report, flags.reports));
  return report;
}

}  // namespace

void add_compare(Cli& cli) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      cli.add("compare", "Two models side by side: size, accuracy, error per layer", [&cli, flags] {
        auto report = run(*flags);
        if (!report) return report_error(report.error());
        if (const int code = print_report(cli, *report); code != 0) return code;
        if (gates_pass(*report)) return 0;
        log::error("a gate failed");
        return static_cast<int>(Code::gate_failed);
      });
  command->add_option("A", flags->request.before, "The original")->required();
  command->add_option("B", flags->request.after, "The other model")->required();
  flags->data.add_eval(command);
  flags->data.add_samples(command, "Use at most N samples");
  command->add_option("--max-drop", flags->max_drop, "Gate: the metric may drop by this much")->type_name("X");
  command->add_option("--min-sqnr", flags->request.gates.min_sqnr, "Gate: the worst output keeps this SQNR")
      ->type_name("DB");
  command->add_option("--max-size", flags->max_size, "Gate: bytes of B, with suffix")->type_name("SIZE");
  command->add_flag("--no-latency", flags->no_latency, "Do not time the models");
  command->add_flag("--no-layers", flags->no_layers, "No error per layer");
  command->add_option("--report", flags->reports, "Also write the report: .json, .md or .txt; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("-j,--jobs", flags->request.settings.jobs, "Threads; the result does not depend on them")
      ->type_name("N");
}

}  // namespace onnxpress::cmd
