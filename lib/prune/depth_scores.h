// What speaks for and against taking a block out of a network, measured on samples.
#pragma once

#include <any>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "pass/pass.h"

namespace onnxpress {

// Block influence: the mean of 1 - cos(a, b) over rows, with a in front of the block and b behind it. Rows are the last
// axis, or axis 1 when `channels_first` (convolutions). Rows that are zero or not finite are left out.
// Source: Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect" (arXiv
// 2403.03853).
class Influence : public PairAccumulator {
 public:
  explicit Influence(bool channels_first) : channels_first_(channels_first) {}
  std::any reduce(const TensorView& a, const TensorView& b) const override;
  void merge(std::any partial) override;
  double value() const { return rows_ == 0 ? 0 : sum_ / static_cast<double>(rows_); }
  bool same_shape() const { return same_shape_; }  // in every sample

 private:
  bool channels_first_;
  bool same_shape_ = true;
  double sum_ = 0;
  std::uint64_t rows_ = 0;
};

// Mean negative log-likelihood of each next token in nats, from tokens [N, S] and logits [N, S, V].
class NextTokenLoss : public PairAccumulator {
 public:
  std::any reduce(const TensorView& tokens, const TensorView& logits) const override;
  void merge(std::any partial) override;
  double value() const;  // infinity without tokens, with other shapes, or with tokens that have no logit

 private:
  double sum_ = 0;
  std::uint64_t tokens_ = 0;
};

// Over the samples' own tokens: "input_ids", else the first input of integers [N, S]. Padding counts like text. Errors:
// those of Activations, unsupported when `original` has no such input or no output of logits [N, S, V].
Result<double> next_token_loss(const Model& original, const Model& changed, Activations& activations);

}  // namespace onnxpress
