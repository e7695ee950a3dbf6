// Declared types of intermediate values (value_info) that a change of the graph has made untrue.
#pragma once

#include <map>
#include <string>

#include "ir/model.h"

namespace onnxpress {

// Sets single dims of declared shapes, by value and axis; values without a declared shape, and axes it lacks, are left
// out. Inputs and outputs of the graph keep theirs.
void set_declared_dims(Graph& graph, const std::map<std::string, std::map<std::size_t, std::int64_t>>& dims);

}  // namespace onnxpress
