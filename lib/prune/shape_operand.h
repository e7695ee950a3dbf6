// Where the numbers of a shape come from that a node reads: Reshape, Expand, ConstantOfShape, Resize.
#pragma once

#include <cstddef>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

enum class ShapeSource {
  literal,   // a constant, by itself or in a Concat: can be rewritten
  followed,  // computed from Shape(): follows by itself
  unknown,   // anything else
};

// One entry per number of input `slot`; empty when not even their count is known.
std::vector<ShapeSource> shape_sources(const Node& node, std::size_t slot);

}  // namespace onnxpress
