// Internal to lib/engine: a model in the form the runtime is given it, from bytes in memory, never from a path.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/session.h"
#include "ir/model.h"

namespace onnxpress {

// How stored initializers of the main graph reach the runtime without being serialized.
enum class Handover {
  // The proto names the address of the bytes, in the form the runtime itself uses for tensors its optimizers make.
  // Nothing is copied. The form is private to the runtime, so it is used with the version it was verified with.
  address,
  // AddExternalInitializers. Zero-copy from 1.22 on; ONNX Runtime 1.21 keeps a copy of its own.
  inject,
};
Handover handover_for(std::string_view runtime_version);

struct OrtModel {
  std::string proto;                 // serialized
  std::vector<NamedTensor> weights;  // left out of `proto`; must live as long as the session
};

// The model with the taps as further outputs and options.initializers_as_inputs as inputs. Errors: bad_input for
// names that do not exist or are no tensors, resource beyond the 2 GB a serialized model can have.
Result<OrtModel> make_ort_model(const Model& model, const SessionOptions& options, Handover handover);

// Op types of a serialized model: main graph, bodies and functions.
Result<std::map<std::string, std::size_t>> count_ops(std::span<const std::byte> serialized);

}  // namespace onnxpress
