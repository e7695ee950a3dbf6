#include "quant/stored_codes.h"

#include <algorithm>
#include <cassert>

#include "ir/edit.h"

namespace onnxpress {
namespace {

bool is_code_type(DType dtype) {
  return dtype == DType::i8 || dtype == DType::u8 || dtype == DType::i4 || dtype == DType::u4;
}

// A table of all bytes as pairs of 4-bit codes, low half first: which type they have, if it is one.
std::optional<DType> pair_type(const Graph& graph, std::string_view table) {
  const auto type = graph.constant_type(table);
  if (!type || type->second != Dims{256, 2}) return std::nullopt;
  const auto tensor = graph.constant(table);
  if (!tensor || !*tensor) return std::nullopt;
  const auto values = to_floats((*tensor)->view());
  if (!values) return std::nullopt;
  const auto matches = [&](bool with_sign) {
    for (int byte = 0; byte < 256; ++byte)
      for (int half = 0; half < 2; ++half) {
        const int bits = half == 0 ? byte & 15 : byte >> 4;
        const int code = with_sign && bits > 7 ? bits - 16 : bits;
        if ((*values)[static_cast<std::size_t>(2 * byte + half)] != static_cast<float>(code)) return false;
      }
    return true;
  };
  if (matches(true)) return DType::i4;
  return matches(false) ? std::optional(DType::u4) : std::nullopt;
}

}  // namespace

std::optional<StoredCodes> find_codes(const Node& reader, std::size_t slot) {
  const Graph& graph = reader.graph();
  StoredCodes found{.reader = reader, .slot = slot, .dims = {}, .path = {}};
  if (const auto type = graph.constant_type(reader.input(slot))) {
    if (!is_code_type(type->first)) return std::nullopt;
    found.dtype = type->first;
    found.dims = type->second;
    return found;
  }
  Node node = graph.producer(reader.input(slot));
  if (!node) return std::nullopt;
  found.path.push_back(node);
  if (node.is("Cast")) {
    const auto type = graph.constant_type(node.input(0));
    if (!type || !is_code_type(type->first)) return std::nullopt;
    found.reader = node;
    found.slot = 0;
    found.dtype = type->first;
    found.dims = type->second;
    return found;
  }
  if (!node.is("Reshape")) return std::nullopt;
  const auto dims = graph.constant(node.input(1));
  if (!dims || !*dims || (*dims)->dtype() != DType::i64) return std::nullopt;
  found.dims.assign((*dims)->as<std::int64_t>().begin(), (*dims)->as<std::int64_t>().end());
  const auto count = element_count(found.dims);
  node = graph.producer(node.input(0));
  while (node && (node.is("Slice") || node.is("Reshape"))) {  // cut off the padding of an odd count
    found.path.push_back(node);
    node = graph.producer(node.input(0));
  }
  if (!node || !node.is("Gather") || node.attr_int("axis", 0) != 0 || !count) return std::nullopt;
  found.path.push_back(node);
  const auto codes = pair_type(graph, node.input(0));
  const Node cast = graph.producer(node.input(1));
  if (!codes || !cast || !cast.is("Cast")) return std::nullopt;
  const auto bytes = graph.constant_type(cast.input(0));
  if (!bytes || bytes->first != DType::u8 || bytes->second != Dims{static_cast<std::int64_t>((*count + 1) / 2)})
    return std::nullopt;
  found.path.push_back(cast);
  found.reader = cast;
  found.slot = 0;
  found.packed = true;
  found.dtype = *codes;
  return found;
}

Result<std::vector<std::int32_t>> read_codes(const StoredCodes& stored) {
  OP_LET(const auto constant, stored.reader.graph().constant(stored.reader.input(stored.slot)));
  assert(constant);
  const Tensor tensor = stored.packed
                            ? Tensor(stored.dtype, stored.dims, {constant->bytes().begin(), constant->bytes().end()})
                            : *constant;
  OP_LET(const auto values, to_int64s(tensor.view()));
  std::vector<std::int32_t> codes;
  for (const std::int64_t value : values) codes.push_back(static_cast<std::int32_t>(value));
  return codes;
}

void write_codes(const StoredCodes& stored, std::span<const std::int32_t> codes, Rewriter& rewriter) {
  Tensor tensor(stored.dtype, stored.dims);
  const auto bytes = tensor.mutable_bytes();
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (bit_width(stored.dtype) == 8) {
      bytes[i] = static_cast<std::byte>(codes[i]);
    } else {
      const auto half = static_cast<std::byte>(codes[i] & 15);
      bytes[i / 2] |= i % 2 == 0 ? half : half << 4;
    }
  }
  if (stored.packed) {
    const auto count = static_cast<std::int64_t>(bytes.size());
    tensor = Tensor(DType::u8, {count}, {bytes.begin(), bytes.end()});
  }
  set_constant(rewriter, stored.reader, stored.slot, std::move(tensor), "weight");
}

}  // namespace onnxpress
