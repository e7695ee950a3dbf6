// A part of a graph as a model of its own, to run it alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "ir/model.h"
#include "num/tensor.h"

namespace onnxpress {

struct Part {
  std::vector<Node> nodes;           // of one scope, in topological order, none with a body
  std::vector<NamedTensor> given;    // values handed in instead of computed
  std::vector<std::string> outputs;  // what the model returns, in this order
};

// The model has no inputs: whatever the nodes read is made by one of them, given, or constant in `graph`
// (Graph::is_constant, asserted). It imports the same opsets and reads its initializers from the same TensorStore.
Model extract(const Graph& graph, const Part& part);

// As much of the main graph as `values` depend on, with all inputs of the model and `values` as its outputs: what to run
// when nothing behind them is wanted. Shares the TensorStore. Asserts that the main graph defines them.
Model extract_prefix(const Model& model, std::span<const std::string> values);

}  // namespace onnxpress
