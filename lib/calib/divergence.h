// How far the outputs of a changed model are from those of the original, over the calibration samples: what a removal
// costs when nobody has labels.
#pragma once

#include <any>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "pass/pass.h"

namespace onnxpress {

// What the numbers of an output are. Class scores are [N, C], [N, C, 1, 1, ...], or [N, S, C] of a model that reads
// integers [N, S] (tokens); probabilities when a Softmax makes them, else logits. Dims that are not known may be any.
enum class OutputKind { values, logits, probabilities };
OutputKind output_kind(const Graph& graph, const std::string& output);
// Whether an input of the graph is integers [N, S].
bool reads_tokens(const Graph& graph);
// Whether the value is a Softmax, seen through operators that only give it another shape.
bool is_probabilities(const Graph& graph, const std::string& output);

// log(softmax(scores)); of probabilities, their logarithms (those below 1e-7 count as that).
std::vector<double> log_probabilities(std::span<const float> scores, bool probabilities);
// In nats, from logarithms; never negative, infinity when it is no number.
double kl_divergence(std::span<const double> log_p, std::span<const double> log_q);

// The mean Kullback-Leibler divergence KL(softmax(a) || softmax(b)) over all rows of scores (the last axis, or axis 1
// of [N, C, 1, 1]), in nats; when `scores` is false, or there is only one class, the relative squared error
// sum (a - b)^2 / sum a^2 instead. Rows and elements where `a` is not finite are left out.
class OutputDivergence : public PairAccumulator {
 public:
  explicit OutputDivergence(bool scores, bool probabilities = false) : scores_(scores), probabilities_(probabilities) {}
  std::any reduce(const TensorView& a, const TensorView& b) const override;
  void merge(std::any partial) override;
  double value() const;  // 0 without rows; infinity when b is not finite where a is, or of another shape
  // The same over the samples that are held out (calib/rows.h). 0 when there are none.
  double held_out() const;
  std::uint64_t rows() const { return folds_[0].rows + folds_[1].rows; }

 private:
  struct Sums {
    double kl = 0, error = 0, power = 0;
    std::uint64_t rows = 0;
    void add(const Sums& other);
    double value() const;
  };
  Sums sums_of(std::span<const float> a, std::span<const float> b, std::size_t classes) const;

  bool scores_, probabilities_;
  std::array<Sums, 2> folds_;  // fitted, held out
  std::uint64_t samples_ = 0;
};

struct Divergence {
  double all = 0;
  double held_out = 0;
};

// The mean over the outputs with class scores, or over all outputs of floats when there are none. `changed` has the
// same outputs as `original`. Calls in a row with one original are cheap. Errors: those of Activations, unsupported
// when no output is a float.
Result<Divergence> measure_divergence(const Model& original, const Model& changed, Activations& activations);
Result<double> output_divergence(const Model& original, const Model& changed, Activations& activations);  // .all

}  // namespace onnxpress
