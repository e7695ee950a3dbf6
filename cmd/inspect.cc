// onnxpress inspect IN
#include <memory>

#include "common.h"
#include "flow/compare.h"

namespace onnxpress::cmd {

void add_inspect(Cli& cli) {
  auto request = std::make_shared<InspectRequest>();
  auto reports = std::make_shared<std::vector<std::string>>();
  CLI::App* const command =
      cli.add("inspect", "Parameters, MACs, bytes by type and layer, opsets, sparsity", [&cli, request, reports] {
        request->tool_version = kVersion;
        if (Status status = check_report_paths(*reports); !status) return report_error(status.error());
        auto report = inspect(*request);
        if (!report) return report_error(report.error());
        if (Status status = write_reports(*report, *reports); !status) return report_error(status.error());
        return print_report(cli, *report);
      });
  command->add_option("IN", request->model, "The model; '-' is stdin")->required();
  command->add_option("--report", *reports, "Also write the report: .json, .md or .txt; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("-j,--jobs", request->jobs, "Threads")->type_name("N");
}

}  // namespace onnxpress::cmd
