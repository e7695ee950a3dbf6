// What a pass is and everything it may use. A pass is immutable after construction and re-entrant: all state is in
// the Model and the PassContext.
#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "pass/journal.h"
#include "pass/options.h"
#include "pass/selector.h"

namespace onnxpress {

// Reduces a stream of tensors to something small. Results must not depend on thread count: reduce() runs in
// parallel on one sample each, merge() serially in sample order. A value in the body of a Loop or Scan is seen as often
// as the body runs, one in a branch of If when that branch is taken.
class Accumulator {
 public:
  virtual ~Accumulator() = default;
  virtual std::any reduce(const TensorView& value) const = 0;
  virtual void merge(std::any partial) = 0;
  // What it holds and one partial of it, as far as known: at the latest after the first merge. 0 = next to nothing.
  virtual std::uint64_t bytes() const { return 0; }
};

// A value, streamed into its accumulator.
struct Tap {
  std::string value;
  Accumulator* accumulator = nullptr;
  const Graph* scope = nullptr;  // that defines the value: null is the main graph, else a body of If, Loop or Scan
};

// Reduces a stream of pairs of tensors: one value of a model beside its counterpart in another model, for the same
// samples. The rules of Accumulator hold.
class PairAccumulator {
 public:
  virtual ~PairAccumulator() = default;
  virtual std::any reduce(const TensorView& a, const TensorView& b) const = 0;
  virtual void merge(std::any partial) = 0;
  virtual std::uint64_t bytes() const { return 0; }  // as of an Accumulator
};

struct PairTap {
  std::string a, b;  // values of the main graphs of the two models
  PairAccumulator* accumulator = nullptr;
};

// Runs models over the calibration samples. Memory is accumulators plus the batches in flight.
class Activations {
 public:
  virtual ~Activations() = default;
  virtual Status collect(const Model& model, std::span<const Tap> taps) = 0;
  virtual Status collect_pairs(const Model& a, const Model& b, std::span<const PairTap> taps);  // default: unsupported
  virtual Status probe(const Model& model, std::span<const Tap> taps);  // the first samples only; default: unsupported
  virtual std::string description() const = 0;  // for reports: "cifar10_train512.npz, 512 samples"
};

// Runs a (small) model once; how fold-constants evaluates nodes.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual Result<std::vector<Tensor>> run(const Model& model, std::span<const NamedTensor> inputs) = 0;
};

struct PassContext {
  unsigned jobs = 0;                    // 0 = all cores
  std::uint64_t seed = 0;
  std::uint64_t memory_limit = 0;       // bytes for accumulators and samples in flight; 0 = no limit
  Activations* activations = nullptr;   // null without --data
  Runner* runner = nullptr;             // null when built without an engine (tests of pure graph passes)
  // The model as it was before the first pass of the pipeline that quantizes: what repairs after it compare with.
  std::shared_ptr<const Model> reference = {};
  Journal journal;

  // Whether only=, skip= and on{} let the running pass touch this node. A refusal is journaled as skipped.
  bool selected(const Node& node);
  void done(const Node& node, std::string what) { journal.done(node, std::move(what)); }
  void skipped(const Node& node, std::string why) { journal.skipped(node, std::move(why)); }

  std::vector<const Selection*> selections;  // set by the pipeline
};

struct Outcome {
  bool changed = false;
};

class Pass {
 public:
  virtual ~Pass() = default;
  virtual Result<Outcome> run(Model& model, PassContext& context) const = 0;
};

// What is known of a pass without running it: the single source of help, docs, parser and contract tests.
struct PassInfo {
  std::string name = {};    // "quant-static"; set by the registry from the file name
  std::string summary;      // one line
  std::string description;  // paragraphs; before => after in ONNX terms, the formula, what it never touches
  std::string example;      // a pipeline, e.g. "quant-static{skip=op:Softmax}"
  std::vector<std::string> references = {};  // papers or specifications
  bool idempotent = true;   // running it again changes nothing
  bool lossy = false;       // outputs may differ beyond float rounding
  bool needs_data = false;  // fails without --data
  // Options that make the samples unnecessary although needs_data is set (null = none do).
  std::function<bool(const void* options)> spares_data = {};
  bool quantizes = false;   // turns weights or activations into integers: the model before it is kept as reference
  std::vector<Field> options = {};
  std::function<std::shared_ptr<void>()> make_options = {};
  std::function<std::unique_ptr<Pass>(const std::shared_ptr<void>& options)> make_pass = {};
};

// Completes the info of a pass class P with an Options struct: P(Options) constructs it, and
// static void describe(Schema<Options>&) lists the options.
template <class P, class Options>
PassInfo describe_pass(PassInfo info) {
  Schema<Options> schema;
  P::describe(schema);
  info.options = schema.take();
  info.make_options = [] { return std::make_shared<Options>(); };
  info.make_pass = [](const std::shared_ptr<void>& options) -> std::unique_ptr<Pass> {
    return std::make_unique<P>(*static_cast<const Options*>(options.get()));
  };
  return info;
}

// For passes without options of their own.
struct NoOptions {};
template <class P>
PassInfo describe_pass(PassInfo info) {
  info.make_options = [] { return std::make_shared<NoOptions>(); };
  info.make_pass = [](const std::shared_ptr<void>&) -> std::unique_ptr<Pass> { return std::make_unique<P>(); };
  return info;
}

// Every pass, sorted by name; generated by CMake from the file list of passes/ and linked from there.
// lib/ code never calls it: it is handed the span.
using Registry = std::span<const PassInfo>;

}  // namespace onnxpress
