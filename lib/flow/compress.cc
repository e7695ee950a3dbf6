#include "flow/compress.h"

#include <filesystem>

#include "base/interrupt.h"
#include "base/log.h"
#include "engine/activations.h"
#include "engine/session.h"
#include "eval/evaluate.h"
#include "flow/compare.h"
#include "flow/inputs.h"
#include "io/check.h"

namespace onnxpress {
namespace {

// Rewritten weights kept in memory before they go to disk.
constexpr std::uint64_t kSpillBudget = std::uint64_t{256} << 20;

void set_up_spilling(Model& model, const CompressRequest& request) {
  const bool to_file = !request.output.empty() && request.output != "-";
  std::filesystem::path folder =
      to_file ? std::filesystem::path(request.output).parent_path() : std::filesystem::temp_directory_path();
  if (folder.empty()) folder = ".";
  const std::uint64_t budget = request.memory_limit == 0 ? kSpillBudget : request.memory_limit / 4;
  model.store().spill_to(std::move(folder), budget);
}

class Compression {
 public:
  explicit Compression(const CompressRequest& request) : request_(request) {}

  Result<CompressResult> run() {
    if (!request_.dry_run) OP_TRY(check_output_path(request_.output, request_.overwrite));
    OP_LET(LoadedModel loaded, load_with_stats(request_.input, request_.jobs));
    Model model = std::move(loaded.model);
    report_.command = request_.command;
    report_.dry_run = request_.dry_run;
    report_.input = std::move(loaded.file);
    report_.before = std::move(loaded.stats);
    set_up_spilling(model, request_);
    const Model before = model.clone();

    OP_LET(const bool changed, run_pipeline(model));
    if (!changed && !request_.pipeline.print().empty()) {
      if (request_.strict) return finish(Code::unsupported, "nothing to do: no pass of the pipeline applied");
      warn("no pass of the pipeline applied; the model is unchanged");
    }
    if (changed) {
      OP_TRY(check_validity(before, model));
      if (request_.metadata) model.set_metadata(kPipelineKey, request_.pipeline.print());
    }
    OP_TRY(measure(before, model));
    if (!gates_pass(report_) && !request_.keep_on_fail) return finish(Code::gate_failed, "a gate failed");
    OP_TRY(save(model));
    return finish(gates_pass(report_) ? Code::ok : Code::gate_failed, "a gate failed");
  }

 private:
  void warn(std::string text) {
    log::warning("{}", text);
    report_.warnings.push_back(std::move(text));
  }

  // Sources are opened before the pipeline runs: what is wrong with them should not come up an hour later.
  Result<bool> run_pipeline(Model& model) {
    OP_LET(data_, open_samples(request_.data, report_.before));
    OP_LET(eval_, open_samples(request_.eval, report_.before));
    std::optional<EngineActivations> activations;
    if (data_) activations.emplace(*data_, request_.jobs, request_.memory_limit);
    EngineRunner runner;
    PassContext context;
    context.jobs = request_.jobs;
    context.seed = request_.seed;
    context.memory_limit = request_.memory_limit;
    context.activations = activations ? &*activations : nullptr;
    context.runner = &runner;
    Pipeline::Checks checks;
    checks.verify_each = request_.verify_each;
    checks.checker = check_model;
    OP_LET(const Outcome outcome, request_.pipeline.run(model, context, checks, &report_.passes));
    report_.journal = context.journal.entries();
    for (const std::string& warning : context.journal.warnings()) warn(warning);
    return outcome.changed;
  }

  Status check_validity(const Model& before, const Model& after) {
    const Status valid = check_model(after);
    if (valid) return {};
    if (check_model(before))
      return fail(Code::internal, "the compressed model is not valid, nothing was written: {}", valid.error().text());
    warn("the ONNX checker rejects the input model, and so the output: " + valid.error().text());
    return {};
  }

  Status measure(const Model& before, const Model& after) {
    OP_LET(report_.after, model_stats(after, {.jobs = request_.jobs}));
    OP_LET(const std::uint64_t bytes, serialized_size(after));
    report_.output = FileReport{.path = request_.output, .model_bytes = bytes, .data_bytes = 0, .hash = ""};
    if (eval_) {
      OP_TRY(check_interrupt());
      const CompareSettings settings{.metric = request_.metric,
                                     .jobs = request_.jobs,
                                     .latency = request_.latency,
                                     .layers = request_.layers,
                                     .memory_limit = request_.memory_limit};
      OP_TRY(compare_into(report_, before, after, *eval_, settings));
    }
    add_provenance();
    return apply_gates(report_, request_.gates);
  }

  void add_provenance() {
    report_.provenance.tool_version = request_.tool_version;
    if (data_ || eval_) report_.provenance.runtime_version = runtime_version();
    report_.provenance.pipeline = request_.pipeline.print();
    report_.provenance.seed = request_.seed;
    if (data_) report_.provenance.data.push_back(describe_data("calibration", *data_));
    if (eval_) report_.provenance.data.push_back(describe_data("evaluation", *eval_));
  }

  Status save(const Model& model) {
    if (request_.dry_run) return {};
    OP_TRY(check_interrupt());
    SaveOptions options;
    options.overwrite = request_.overwrite;
    options.data = request_.placement;
    OP_LET(const SavedFiles saved, save_model(model, request_.output, options));
    report_.output->model_bytes = saved.model_bytes;
    report_.output->data_bytes = saved.data_bytes;
    report_.output->hash = saved.hash;
    written_ = true;
    return {};
  }

  Result<CompressResult> finish(Code code, std::string_view why) {
    if (code != Code::ok) log::error("{}{}", why, written_ ? "" : "; nothing was written");
    if (code == Code::unsupported) add_provenance();
    return CompressResult{std::move(report_), code, written_};
  }

  const CompressRequest& request_;
  Report report_;
  std::unique_ptr<SampleSource> data_, eval_;
  bool written_ = false;
};

}  // namespace

Result<CompressResult> compress(const CompressRequest& request) { return Compression(request).run(); }

}  // namespace onnxpress
