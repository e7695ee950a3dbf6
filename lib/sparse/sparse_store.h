// The choice of a sparse form for one weight, by exact size in the file, and its writing.
//
//   w [n], mostly 0   =>   w = Reshape(ScatterElements(ConstantOfShape(n), CumSum(Cast(gaps)), values), dims)
//
// Per stored element a gap of 1 byte (2 where most elements are far apart) and a value: as it is, as a half, or 1 byte
// that looks it up in a table of 256. Whatever is chosen decodes to the same bits.
// Source: Han et al., "Deep Compression" (arXiv 1510.00149), decoded by operators of the standard.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "ir/model.h"
#include "ir/rewriter.h"
#include "num/tensor.h"

namespace onnxpress {

// f32, f64, f16, bf16, i8 and u8 weights are stored sparse.
bool is_sparse_storable(DType dtype);

enum class SparseValues { plain, half, codebook };

// One weight, encoded.
struct SparseWeight {
  SparseValues form = SparseValues::plain;
  Dims dims;
  Tensor fill, gaps;              // the common value, one element; u8 or u16 [n]
  Tensor values;                  // [n] in the weight's type or f16; with a codebook its table
  Tensor codes;                   // codebook: u8 [n]
  std::uint64_t stored = 0;       // elements that differ from the fill; n counts those that bridge gaps too
  std::uint64_t file_bytes = 0;   // initializers and nodes; 0 when it was clear early that nothing is smaller
  std::uint64_t dense_bytes = 0;  // the initializer it takes the place of

  bool smaller() const { return file_bytes > 0 && file_bytes < dense_bytes; }
};

// The smallest of the lossless forms; only the plain one unless `compact`. 1 to kMostSparseElements elements, of a type
// that is_sparse_storable().
SparseWeight encode_sparse(std::string_view name, const Tensor& weight, bool compact = true);

// Adds what computes value `name` from it at the head of the rewriter's scope, whose constant `name` is being dropped.
// Needs opset 11.
void write_sparse(Rewriter& rewriter, std::string_view name, SparseWeight weight);

// Rounding ahead of it; zeros (-0 too) become +0. Float types; the error is a reason, not finite or too large.
Result<Tensor> round_to_codebook(const Tensor& weight);  // to 255 values at most (k-means) that are not zero
Result<Tensor> round_to_half(const Tensor& weight);      // f32 and f64 to values that a half has

// 10 log10 of the power of `exact` over that of the difference; infinity when equal.
double rounding_sqnr_db(const Tensor& exact, const Tensor& rounded);

}  // namespace onnxpress
