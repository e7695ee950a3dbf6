// Where the numbers of a shape come from that a node reads: Reshape, Expand, ConstantOfShape, Resize.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

enum class ShapeSource {
  literal,   // a constant, by itself or in a Concat: can be rewritten
  followed,  // computed from Shape(): follows by itself
  unknown,   // anything else
};

// The value that holds the numbers of a shape, behind what exporters put in between: Identity, Reshape to one axis, and
// in front of an Expand the choice  Where(Equal(shape, -1), 1, shape), after which -1 stands for 1.
struct ShapeOrigin {
  std::string value;
  bool chosen = false;
};
ShapeOrigin shape_origin(const Graph& graph, std::string_view value);

// One entry per number of input `slot`; empty when not even their count is known.
std::vector<ShapeSource> shape_sources(const Node& node, std::size_t slot);

}  // namespace onnxpress
