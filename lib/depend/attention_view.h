// The fused attention operators of ONNX Runtime (com.microsoft): where heads lie on the axes of their operands. The
// dependency rules tie along these axes, and the patcher rewrites the attributes that count them.
//
//   MultiHeadAttention(query [B, S, H*d], key [B, L, H*d], value [B, L, H*e], bias [H*d + H*d + H*e], ...) -> [B, S,
//   H*e] GroupQueryAttention(query [B, S, H*d], key [B, L, K*d], value [B, L, K*d], ...) -> [B, S, H*d] Attention(x [B,
//   S, D], weights [D, H*d + H*d + H*e], bias [H*d + H*d + H*e], ...) -> [B, S, H*e]
//
// A unit is a key/value head with the H/K query heads that read it. Source: ContribOperators.md of ONNX Runtime 1.21.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

// A run of indices of one axis in which unit u owns [start + u * per_unit, start + (u + 1) * per_unit).
struct HeadRun {
  bool output = false;  // of the node, else an input
  std::size_t slot = 0;
  std::size_t axis = 0;
  std::int64_t start = 0;
  std::int64_t per_unit = 1;
  bool weight = false;  // columns of a weight that makes the heads
  bool bias = false;
};

struct AttentionView {
  std::int64_t units = 0, heads = 0;  // key/value heads, query heads
  std::vector<HeadRun> runs;          // the one of output 0 first
};

// Dims of an input or output; none when the rank is not known. Free dimensions are -1.
using OperandDims = std::function<std::optional<Dims>(bool output, std::size_t slot)>;

// Attention, MultiHeadAttention, GroupQueryAttention, or their packed or decoder form?
bool is_fused_attention(const Node& node);
// Of such a node. Error: unsupported when the shapes do not fit together or are not known.
Result<AttentionView> view_attention(const Node& node, const OperandDims& dims);

}  // namespace onnxpress
