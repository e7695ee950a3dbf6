// The prediction of fusions held against the graph the runtime really executes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/optimized_graph.h"
#include "quant/fusion.h"

namespace onnxpress {

struct FusionMiss {
  std::string node, op;  // label and type
  std::string predicted, actual;
};

struct FusionCheck {
  std::size_t nodes = 0, right = 0;                // all nodes of the model
  std::size_t quantized = 0, quantized_right = 0;  // Q, DQ, integer ops, and nodes that touch or become such
  std::vector<FusionMiss> misses;
  double share() const { return nodes == 0 ? 1 : static_cast<double>(right) / static_cast<double>(nodes); }
};

// A node counts as right when
//   integer   the runtime has a node of exactly the predicted kernel, under this node's name or with its output
//   absorbed  no node carries its name and nobody of its op makes its output
//   boundary  it (or a copy of it) is still there as QuantizeLinear or DequantizeLinear
//   floating  what carries its name or makes its output is no integer kernel; a node that can be part of one
//             (Relu, Clip, Cast, Mul) must not have vanished beside one
// `fates` are those of predict_fusion(), `runtime` the nodes of optimized_nodes() of the same model.
FusionCheck check_fusion(std::span<const NodeFate> fates, std::span<const OptimizedNode> runtime);

}  // namespace onnxpress
