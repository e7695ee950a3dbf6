// onnxpress sensitivity MODEL --data D [--eval E]
#include "flow/sensitivity.h"

#include <memory>

#include "base/log.h"
#include "common.h"
#include "pass/registry.h"

namespace onnxpress::cmd {
namespace {

struct Flags {
  SensitivityRequest request;
  std::string pipeline = "@clean,fold-batchnorm", target = "auto", output, cache, memory_limit;
  std::optional<std::size_t> samples;
  bool per_tensor = false;
};

Result<SensitivityTable> run(Flags& flags) {
  SensitivityRequest& request = flags.request;
  OP_LET(request.pipeline, Pipeline::parse(flags.pipeline, all_passes()));
  for (const auto& [name, target] : target_choices())
    if (name == flags.target) request.quantization.target = target;
  request.quantization.per_channel = !flags.per_tensor;
  request.data.samples = flags.samples;
  request.eval.labels = request.data.labels;
  request.eval.preprocess = request.data.preprocess;
  request.cache = flags.output.empty() ? flags.cache : flags.output;
  if (!flags.memory_limit.empty()) {
    OP_LET(request.memory_limit, parse_size(flags.memory_limit, "--memory-limit"));
  }
  log::info("onnxpress {} sensitivity", kVersion);
  log::info("  model       {}", request.model);
  log::info("  first       {}", flags.pipeline.empty() ? "nothing" : request.pipeline.print());
  log::info("  data        {}", request.data.path);
  log::info("  eval        {}", request.eval.path.empty() ? "the same" : request.eval.path);
  log::info("  cache       {}", request.cache.empty() ? "none" : request.cache);
  return sensitivity(request);
}

int print_table(const Cli& cli, const SensitivityTable& table, const std::string& pipeline) {
  if (cli.format == "json") return print(sensitivity_json(table));
  return print(sensitivity_text(table, pipeline, cli.format == "md"));
}

}  // namespace

void add_sensitivity(Cli& cli) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      cli.add("sensitivity", "Which nodes suffer from quantization, measured one by one", [&cli, flags] {
        auto table = run(*flags);
        return table ? print_table(cli, *table, flags->pipeline) : report_error(table.error());
      });
  command->add_option("MODEL", flags->request.model, "The float model; '-' is stdin")->required();
  command->add_option("--data", flags->request.data.path, "Calibration samples: ranges are measured on them")
      ->type_name("PATH");
  command->add_option("--eval", flags->request.eval.path, "Samples to compare outputs on (default: those of --data)")
      ->type_name("PATH");
  command->add_option("--labels", flags->request.data.labels, "Class of each image folder, lines of 'name index'")
      ->type_name("FILE");
  command
      ->add_option("--preprocess", flags->request.data.preprocess,
                   "For images: resize=224x224,scale=1/255,mean=...,std=...,color=RGB,layout=NCHW")
      ->type_name("SPEC");
  command->add_option("--samples", flags->samples, "Use at most N calibration samples")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  command
      ->add_option("-p,--pipeline", flags->pipeline, "Passes to run first: those that will stand before quant-static")
      ->type_name("PIPELINE")
      ->capture_default_str();
  CLI::Option* const output =
      command->add_option("-o,--output", flags->output, "JSON for quant-mixed; an unfinished one is continued")
          ->type_name("FILE");
  command->add_option("--cache", flags->cache, "The same, for runs that only look at the text")
      ->type_name("FILE")
      ->excludes(output);
  command->add_flag("--force", flags->request.fresh, "Overwrite the file, do not continue it");
  std::vector<std::string> targets;
  for (const auto& [name, target] : target_choices()) targets.push_back(name);
  command->add_option("--target", flags->target, "As of quant-static")
      ->check(CLI::IsMember(targets))
      ->capture_default_str();
  command->add_flag("--per-tensor", flags->per_tensor,
                    "One scale per weight tensor, as quant-static{per_channel=false}");
  command->add_option("-j,--jobs", flags->request.jobs, "Threads; the result does not depend on them")->type_name("N");
  command->add_option("--memory-limit", flags->memory_limit, "For samples in flight and statistics, e.g. 512M")
      ->type_name("SIZE");
}

}  // namespace onnxpress::cmd
