// A copy of a model to try something on.
#pragma once

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

// Like Model::clone(), but with a tensor store of its own: what is written to the copy goes away with it. (Clones share
// one store, where everything ever written stays.) The payloads are copied, so it holds the model's bytes once more.
// Error: io.
Result<Model> fork_model(const Model& model);

// The scope of a copy that stands where `graph` stands in its own model.
Graph& scope_in(const Model& copy, const Graph& graph);

}  // namespace onnxpress
