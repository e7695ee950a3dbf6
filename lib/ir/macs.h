// Multiply-accumulates of a node, from inferred shapes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

// What the dims of a tensor that the node reads (or makes, `output`) would be after a change that is not made yet.
using ResizeDims = std::function<Dims(const Node& node, bool output, std::size_t slot, Dims dims)>;

// Outer empty: the op has no multiply-accumulates that count; inner empty: it has, but a shape is not known. Free
// dimensions (a symbol of a graph input, or an unknown first dimension) count as 1; their names are added to
// `free_dims`. Counted: Conv, ConvTranspose, Gemm, MatMul, Einsum of two operands, LSTM, GRU, RNN, their QLinear and
// Integer forms, and com.microsoft Fused*, Nhwc*, Q*, DynamicQuantize*, MatMulNBits forms of them, Attention,
// QAttention.
std::optional<std::optional<std::uint64_t>> node_macs(const Node& node, std::vector<std::string>* free_dims,
                                                      const ResizeDims& resize = {});

}  // namespace onnxpress
