// Second moments of the input and output of a linear layer: all that a quadratic error of its weights depends on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "calib/rows.h"
#include "pass/pass.h"

namespace onnxpress {

// Sums over rows: x is a patch, y the output that belongs to it.
struct Gram {
  PatchShape shape;
  std::uint64_t rows = 0;
  std::vector<double> xx;  // [groups, length, length]
  std::vector<double> yx;  // [outputs, length]
  std::vector<double> x;   // [groups, length]
  std::vector<double> y;   // [outputs]
  std::vector<double> yy;  // [outputs], squares

  explicit Gram(PatchShape shape);
  void add(const Gram& other);
  std::span<const double> xx_of(std::size_t group) const;
  std::span<const double> yx_of(std::size_t channel) const;
  std::span<const double> x_of(std::size_t group) const;
  // A copy of the moments of one group, of one channel; `centered`: about the means, for with a bias that takes care of
  // the mean only these count.
  std::vector<double> xx_copy(std::size_t group, bool centered) const;
  std::vector<double> yx_copy(std::size_t channel, bool centered) const;
  // The biases with which the mean error of weight x + bias over the rows is zero; `weight` is [outputs, length].
  std::vector<double> mean_bias(std::span<const double> weight) const;
};
std::uint64_t gram_bytes(const PatchShape& shape);

// Pairs of (output of the reference layer, input of the quantized layer). Of each sample at most `positions` output
// positions are used, the same ones in every sample, drawn with `seed`. Every fifth sample goes to held_out(), the
// others to fitted(). Rows with NaN or infinity are left out. Blocks of a fixed number of rows are summed in sample
// order, so that neither threads nor batches change a bit.
class GramAccumulator : public PairAccumulator {
 public:
  GramAccumulator(PatchShape shape, std::size_t positions, std::uint64_t seed);
  std::any reduce(const TensorView& y, const TensorView& x) const override;
  void merge(std::any partial) override;
  // After the last merge: adds what is still waiting. Why there is nothing to work with, or "".
  std::string finish();

  const Gram& fitted() const { return folds_[0].gram; }
  const Gram& held_out() const { return folds_[1].gram; }

 private:
  struct Fold {
    Gram gram;
    std::vector<double> x, y;  // rows that wait for their block to fill
    std::size_t waiting = 0;
  };
  void flush(Fold& fold) const;

  PatchShape shape_;
  std::size_t positions_;
  std::uint64_t seed_;
  std::uint64_t samples_ = 0;
  std::uint64_t non_finite_ = 0;
  std::string trouble_;
  std::vector<Fold> folds_;
};

}  // namespace onnxpress
