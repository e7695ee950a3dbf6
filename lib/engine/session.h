// Running models. ONNX Runtime behind an interface of bytes in, tensors out; no runtime type is named here.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "num/value_type.h"
#include "pass/pass.h"

namespace onnxpress {

// A value as seen from a scope that may read it: the main graph (null), or a body of If, Loop or Scan at any depth.
struct ObservedValue {
  std::string value;
  const Graph* scope = nullptr;
};
// Gets the `index`th observed value when it has been computed. Called by the thread of the run; an error ends the run.
using Observer = std::function<Status(std::size_t index, const TensorView& value)>;

struct SessionOptions {
  unsigned threads = 1;                                  // of one run; the result of a run does not depend on it
  bool optimize = true;                                  // graph optimizations of the runtime
  std::vector<std::string> taps = {};                    // values of the main graph to return besides the outputs
  std::vector<std::string> initializers_as_inputs = {};  // fed at every run instead of taken from the model
  // Not empty: the session is for observe() and runs only what these values depend on, without the model's outputs.
  std::vector<ObservedValue> observe = {};
};

class Session {
 public:
  // Weights are handed over without a copy (AddExternalInitializers), so nothing over 2 GB is ever serialized.
  // The session keeps the bytes alive; the model may change or go. Errors: engine (the runtime's message), resource.
  static Result<std::unique_ptr<Session>> open(const Model& model, const SessionOptions& options = {});
  ~Session();

  const std::vector<ValueInfo>& inputs() const;   // what run() wants
  const std::vector<ValueInfo>& outputs() const;  // what run() gives: the model's outputs, then the taps
  // Thread-safe. `inputs` in any order, by name. Error bad_input when one is missing or has the wrong type or shape.
  Result<std::vector<Tensor>> run(std::span<const NamedTensor> inputs) const;
  // Thread-safe. Shows the values of SessionOptions::observe to `observer`, which holds on to none: the runtime frees
  // each as soon as it is no longer needed. What is in a Loop or Scan is shown as often as the body runs, what is in an
  // untaken branch not at all.
  Status observe(std::span<const NamedTensor> inputs, const Observer& observer) const;
  // Runs and discards the results; seconds of the run alone.
  Result<double> time(std::span<const NamedTensor> inputs) const;

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Op types of the graph the runtime really executes after its optimizations ("QLinearConv": 21), main graph and
// bodies; ops outside the default domain as "com.microsoft.QGemm". `extended` stops before hardware layouts (NCHWc).
Result<std::map<std::string, std::size_t>> optimized_ops(const Model& model, bool extended = true);

std::string runtime_version();  // "ONNX Runtime 1.21.0"

// Runs models for passes (fold-constants).
class EngineRunner : public Runner {
 public:
  Result<std::vector<Tensor>> run(const Model& model, std::span<const NamedTensor> inputs) override;
};

}  // namespace onnxpress
