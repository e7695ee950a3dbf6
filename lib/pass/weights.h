// What passes that change weights ask before they do.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ir/model.h"

namespace onnxpress {

inline constexpr std::string_view kWeightNotConstant = "its weight is not a constant";

// Why this input of the node is no constant weight: it is also a graph input, or kWeightNotConstant.
std::string not_constant_reason(const Node& node, std::size_t slot);

// Why the weight must stay as it is although `readers` could take another: it is a graph output, or something else
// reads it as well (another slot of the same node counts). "" when nothing is in the way.
std::string foreign_reader(const Graph& scope, std::string_view weight, std::span<const Use> readers);

// Bytes of all initializers, bodies included.
std::uint64_t weight_bytes(const Model& model);

}  // namespace onnxpress
