// Edits that several passes share, on top of Rewriter.
#pragma once

#include <functional>
#include <string_view>

#include "ir/model.h"
#include "ir/rewriter.h"

namespace onnxpress {

// Whether the constant `value` is made in `graph` itself (initializer or Constant node), is neither an input nor an
// output, and every use of it satisfies `by`: it may then be changed or removed together with these uses.
bool is_private_constant(const Graph& graph, std::string_view value, const std::function<bool(const Use&)>& by);

// Removes the initializer or the Constant node behind a private constant of the rewriter's graph.
void drop_constant(Rewriter& rewriter, const Graph& graph, std::string_view value);

// Gives input `slot` of `reader` (a node of the rewriter's graph, which must be able to hold initializers) the constant
// `value`: under the old name when the reader alone reads the old constant, else as a new initializer named after it,
// or after `fresh_name` when there was none.
void set_constant(Rewriter& rewriter, const Node& reader, std::size_t slot, Tensor value, std::string_view fresh_name);

}  // namespace onnxpress
