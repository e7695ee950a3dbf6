// Accuracy of one model, or of two on the same batches.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/source.h"
#include "eval/metrics.h"
#include "ir/model.h"

namespace onnxpress {

struct EvalOptions {
  // automatic: top1 when there are labels and a class output [N, C]; else (compare only) agreement when there is a
  // class output, or an output [N, S, C] beside tokens [N, S]; else sqnr. Agreement at the positions of any output
  // [N, S, C] (detectors) and perplexity are computed only when asked for: that positions carry classes, or that the
  // next token is what a model predicts, cannot be seen from shapes.
  Metric metric = Metric::automatic;
  unsigned jobs = 0;  // batches side by side, each in one thread; 0 = all cores
};

// One metric of one model.
struct Score {
  Metric metric = Metric::top1;
  std::string output;       // the model output it was taken from
  double value = 0;         // in metric_unit()
  std::uint64_t count = 0;  // rows or tokens it is the mean of
};

// One metric of both models.
struct ScorePair {
  Metric metric = Metric::top1;
  std::string output;
  double before = 0, after = 0;
  std::optional<double> drop;  // metric_drop(): positive is worse
  std::uint64_t count = 0;
};

// A model output against a reference: the other model's, or the expected one that came with the data.
struct OutputCloseness {
  std::string output;
  Closeness closeness;
};

// Result for one model.
struct Evaluation {
  Metric metric = Metric::sqnr;  // the resolved one; scores.front() when it is not sqnr
  std::size_t samples = 0;
  std::vector<Score> scores;              // what was asked for first
  std::vector<OutputCloseness> expected;  // against Batch::expected; empty when the data has none
  std::vector<std::string> warnings;      // NaN outputs and the like
};

// Result for two models.
struct Comparison {
  Metric metric = Metric::sqnr;
  std::size_t samples = 0;
  std::vector<ScorePair> scores;         // what was asked for first
  std::vector<OutputCloseness> outputs;  // after against before
  std::vector<OutputCloseness> expected_before, expected_after;
  std::vector<std::string> warnings;

  const ScorePair* headline() const;         // the pair of `metric`; null when there is none
  std::optional<double> worst_sqnr() const;  // of `outputs`; NaN when an output is broken
};

// Runs the model over the source (rewound first), batches side by side through run_ordered with one thread each: the
// numbers do not depend on `jobs`, memory does not depend on the number of samples.
// Errors: usage (a metric the data or the model cannot give: no labels, no [N, C] output, no [N, S, V] output for
// perplexity, nothing to measure at all), bad_input (label or token out of range, empty source), engine.
Result<Evaluation> evaluate(const Model& model, SampleSource& source, const EvalOptions& options = {});

// The same for two models with the same inputs; outputs are paired by name. An output only one of them has is
// warned of; error bad_input when they share none.
Result<Comparison> compare(const Model& before, const Model& after, SampleSource& source,
                           const EvalOptions& options = {});

}  // namespace onnxpress
