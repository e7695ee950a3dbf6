// Weights that are stored sparse and computed back by standard operators, which runtimes fold at load: the form that
// store-sparse writes.
//
//   positions = CumSum(Cast(gaps))                     gaps u8 or u16
//   values    = constant | Cast(halves) | Gather(table, Cast(codes))
//   w         = Reshape(ScatterElements(ConstantOfShape(count), positions, values), dims)
//
// (no Reshape when w has one axis; Cast behind ConstantOfShape for a type that it cannot make). Passes must not take
// such nodes apart, and reports count the weight, not its pieces.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

struct StoredSparse {
  const Graph* graph = nullptr;
  std::string value;  // the weight
  DType dtype = DType::undefined;
  Dims dims;
  Tensor fill;                         // every element that is not stored; one element
  std::string gaps, values;            // constants; `values` of dtype, or f16
  std::string codes;                   // with codes, `values` is a table of at most 256
  std::vector<Node> nodes;             // all that compute it; two weights may share some
  std::vector<std::string> constants;  // all that they read
};

// Those of one scope, in graph order. Reads no large payload.
std::vector<StoredSparse> stored_sparse(const Graph& graph);

// The stored elements, in the weight's type, [n]. Errors: bad_input (codes beyond the table), io.
Result<Tensor> stored_values(const StoredSparse& weight);
// Where in the weight they are. Errors: bad_input (beyond its end), io.
Result<std::vector<std::uint32_t>> stored_positions(const StoredSparse& weight);

}  // namespace onnxpress
