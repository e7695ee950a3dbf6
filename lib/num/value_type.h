// Types of values: element type and (partly) known shape.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "num/tensor.h"

namespace onnxpress {

// One dimension: a fixed size, a symbol ("batch"), or nothing known (value empty, symbol empty).
struct Dim {
  std::optional<std::int64_t> value;
  std::string symbol;
  bool operator==(const Dim&) const = default;
};

// Type of a value as declared or inferred. `shape` is empty when not even the rank is known.
struct ValueType {
  DType dtype = DType::undefined;
  std::optional<std::vector<Dim>> shape;
  bool is_tensor = true;  // false for sequence, optional, map, sparse

  std::optional<std::size_t> rank() const { return shape ? std::optional(shape->size()) : std::nullopt; }
  std::optional<Dims> static_shape() const;               // when every dim is fixed
  std::optional<std::int64_t> dim(std::size_t axis) const;  // when that dim is fixed
};

// A model input or output as the engine and the data readers see it.
struct ValueInfo {
  std::string name;
  ValueType type;
};

}  // namespace onnxpress
