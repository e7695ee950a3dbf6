#include "num/value_type.h"

namespace onnxpress {

std::optional<Dims> ValueType::static_shape() const {
  if (!shape) return std::nullopt;
  Dims dims;
  dims.reserve(shape->size());
  for (const Dim& dim : *shape) {
    if (!dim.value) return std::nullopt;
    dims.push_back(*dim.value);
  }
  return dims;
}

std::optional<std::int64_t> ValueType::dim(std::size_t axis) const {
  if (!shape || axis >= shape->size()) return std::nullopt;
  return (*shape)[axis].value;
}

}  // namespace onnxpress
