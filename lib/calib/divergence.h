// How far the outputs of a changed model are from those of the original, over the calibration samples: what a removal
// costs when nobody has labels.
#pragma once

#include <any>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "pass/pass.h"

namespace onnxpress {

// The mean Kullback-Leibler divergence KL(softmax(a) || softmax(b)) over all rows of scores (the last axis, or axis 1
// of [N, C, 1, 1]), in nats; when `scores` is false the relative squared error sum (a - b)^2 / sum a^2 instead.
class OutputDivergence : public PairAccumulator {
 public:
  explicit OutputDivergence(bool scores) : scores_(scores) {}
  std::any reduce(const TensorView& a, const TensorView& b) const override;
  void merge(std::any partial) override;
  double value() const;  // 0 without rows; infinity when b is not finite where a is
  std::uint64_t rows() const { return rows_; }

 private:
  bool scores_;
  double sum_ = 0, power_ = 0;
  std::uint64_t rows_ = 0;
};

// The mean over the outputs of the model that have numbers to compare. `changed` has the same outputs as `original`.
// Calls in a row with one original are cheap. Errors: those of Activations, unsupported when no output is a float.
Result<double> output_divergence(const Model& original, const Model& changed, Activations& activations);

}  // namespace onnxpress
