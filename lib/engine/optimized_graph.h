// The graph ONNX Runtime really executes after its own optimizations, node by node.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "num/tensor.h"

namespace onnxpress {

struct OptimizedNode {
  std::string name = {}, op = {}, domain = {};  // domain "" for ai.onnx
  std::vector<std::string> inputs = {}, outputs = {};
  std::vector<DType> output_types = {};  // one per output; undefined where the runtime did not write it down
  // The model's node of which this one carries the name: its number when all nodes are counted in the order of
  // Model::graphs() and Graph::nodes(). Empty for nodes the runtime added or made of several.
  std::optional<std::size_t> origin = {};
  bool copy = false;  // a duplicate the runtime made of `origin`
};

struct OptimizedGraphOptions {
  bool extended = true;  // stops before hardware layouts (NCHWc); false: everything the runtime does
  // The runtime's session.qdqisint8allowed: whether int8 activations fuse. Its own default: no on x86, yes on Arm.
  std::optional<bool> int8_activations = {};
};

// Nodes of the main graph, then of bodies and functions that are left. Errors: engine (the runtime's message),
// resource.
Result<std::vector<OptimizedNode>> optimized_nodes(const Model& model, const OptimizedGraphOptions& options = {});

// The optimized graph as a serialized model. `options` as above.
Result<std::vector<std::byte>> optimized_graph(const Model& model, const OptimizedGraphOptions& options);

}  // namespace onnxpress
