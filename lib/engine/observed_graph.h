// Internal to lib/engine: the copy of a model that runs only to have some of its values looked at.
//
//   x -> Conv -> c -> Relu -> r -> Gemm -> y        watching r:        x -> Conv -> c -> Relu -> r -> Observe
#pragma once

#include <onnx/onnx_pb.h>

#include <span>

#include "base/result.h"
#include "engine/session.h"
#include "ir/model.h"

namespace onnxpress {

inline constexpr const char* kObserveDomain = "onnxpress.engine";
inline constexpr const char* kObserveOp = "Observe";
inline constexpr const char* kObserveIndex = "index";  // attribute: position in the list of observed values

// Gives each value an observing node in its scope and takes away what none of them needs: outputs, nodes and
// initializers of the main graph. Bodies stay whole. `copy` is a copy of `model`'s proto. The one output that is left
// is a constant, because the runtime refuses to run for none. Errors: bad_input for values that do not exist or are no
// tensors, unsupported for values of model-local functions.
//
// The runtime executes by depth-first search from the nodes nobody reads, the last in the file first. So the observing
// nodes stand at the end, the one of the latest value first: then each runs as soon as its value is there, and the
// value can be freed. With outputs instead (or any other order) all of them would be kept until the end of the run.
Status observe_values(onnx::ModelProto& copy, const Model& model, std::span<const ObservedValue> values);

}  // namespace onnxpress
