// The rows of a regression put side by side, and their second moments.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "calib/gram.h"
#include "repair/reconstruct.h"

namespace onnxpress {

// The rows in which every number is finite: those of samples to fit to, then those of samples held out.
class FitRows {
 public:
  // Errors: unsupported when the samples do not match, or when there are no rows of one kind.
  static Result<FitRows> make(const Regression& regression);

  std::size_t count() const { return input_rows_.size(); }
  std::size_t fitted() const { return fitted_; }  // the first so many
  bool clips() const { return !regression_->low.empty(); }
  const PatchShape& shape() const { return regression_->shape; }
  std::span<const float> input(std::size_t row) const { return regression_->input->row(input_rows_[row]); }

  // What the layer itself should give, [count, outputs]: t - s.
  std::vector<float> targets() const;
  // The same, moved to where the clipping cannot tell the difference from the layer with these weights.
  std::vector<float> clipped_targets(const LinearWeights& weights, unsigned jobs) const;
  // Squared error of c(W x + b + s) over the power of c(t), on rows [begin, end).
  double error(const LinearWeights& weights, std::size_t begin, std::size_t end, unsigned jobs) const;

 private:
  double shift(std::size_t index) const { return shift_.empty() ? 0 : static_cast<double>(shift_[index]); }
  double clip(double value, std::size_t channel) const;
  // W x + b of rows [begin, end), [rows, outputs].
  std::vector<double> predict(const LinearWeights& weights, std::size_t begin, std::size_t end) const;

  const Regression* regression_ = nullptr;
  std::vector<std::size_t> input_rows_;
  std::vector<float> total_, shift_;  // t and s, [count, outputs]
  std::size_t fitted_ = 0;
};

// Of rows [begin, end) with `targets` [count, outputs]. Without `with_xx` the moments of x alone are left 0. The split
// of the work does not depend on `jobs`.
Gram moments(const FitRows& rows, const std::vector<float>& targets, std::size_t begin, std::size_t end, bool with_xx,
             unsigned jobs);

}  // namespace onnxpress
