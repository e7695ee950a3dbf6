// Activations as rows of numbers: what a linear layer reads, and what it gives, at a few positions of every sample.
#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress {

// How a Conv, Gemm or MatMul with a weight as its second operand reads its input: as rows of `length` numbers for each
// of `groups`, one row per output position. For a Conv a row is the patch under the kernel, [channels of the group,
// kernel...] as the weight has it, with zeros where it is padded.
struct PatchShape {
  std::size_t groups = 1, length = 0;
  std::size_t outputs = 0;                                                         // output channels, all groups
  std::vector<std::int64_t> kernel = {}, strides = {}, pads = {}, dilations = {};  // empty: rows of the last axis
  std::string auto_pad = {};

  bool is_conv() const { return !kernel.empty(); }
  std::size_t outputs_per_group() const { return outputs / groups; }
};
// Of a node whose weight has these dims. Asserts that it is one of the three ops, without transA.
PatchShape patch_shape(const Node& node, std::span<const std::int64_t> weight_dims);

// The rows of one batch, sample after sample.
struct Rows {
  std::size_t samples = 0, per_sample = 0, width = 0;
  std::size_t available = 0;       // positions that a sample has; per_sample of them are here
  std::vector<float> values = {};  // [samples, per_sample, width]
  std::string trouble = {};        // why there are none
};

// `count` of `total` positions in ascending order; all of them when there are no more. A smaller count with the same
// total and seed gives a subset.
std::vector<std::size_t> choose_positions(std::size_t total, std::size_t count, std::uint64_t seed);

// What the layer reads at `positions` of its output positions per sample, [groups * length] wide.
Rows patch_rows(const PatchShape& shape, const TensorView& x, std::size_t positions, std::uint64_t seed);
// The channels along `axis` (1, or -1 for the last) at positions of all axes between the first, which counts samples,
// and the last; only `channels` of them, all when that is empty.
Rows channel_rows(std::int64_t axis, const TensorView& y, std::size_t positions, std::uint64_t seed,
                  std::span<const std::uint32_t> channels = {});

// Of the calibration samples every fifth is held out: what is fitted to the others is judged by it.
inline constexpr std::uint64_t kHoldOut = 5;
inline bool held_out(std::uint64_t sample) { return sample % kHoldOut == kHoldOut - 1; }

// Keeps the rows of all samples, in their order.
class RowsAccumulator : public Accumulator {
 public:
  // What cuts a tensor into rows.
  explicit RowsAccumulator(std::function<Rows(const TensorView&)> cut) : cut_(std::move(cut)) {}
  std::any reduce(const TensorView& value) const override { return cut_(value); }
  void merge(std::any partial) override;
  std::uint64_t bytes() const override { return values_.size() * sizeof(float); }

  struct Sample {
    std::size_t first = 0, rows = 0;  // rows
    std::size_t available = 0;        // Rows::available
  };
  const std::vector<Sample>& samples() const { return samples_; }
  std::size_t width() const { return width_; }
  std::span<const float> row(std::size_t index) const { return std::span(values_).subspan(index * width_, width_); }
  const std::string& trouble() const { return trouble_; }

 private:
  std::function<Rows(const TensorView&)> cut_;
  std::vector<Sample> samples_;
  std::size_t width_ = 0;
  std::vector<float> values_;
  std::string trouble_;
};

}  // namespace onnxpress
