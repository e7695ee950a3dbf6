// Float weights to integer codes: the step both quantization passes run in parallel, one tensor at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "num/tensor.h"

namespace onnxpress {

// How far a scale reaches.
enum class WeightClip {
  minmax,  // to the largest weight
  mse,     // as far as makes the squared rounding error of the weights smallest
};

// A constant float weight and how to quantize it.
struct WeightJob {
  Graph* reader = nullptr;        // a scope the weight can be read from
  std::string name = {};          // of the float constant
  DType dtype = DType::i8;        // i8, i4: zero point 0; u8: 128; u4: 8 (when symmetric)
  std::int64_t channel_axis = 0;  // of the output channels
  bool per_channel = true;        // one scale per output channel, or one for the tensor
  bool symmetric = true;          // else the zero point follows the range of the weights
  // That many neighbours along the reduction share a scale (matrices only; implies per_channel). 0: all of a channel.
  std::int64_t block = 0;
  WeightClip clip = WeightClip::minmax;
  // Keep every pair of neighbouring products clear of 16-bit saturation: scales of channels where one could reach it
  // are raised (Target::ort_x86). Pairs run along the reduction as the runtime packs it: input rows of a matrix; input
  // channels, then kernel positions of a convolution.
  bool avoid_saturation = false;
  Dims view = {};  // shape to see the weight in (same element count); none: its own
  // Codes are stored transposed: the view [blocks * rows, cols] becomes [cols, rows], or [blocks, cols, rows] when
  // there are several blocks (directions of an LSTM). channel_axis counts before that.
  bool transpose = false;
  std::int64_t blocks = 1;
  float factor = 1;                      // multiplied into the weight first (alpha of a Gemm)
  std::vector<double> least_scale = {};  // per channel: scales are raised to it (int32 bias overflow guard)

  std::optional<std::int64_t> axis() const { return per_channel ? std::optional(channel_axis) : std::nullopt; }
};

struct QuantizedWeight {
  Tensor codes;  // of the job's dtype; two 4-bit codes a byte
  // One per channel, or one, or in blocks, in the order of block_dims. A channel of zeros has the finest of the others.
  std::vector<float> scales;
  std::vector<std::int32_t> zero_points;  // one per scale; all `zero_point` when symmetric
  std::int32_t zero_point = 0;
  Dims block_dims = {};    // of the scales of a job with blocks: those of the codes, the reduction divided by the block
  std::size_t raised = 0;  // channels whose scale was raised to stay clear of saturation
  float sqnr_db = 0;       // of the codes against the float weight; +inf when exact

  Tensor scale_tensor(bool per_channel) const;       // [channels], or a scalar; with blocks, block_dims
  Tensor zero_point_tensor(bool per_channel) const;  // same shape, in the type of the codes
};

// Reads the weight, quantizes it, lets it go. Errors: bad_input (NaN or infinity in it), io.
Result<QuantizedWeight> quantize_weight(const WeightJob& job);

// Bytes the job holds at its peak, for bounding what runs in parallel.
std::uint64_t peak_bytes(const WeightJob& job);

}  // namespace onnxpress
