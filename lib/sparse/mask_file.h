// Masks of weights that the user made elsewhere: a .npz of weight name -> array of the weight's shape, in which a zero
// stands where the weight is to become zero.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "npz/npz.h"
#include "num/tensor.h"

namespace onnxpress {

class MaskFile {
 public:
  // Errors: those of NpzFile::open; bad_input when a key is none of `names`.
  static Result<MaskFile> open(const std::string& path, std::span<const std::string> names);

  bool has(const std::string& name) const { return file_.has(name); }
  // true = keep. Not thread-safe. Errors: io, bad_input (another shape, Fortran order of more than one axis).
  Result<std::vector<bool>> read(const std::string& name, const Dims& dims) const;

 private:
  explicit MaskFile(NpzFile file) : file_(std::move(file)) {}
  NpzFile file_;
};

}  // namespace onnxpress
