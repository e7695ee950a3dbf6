// onnxpress groups MODEL [--explain NODE]
#include "flow/groups.h"

#include <memory>

#include "common.h"
#include "pass/registry.h"

namespace onnxpress::cmd {

void add_groups(Cli& cli) {
  struct Flags {
    GroupsRequest request;
    std::string pipeline = "@clean";
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      cli.add("groups", "What structured pruning could remove, and what blocks it", [&cli, flags] {
        auto pipeline = Pipeline::parse(flags->pipeline, all_passes());
        if (!pipeline) return report_error(pipeline.error());
        flags->request.pipeline = std::move(*pipeline);
        const auto result = find_groups(flags->request);
        if (!result) return report_error(result.error());
        return print(cli.format == "json" ? groups_json(*result) : groups_text(*result));
      });
  command->add_option("MODEL", flags->request.model, "The model; '-' is stdin")->required();
  command
      ->add_option("--explain", flags->request.explain,
                   "Only this node: its units, what goes with them, and the way to what blocks the others")
      ->type_name("NODE");
  command
      ->add_option("-p,--pipeline", flags->pipeline,
                   "Passes to run first: those that will stand before the pruning pass")
      ->type_name("PIPELINE")
      ->capture_default_str();
  command->add_flag("--allow-normalized", flags->request.allow_normalized,
                    "As of prune-channels: axes that are normalized over may be cut");
}

}  // namespace onnxpress::cmd
