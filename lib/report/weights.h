// The weight tensors of a model, which node each belongs to, and what its elements mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "pass/stored_sparse.h"
#include "report/nonzero.h"

namespace onnxpress {

// An initializer, the value of a Constant node, or a weight that is stored sparse (as one tensor: its pieces are not).
struct WeightTensor {
  const Graph* graph = nullptr;
  std::string name;
  DType dtype = DType::undefined;
  Dims dims;
  std::uint64_t bytes = 0;
  bool parameter = true;                              // else a shape, an index, a scale or a zero point
  std::optional<std::uint64_t> packed_elements = {};  // MatMulNBits: elements behind the packed bytes
  std::optional<std::size_t> layer = {};              // index into WeightMap::layers
  std::string zero_point = {};                        // value that holds its zero points; "" = none
  std::size_t zero_point_axis = 0;
  std::optional<StoredSparse> stored = {};  // computed by nodes from this; `bytes` are those of the pieces
  bool sparse = false;                      // a sparse initializer

  std::uint64_t elements() const { return packed_elements.value_or(element_count(dims).value_or(0)); }
  // Elements that are not zero, the packed ones all. Reads the payload; what is sparse is not made dense.
  Result<std::uint64_t> nonzeros() const;
};

struct WeightMap {
  std::vector<WeightTensor> tensors;  // by scope, initializers first, in file order
  std::vector<Node> layers;           // nodes that compute, in graph order, all scopes
  std::vector<std::string> notes;     // constants that are not in `tensors`
};

// Reads no payload.
WeightMap collect_weights(const Model& model);

// Zero points of a tensor from the constant it names; none when that is not constant or not integer.
Result<ZeroPoints> read_zero_points(const WeightTensor& tensor);

}  // namespace onnxpress
