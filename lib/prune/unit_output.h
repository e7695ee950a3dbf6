// criterion=activation for units of several channels, attention heads above all: what a unit adds to the output of the
// layer that reads it. Its channels are correlated and read by different columns, so that the product of their norms
// (unit_scores.h), right for one channel, says little of a head.
//
//   y = sum over units u of  W_u x_u        score(u) = sqrt(E ||W_u x_u||^2) = sqrt(tr(W_u G_uu W_u^T)),  G_uu = E[x_u
//   x_u^T]
//
// W_u are the columns of the reader (W_O of attention) that belong to u. Without gradients the nearest thing to the
// importance of Michel et al., "Are Sixteen Heads Really Better than One?" (arXiv 1905.10650).
#pragma once

#include <any>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "depend/axes.h"
#include "pass/pass.h"
#include "prune/unit_scores.h"

namespace onnxpress {

// Whether `weight` of these dims is what a MatMul or Gemm multiplies the last axis of its first input with, and its
// axis the one that is summed over.
bool reads_channels(const Node& node, const GroupMember& weight, const Dims& dims);

// Second moments of the channels of each unit along the last axis of a value.
class UnitMoments : public Accumulator {
 public:
  // `indices` [units, per_unit]
  UnitMoments(Indices indices, std::size_t per_unit) : indices_(std::move(indices)), per_unit_(per_unit) {}
  std::any reduce(const TensorView& value) const override;
  void merge(std::any partial) override;
  std::uint64_t bytes() const override { return 2 * sizeof(double) * indices_.size() * per_unit_; }

  std::size_t units() const { return indices_.size() / per_unit_; }
  std::uint64_t rows() const { return rows_; }  // without those that hold NaN or infinity
  // sum x_u x_u^T [per_unit, per_unit]; of a symmetric matrix the upper triangle
  std::span<const double> of(std::size_t unit) const;
  const std::string& trouble() const { return trouble_; }

 private:
  Indices indices_;
  std::size_t per_unit_;
  std::uint64_t rows_ = 0;
  std::vector<double> sums_;  // [units, per_unit, per_unit]
  std::string trouble_;
};

// sqrt(tr(W_u G_uu W_u^T)) of each unit; `weight` [per unit as in the moments: units * per_unit rows, outputs].
std::vector<double> unit_outputs(const UnitMoments& moments, std::span<const double> weight, std::size_t outputs);

// Puts these scores in place of `scores` for the groups of the request whose units have several channels that a MatMul
// or a Gemm reads. One pass over the samples, none when there is no such group.
Result<std::vector<UnitScores>> wide_activation_scores(const ScoreRequest& request, PassContext& context,
                                                       std::vector<UnitScores> scores);

}  // namespace onnxpress
