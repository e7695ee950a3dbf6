// What parts of a model take in its file, to the byte: the message with its tag and length, payloads as raw_data. Not
// counted: longer lengths of the messages around it, and the alignment of external data.
#pragma once

#include <cstdint>
#include <string_view>

#include "ir/rewriter.h"

namespace onnxpress {

std::uint64_t initializer_bytes(std::string_view name, DType dtype, const Dims& dims);
// With `stored` elements in it and one int64 position for each.
std::uint64_t sparse_initializer_bytes(std::string_view name, DType dtype, const Dims& dims, std::uint64_t stored);
std::uint64_t node_bytes(const NodeSpec& spec);

}  // namespace onnxpress
