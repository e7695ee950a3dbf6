// Where the integer codes of a weight lie in the file, and in which form.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "ir/model.h"
#include "ir/rewriter.h"
#include "num/quantize.h"

namespace onnxpress {

struct StoredCodes {
  Node reader;  // of the constant, and in which slot
  std::size_t slot = 0;
  bool packed = false;             // two 4-bit codes a byte in a uint8 tensor, unpacked by a Gather in a table of pairs
  DType dtype = DType::undefined;  // of the codes: i8, u8, i4, u4
  Dims dims;                       // of the codes
  std::vector<Node> path;          // nodes between the constant and the value, all of them private to it
};

// The codes behind `value`, which slot `slot` of `reader` reads: a constant, Cast of one, or Reshape(Gather(table,
// Cast(packed))) (branch of WeightStore::unpack; an odd count has Slice and Reshape between). nullopt: something else.
std::optional<StoredCodes> find_codes(const Node& reader, std::size_t slot);

Result<std::vector<std::int32_t>> read_codes(const StoredCodes& stored);
void write_codes(const StoredCodes& stored, std::span<const std::int32_t> codes, Rewriter& rewriter);

}  // namespace onnxpress
