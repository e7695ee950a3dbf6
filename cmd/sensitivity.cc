// onnxpress sensitivity MODEL --data D [--eval E] [--method quantization|prune-magnitude|prune-channels]
#include "flow/sensitivity.h"

#include <memory>

#include "base/file.h"
#include "base/log.h"
#include "common.h"
#include "flow/inputs.h"
#include "flow/prune_sensitivity.h"
#include "pass/registry.h"

namespace onnxpress::cmd {
namespace {

constexpr const char* kQuantization = "quantization";

struct Flags {
  SensitivityRequest request;
  std::string method = kQuantization;
  std::string pipeline = "@clean,fold-batchnorm", target = "auto", output, cache, memory_limit;
  std::vector<double> ratios = {0.25, 0.5, 0.75};
  std::optional<std::size_t> samples;
  bool per_tensor = false;
};

Status prepare(Flags& flags) {
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
  log::info("  method      {}", flags.method);
  log::info("  first       {}", flags.pipeline.empty() ? "nothing" : request.pipeline.print());
  log::info("  data        {}", request.data.path);
  log::info("  eval        {}", request.eval.path.empty() ? "the same" : request.eval.path);
  return {};
}

int print_quantization(const Cli& cli, const Flags& flags) {
  log::info("  cache       {}", flags.request.cache.empty() ? "none" : flags.request.cache);
  const auto table = sensitivity(flags.request);
  if (!table) return report_error(table.error());
  if (cli.format == "json") return print(sensitivity_json(*table));
  return print(sensitivity_text(*table, flags.pipeline, cli.format == "md"));
}

Result<PruneSensitivityResult> measure_pruning(const Flags& flags) {
  if (flags.per_tensor || flags.target != "auto" || !flags.cache.empty())
    return fail(Code::usage, "--target, --per-tensor and --cache are for --method quantization");
  if (!flags.output.empty()) OP_TRY(check_output_path(flags.output, flags.request.fresh));
  const auto method =
      flags.method == prune_method_name(PruneMethod::channels) ? PruneMethod::channels : PruneMethod::magnitude;
  OP_LET(PruneSensitivityResult result,
         prune_sensitivity({static_cast<const TrialRequest&>(flags.request), method, flags.ratios}));
  if (!flags.output.empty()) OP_TRY(write_text_file(flags.output, prune_sensitivity_json(result)));
  return result;
}

int print_pruning(const Cli& cli, const Flags& flags) {
  const auto result = measure_pruning(flags);
  if (!result) return report_error(result.error());
  if (cli.format == "json") return print(prune_sensitivity_json(*result));
  return print(prune_sensitivity_text(*result, flags.pipeline, cli.format == "md"));
}

void add_data_flags(CLI::App* command, Flags& flags) {
  command->add_option("MODEL", flags.request.model, "The float model; '-' is stdin")->required();
  command->add_option("--data", flags.request.data.path, "Calibration samples: ranges are measured on them")
      ->type_name("PATH");
  command->add_option("--eval", flags.request.eval.path, "Samples to compare outputs on (default: those of --data)")
      ->type_name("PATH");
  command->add_option("--labels", flags.request.data.labels, "Class of each image folder, lines of 'name index'")
      ->type_name("FILE");
  command
      ->add_option("--preprocess", flags.request.data.preprocess,
                   "For images: resize=224x224,scale=1/255,mean=...,std=...,color=RGB,layout=NCHW")
      ->type_name("SPEC");
  command->add_option("--samples", flags.samples, "Use at most N calibration samples")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
}

}  // namespace

void add_sensitivity(Cli& cli) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      cli.add("sensitivity", "What suffers from quantization or pruning, measured one by one", [&cli, flags] {
        if (const Status status = prepare(*flags); !status) return report_error(status.error());
        return flags->method == kQuantization ? print_quantization(cli, *flags) : print_pruning(cli, *flags);
      });
  add_data_flags(command, *flags);
  command
      ->add_option("--method", flags->method,
                   "What each node is put through: quantization; or pruning, of the smallest weights of each layer, or "
                   "of the least units of each group")
      ->check(CLI::IsMember(
          {kQuantization, prune_method_name(PruneMethod::magnitude), prune_method_name(PruneMethod::channels)}))
      ->capture_default_str();
  command->add_option("--ratios", flags->ratios, "Of pruning: shares that are taken away, one after another")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->type_name("R,R,...")
      ->capture_default_str();
  command
      ->add_option("-p,--pipeline", flags->pipeline,
                   "Passes to run first: those that will stand before quant-static or the pruning")
      ->type_name("PIPELINE")
      ->capture_default_str();
  CLI::Option* const output =
      command
          ->add_option("-o,--output", flags->output,
                       "JSON; of quantization for quant-mixed, where an unfinished one is continued")
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
