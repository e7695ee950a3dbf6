// Sizes of axes beyond what the shape inference of onnx finds: it gives up on operators of other domains, on operators
// before opset 7, and on all axes of a Slice, Expand or Reshape when one of them is computed. Here every axis is
// followed by itself, and with it the integers of small tensors, which are sizes more often than not:
//
//   Reshape(x [N, 768], Concat(Gather(Shape(x), 0), [12], [64]))      is [N, 12, 64]
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

using SizeList = std::optional<std::vector<Dim>>;  // none: not even how many

class Sizes {
 public:
  explicit Sizes(const Graph& graph);

  // Of a value or constant seen from this scope.
  SizeList shape(std::string_view value) const;
  // The integers it holds, of rank 0 or 1: constants, or sizes by symbol.
  SizeList integers(std::string_view value) const;

 private:
  void visit(const Node& node);
  void learn(std::string_view value, const SizeList& shape);

  const Graph& graph_;
  std::unordered_map<std::string, SizeList> shapes_;
  std::unordered_map<std::string, SizeList> integers_;
};

// What is found of output `slot`; sizes_ops.cc.
SizeList output_shape(const Sizes& sizes, const Node& node, std::size_t slot);
// The integers output 0 holds; sizes_integers.cc.
SizeList output_integers(const Sizes& sizes, const Node& node);

// Right-aligned, with axes of 1 repeated.
SizeList broadcast_sizes(const SizeList& a, const SizeList& b);

}  // namespace onnxpress
