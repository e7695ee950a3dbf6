#include "sparse/mask_file.h"

#include <algorithm>

#include "base/text.h"
#include "num/channels.h"

namespace onnxpress {

Result<MaskFile> MaskFile::open(const std::string& path, std::span<const std::string> names) {
  OP_LET(NpzFile file, NpzFile::open(path));
  for (const std::string& key : file.keys())
    if (!std::ranges::contains(names, key))
      return fail(Code::bad_input, "{}: '{}' is no weight of the model that can be pruned{}", path, escape_control(key),
                  did_you_mean(key, names));
  return MaskFile(std::move(file));
}

Result<std::vector<bool>> MaskFile::read(const std::string& name, const Dims& dims) const {
  OP_LET(NpyReader reader, file_.array(name));
  if (reader.dims() != dims)
    return fail(Code::bad_input, "{} is {}, the weight {}", reader.name(), dims_text(reader.dims()), dims_text(dims));
  Tensor tensor(reader.dtype(), dims);
  OP_TRY(reader.read(tensor.mutable_bytes()));
  OP_LET(const std::vector<double> values, to_doubles(tensor.view()));
  std::vector<bool> keep(values.size());
  std::ranges::transform(values, keep.begin(), [](double value) { return value != 0; });
  return keep;
}

}  // namespace onnxpress
