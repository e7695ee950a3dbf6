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

// A constant float weight and how to quantize it. Symmetric, min-max.
struct WeightJob {
  Graph* reader = nullptr;        // a scope the weight can be read from
  std::string name = {};          // of the float constant
  DType dtype = DType::i8;        // i8: zero point 0; u8: zero point 128
  std::int64_t channel_axis = 0;  // of the output channels
  bool per_channel = true;        // one scale per output channel, or one for the tensor
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
  Tensor codes;
  std::vector<float> scales;  // one per channel, or one; a channel of zeros has the finest of the others
  std::int32_t zero_point = 0;
  std::size_t raised = 0;  // channels whose scale was raised to stay clear of saturation
  float sqnr_db = 0;       // of the codes against the float weight; +inf when exact

  Tensor scale_tensor(bool per_channel) const;       // [channels], or a scalar
  Tensor zero_point_tensor(bool per_channel) const;  // same shape
};

// Reads the weight, quantizes it, lets it go. Errors: bad_input (NaN or infinity in it), io.
Result<QuantizedWeight> quantize_weight(const WeightJob& job);

// Bytes the job holds at its peak, for bounding what runs in parallel.
std::uint64_t peak_bytes(const WeightJob& job);

}  // namespace onnxpress
