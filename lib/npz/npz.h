// The .npz container: a zip archive with one .npy array a key, stored or deflated, zip64 included.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "npz/npy.h"

namespace onnxpress {

class NpzFile {
 public:
  // Errors: io; bad_input for a damaged archive, an entry that is no .npy, the same key twice.
  static Result<NpzFile> open(const std::filesystem::path& path);

  const std::vector<std::string>& keys() const { return keys_; }  // in the archive's order, without ".npy"
  bool has(const std::string& key) const;
  // Its own stream: arrays opened at the same time are read independently of each other, so none has to be held
  // whole. No more bytes are ever unpacked than the array's shape asks for. Errors: io; bad_input for encryption,
  // another compression method, a size that no deflate stream of that length can have, or a bad array.
  Result<NpyReader> array(const std::string& key) const;

 private:
  struct Archive;
  NpzFile() = default;
  std::shared_ptr<Archive> archive_;
  std::string name_;
  std::vector<std::string> keys_;
  std::vector<std::uint64_t> indices_;
};

}  // namespace onnxpress
