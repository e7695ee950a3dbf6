#include "flow/trial.h"

#include "base/hash.h"
#include "flow/inputs.h"

namespace onnxpress {

Result<std::unique_ptr<Trial>> Trial::open(const TrialRequest& request, const std::string& what) {
  if (request.data.path.empty()) return fail(Code::usage, "{} needs --data", what);
  std::unique_ptr<Trial> trial(new Trial);
  OP_LET(LoadedModel loaded, load_with_stats(request.model, request.jobs));
  OP_LET(trial->data_, open_samples(request.data, loaded.stats));
  OP_LET(trial->eval_, open_samples(request.eval, loaded.stats));
  const auto activations = [&](SampleSource& source) {
    return std::make_unique<EngineActivations>(source, request.jobs, request.memory_limit);
  };
  trial->activations_ = activations(*trial->data_);
  trial->compared_ = activations(trial->eval_ ? *trial->eval_ : *trial->data_);
  trial->context.jobs = request.jobs;
  trial->context.memory_limit = request.memory_limit;
  trial->context.activations = trial->activations_.get();
  trial->context.runner = &trial->runner_;
  trial->model = std::move(loaded.model);
  OP_TRY(request.pipeline.run(trial->model, trial->context, {}, nullptr));
  return trial;
}

Activations& Trial::compared() { return *compared_; }

std::string Trial::samples() const {
  return data_->description() + (eval_ ? "; compared on " + eval_->description() : "");
}

std::string Trial::digest() const {
  const auto text = [](const SampleSource& source) {
    return source.digest() + " " + std::to_string(source.size()) + " " + source.formula();
  };
  return Hasher().add(text(*data_) + "\n" + (eval_ ? text(*eval_) : "")).hex();
}

}  // namespace onnxpress
