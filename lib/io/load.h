// Reading models: limits, checks, weights stay on disk until asked for.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

struct LoadOptions {
  std::uint64_t max_memory = 0;  // bytes the parsed structure may take; 0 = half of the machine's memory
  std::vector<std::filesystem::path> data_roots = {};  // further folders external data may live in
};

// Loads PATH: binary ONNX, or ONNX text when the name ends in .onnxtxt; "-" is stdin (binary).
// Every declared size is checked against the bytes present before anything is read. Errors: io, bad_input, resource.
Result<Model> load_model(const std::string& path, const LoadOptions& options = {});
// From memory; `name` is for messages. External data is refused.
Result<Model> load_model_bytes(std::span<const std::byte> bytes, const std::string& name,
                               const LoadOptions& options = {});

// A serialized TensorProto (test_data_set_N/input_K.pb) as a named dense tensor.
Result<NamedTensor> load_tensor_pb(const std::filesystem::path& path);

}  // namespace onnxpress
