// Makes a network narrower: cuts constants along the axes that lost something, and rewrites the literals that name
// sizes (Reshape, Split, Slice, Gather, Expand, Tile, Pad, Resize, group, hidden_size, num_heads, num_groups, ...).
#pragma once

#include "base/result.h"
#include "depend/axes.h"
#include "ir/model.h"

namespace onnxpress {

// `kept` is as kept_axes() gives it for this scope. A constant whose readers all keep the same is cut in place; readers
// that keep something else get a cut copy of their own. Weights are cut in parallel, at most 2 x jobs in memory. Types
// that no longer hold are dropped. True when anything changed.
// Errors: unsupported names the node whose literal cannot express what is left; the model is then as before.
Result<bool> remove_units(Model& model, Graph& graph, const KeptAxes& kept, unsigned jobs);

}  // namespace onnxpress
