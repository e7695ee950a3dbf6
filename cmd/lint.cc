// onnxpress lint MODEL [--target T]
#include "flow/lint.h"

#include <memory>

#include "base/log.h"
#include "common.h"

namespace onnxpress::cmd {

void add_lint(Cli& cli) {
  struct Flags {
    LintRequest request;
    bool all = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      cli.add("lint", "What the runtime will fuse each node to, or what is in the way", [&cli, flags] {
        const auto result = lint(flags->request);
        if (!result) return report_error(result.error());
        const int code = print(cli.format == "json" ? lint_json(*result) : lint_text(*result, flags->all));
        if (code != 0 || result->passed) return code;
        log::error("{}", flags->request.verify && result->check->share() < 0.99
                             ? "fewer than 99 % of the nodes were predicted right"
                             : "a compute node is blocked or can saturate");
        return static_cast<int>(Code::gate_failed);
      });
  command->add_option("MODEL", flags->request.model, "The model, float or quantized by any tool; '-' is stdin")
      ->required();
  command->add_option("--target", flags->request.target, "What it will run on; auto is this machine")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--all", flags->all, "List every node, not only those that compute or are blocked");
  command->add_flag("--fail-on-blocker", flags->request.fail_on_blocker,
                    "Gate: exit with 1 when a compute node is blocked, or can saturate on the target");
  command->add_flag("--verify", flags->request.verify,
                    "Load the model and compare with the runtime's own graph; exit with 1 below 99 % of nodes right");
}

}  // namespace onnxpress::cmd
