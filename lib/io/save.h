// Writing models: an output appears whole or not at all.
#pragma once

#include <filesystem>
#include <string>

#include "ir/model.h"

namespace onnxpress {

struct SaveOptions {
  bool overwrite = false;
  // Where large tensors go. automatic: external when the input was external or the total exceeds 1.9 GiB.
  enum class Data { automatic, embedded, external };
  Data data = Data::automatic;
  std::uint64_t alignment = 4096;  // of each tensor in the external file
};

struct SavedFiles {
  std::uint64_t model_bytes = 0;
  std::uint64_t data_bytes = 0;  // 0 when everything is embedded
  std::filesystem::path data_path;
  std::string hash;  // XXH3-128 of the model file (it names the data file by its content)
};

// Writes PATH ("-" is stdout, embedded only; a name ending in .onnxtxt is written as ONNX text). External data goes to
// "<stem>-<hash>.data" beside it, made durable before the model that refers to it is renamed into place; a kill at any
// moment leaves the old pair or the new one. Serialization is canonical (protobuf field order): an untouched model
// whose file was canonical is re-saved byte for byte. Errors: usage when PATH exists and overwrite is off, io.
Result<SavedFiles> save_model(const Model& model, const std::string& path, const SaveOptions& options = {});
// The canonical embedded form in memory (tests, stdout).
Result<std::string> serialize_model(const Model& model);
// Size of the embedded form without writing it.
Result<std::uint64_t> serialized_size(const Model& model);

}  // namespace onnxpress
