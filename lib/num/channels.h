// Weights of linear ops seen by channel, and tensors as doubles: what passes that move a per-channel factor or shift
// from one op into another compute with.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "base/result.h"
#include "num/tensor.h"

namespace onnxpress {

// A weight as [rows, cols, inner], row-major. A row is a channel of one side; with groups, column c of a row in group g
// is channel g * cols + c of the other side. In these terms
//   Conv [M, C/g, k...]           rows M are outputs, g groups          ConvTranspose [C, M/g, k...]   rows C are
//   inputs Gemm and MatMul [K, N]        rows K are inputs                     Gemm with transB [N, K]        rows N
//   are outputs
struct ChannelLayout {
  std::size_t rows = 0, cols = 0, inner = 1, groups = 1;  // rows is a multiple of groups
  bool rows_are_outputs = true;

  std::size_t outputs() const { return rows_are_outputs ? rows : cols * groups; }
  std::size_t inputs() const { return rows_are_outputs ? cols * groups : rows; }
  // fn(flat index of the first of `inner` elements, output channel, input channel), in memory order.
  void each(const auto& fn) const {
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t first = row / (rows / groups) * cols;
      for (std::size_t col = 0; col < cols; ++col) {
        const std::size_t at = (row * cols + col) * inner;
        rows_are_outputs ? fn(at, row, first + col) : fn(at, first + col, row);
      }
    }
  }
};

// W[o,i] *= factor[o].
void scale_outputs(std::vector<double>& weight, const ChannelLayout& layout, const std::vector<double>& factor);
// W[o,i] *= factor[i].
void scale_inputs(std::vector<double>& weight, const ChannelLayout& layout, const std::vector<double>& factor);
// sum over i and the inner elements of W[o,i] * input[i]: what a constant input adds to every output channel.
std::vector<double> apply_to_constant(const std::vector<double>& weight, const ChannelLayout& layout,
                                      const std::vector<double>& input);

// Any float or integer tensor as doubles; f64 exactly.
Result<std::vector<double>> to_doubles(const TensorView& view);
// f16, bf16, f32 or f64. nullopt when a value is not finite, or rounds to infinity in `dtype`.
Result<std::optional<Tensor>> from_doubles(const std::vector<double>& values, DType dtype, Dims dims);

}  // namespace onnxpress
