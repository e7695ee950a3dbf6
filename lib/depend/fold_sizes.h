// Turns integers that are computed while the network runs, but known beforehand, into constants.
//
//   Slice(x, [0], Div(Gather(Shape(x), 1), 2), [1])   =>   Slice(x, [0], [32], [1])      when x is [N, 64, H, W]
//
// Exporters write such chains around Slice, Split and Reshape when only the batch is free. They would not survive a
// cut: half of what is left of 64 channels is not where the halves meet.
#pragma once

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

// Scopes that cannot hold initializers (functions) are left alone. True when something changed.
Result<bool> fold_known_sizes(Graph& graph);

}  // namespace onnxpress
