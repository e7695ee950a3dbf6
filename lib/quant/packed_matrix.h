// A matrix of 4-bit codes for kernels that compute on them: com.microsoft.MatMulNBits, and rows of it as an embedding.
// Both read one pair of initializers, so tied weights are stored once.
//
//   codes  uint8 [N, K / block, block / 2]   element k of row n: low nibble first; 8 (or the zero point) stands for 0;
//                                            the last block of a row is padded
//   scale  float [N, K / block]
#pragma once

#include <string>

#include "ir/rewriters.h"
#include "quant/weight.h"
#include "quant/weight_store.h"

namespace onnxpress {

struct PackedMatrix {
  std::string codes = {}, scale = {}, zero_point = {};  // initializers; no zero point: 8
  std::int64_t rows = 0, columns = 0, block = 0;
};

// Adds the initializers to the scope of the weight. `weight` is DType::u4 in blocks, its codes [N, K].
PackedMatrix add_packed_matrix(Rewriter& rewriter, const WeightJob& job, const QuantizedWeight& weight);

// y = MatMul(x, transposed matrix) [+ bias] instead of `node`, which is erased. 8-bit arithmetic inside (accuracy_level
// 4), the fastest of ONNX Runtime 1.21.
void emit_matmul_nbits(Rewriter& rewriter, const Node& node, const PackedMatrix& matrix, std::string_view bias);

// Gather of rows instead of `node` (a Gather along axis 0 whose index has `index_rank` axes), which is erased. Needs a
// matrix without padding and zero points.
Status emit_rows(Rewriter& rewriter, WeightStore& store, const Node& node, const PackedMatrix& matrix,
                 std::size_t index_rank);

}  // namespace onnxpress
