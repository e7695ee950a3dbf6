#include "compress_flags.h"

#include "base/log.h"
#include "base/parallel.h"

namespace onnxpress::cmd {

void DataFlags::add_data(CLI::App* command) {
  command
      ->add_option("--data", data,
                   "Calibration samples: .npz, .npy, test_data_set_N folder, image folder, or random:seed=N")
      ->type_name("PATH");
}

void DataFlags::add_eval(CLI::App* command) {
  command->add_option("--eval", eval, "Evaluation samples, in the same forms")->type_name("PATH");
  command->add_option("--labels", labels, "Class of each image folder, lines of 'name index'")->type_name("FILE");
  command
      ->add_option("--preprocess", preprocess,
                   "For images: resize=224x224,scale=1/255,mean=...,std=...,color=RGB,layout=NCHW")
      ->type_name("SPEC");
  command->add_option("--metric", metric, "auto, top1, top5, perplexity, agreement or sqnr")->capture_default_str();
}

void DataFlags::add_samples(CLI::App* command, const std::string& help) {
  command->add_option("--samples", samples, help)->check(CLI::PositiveNumber)->type_name("N");
}

void CompressFlags::add(CLI::App* command) {
  command->add_option("IN", input, "The model; '-' is stdin")->required();
  command->add_option("-o,--output", output, "Where to write; '-' is stdout")->type_name("OUT");
  command->add_flag("--force", force, "Overwrite the output");
  samples.add_data(command);
  samples.add_samples(command, "Use at most N calibration samples");
  samples.add_eval(command);
  command->add_option("--report", reports, "Also write the report: .json, .md or .txt; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("--max-drop", max_drop, "Gate: the metric may drop by this much")->type_name("X");
  command->add_option("--min-sqnr", min_sqnr, "Gate: the worst output keeps this SQNR")->type_name("DB");
  command->add_option("--max-size", max_size, "Gate: bytes of the output, with suffix")->type_name("SIZE");
  command->add_flag("--keep-on-fail", keep_on_fail, "Write the output also when a gate failed");
  command->add_flag("--strict", strict, "Fail when nothing applied");
  command->add_flag("--dry-run", dry_run, "Do everything but write the output");
  command->add_flag("--verify-each", verify_each, "Run the ONNX checker after each pass");
  CLI::Option* const embedded = command->add_flag("--embed-data", embed, "Keep all weights inside the model file");
  command->add_flag("--external-data", external, "Put large weights in a file beside the model")->excludes(embedded);
  command->add_flag("--no-metadata", no_metadata, "Do not store the pipeline in the model");
  command->add_flag("--no-latency", no_latency, "Do not time the models (with --eval)");
  command->add_flag("--no-layers", no_layers, "No error per layer (with --eval)");
  command->add_option("-j,--jobs", jobs, "Threads; the result does not depend on them")->type_name("N");
  command->add_option("--seed", seed, "For passes that draw random numbers")->capture_default_str();
  command->add_option("--memory-limit", memory_limit, "For samples in flight and statistics, e.g. 512M")
      ->type_name("SIZE");
}

Result<CompressRequest> CompressFlags::request() const {
  CompressRequest request;
  request.tool_version = kVersion;
  request.input = input;
  request.output = output;
  request.data = {
      .path = samples.data, .samples = samples.samples, .labels = samples.labels, .preprocess = samples.preprocess};
  request.eval = {.path = samples.eval, .samples = {}, .labels = samples.labels, .preprocess = samples.preprocess};
  OP_LET(request.metric, metric_from_name(samples.metric));
  request.latency = !no_latency;
  request.layers = !no_layers;
  request.jobs = jobs;
  request.seed = seed;
  if (!memory_limit.empty()) {
    OP_LET(request.memory_limit, parse_size(memory_limit, "--memory-limit"));
  }
  if (!max_drop.empty()) {
    OP_LET(request.gates.max_drop, parse_percent(max_drop, "--max-drop"));
  }
  if (!max_size.empty()) {
    OP_LET(request.gates.max_size, parse_size(max_size, "--max-size"));
  }
  request.gates.min_sqnr = min_sqnr;
  request.keep_on_fail = keep_on_fail;
  request.strict = strict;
  request.dry_run = dry_run;
  request.verify_each = verify_each;
  request.overwrite = force;
  request.metadata = !no_metadata;
  if (embed) request.placement = SaveOptions::Data::embedded;
  if (external) request.placement = SaveOptions::Data::external;
  if (output.empty() && !dry_run) return fail(Code::usage, "-o OUT is required (or --dry-run)");
  if (samples.eval.empty() && (min_sqnr || !max_drop.empty()))
    return fail(Code::usage, "{} needs --eval", min_sqnr ? "--min-sqnr" : "--max-drop");
  if (output == "-" && external) return fail(Code::usage, "--external-data cannot go to stdout");
  OP_TRY(check_report_paths(reports));
  return request;
}

namespace {

void echo(const CLI::App& command, const CompressRequest& request, const std::string& origin) {
  const auto from = [&](const char* flag) { return command.count(flag) > 0 ? "flag" : "default"; };
  const std::string pipeline = request.pipeline.print();
  log::info("onnxpress {} {}", kVersion, command.get_name());
  log::info("  input       {}", request.input);
  log::info("  output      {}{}", request.output, request.dry_run ? " (dry run: not written)" : "");
  log::info("  pipeline    {} ({})", pipeline.empty() ? "nothing" : pipeline, origin);
  log::info("  data        {} ({})", request.data.path.empty() ? "none" : request.data.path, from("--data"));
  log::info("  eval        {} ({})", request.eval.path.empty() ? "none" : request.eval.path, from("--eval"));
  log::info("  seed        {} ({})", request.seed, from("--seed"));
  log::info("  jobs        {} ({})", request.jobs == 0 ? available_cores() : request.jobs, from("--jobs"));
}

}  // namespace

int run_compress(const Cli& cli, const CLI::App& command, const CompressFlags& flags, Pipeline pipeline,
                 const std::string& origin) {
  auto request = flags.request();
  if (!request) return report_error(request.error());
  request->command = command.get_name();
  request->pipeline = std::move(pipeline);
  echo(command, *request, origin);
  auto result = compress(*request);
  if (!result) return report_error(result.error());
  if (Status written = write_reports(result->report, flags.reports); !written) return report_error(written.error());
  // stdout may be the model: then the report goes where the log goes.
  if (request->output == "-" && !request->dry_run) {
    log::info("{}", render(cli, result->report, false));
  } else if (const int code = print_report(cli, result->report); code != 0) {
    return code;
  }
  return static_cast<int>(result->code);
}

}  // namespace onnxpress::cmd
