#include "depend/cut.h"

#include <algorithm>
#include <functional>

namespace onnxpress {
namespace {

// Elements as whole bytes: 4-bit values one by one, the first in the low half of its byte.
std::vector<std::byte> unpack(std::span<const std::byte> packed, std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = (packed[i / 2] >> (i % 2 * 4)) & std::byte{0x0f};
  return bytes;
}

std::vector<std::byte> pack(std::span<const std::byte> nibbles) {
  std::vector<std::byte> bytes((nibbles.size() + 1) / 2);
  for (std::size_t i = 0; i < nibbles.size(); ++i) bytes[i / 2] |= (nibbles[i] & std::byte{0x0f}) << (i % 2 * 4);
  return bytes;
}

bool is_packed(DType dtype) { return bit_width(dtype) == 4; }

std::size_t element_bytes(DType dtype) { return is_packed(dtype) ? 1 : bit_width(dtype) / 8; }

// Elements in front of an axis, and from one index of it to the next.
struct Strides {
  std::size_t outer = 1, inner = 1;
};
Strides strides_of(std::span<const std::int64_t> dims, std::size_t axis) {
  Strides strides;
  for (std::size_t i = 0; i < axis; ++i) strides.outer *= static_cast<std::size_t>(dims[i]);
  for (std::size_t i = axis + 1; i < dims.size(); ++i) strides.inner *= static_cast<std::size_t>(dims[i]);
  return strides;
}

std::vector<std::byte> cut_axis(std::span<const std::byte> bytes, std::size_t width, std::span<const std::int64_t> dims,
                                std::size_t axis, const Indices& kept) {
  const Strides strides = strides_of(dims, axis);
  const std::size_t step = strides.inner * width, size = static_cast<std::size_t>(dims[axis]);
  std::vector<std::byte> out;
  out.reserve(strides.outer * kept.size() * step);
  for (std::size_t o = 0; o < strides.outer; ++o)
    for (const std::uint32_t index : kept) {
      const auto from = bytes.subspan((o * size + index) * step, step);
      out.insert(out.end(), from.begin(), from.end());
    }
  return out;
}

void blank_axis(std::span<std::byte> bytes, std::size_t width, std::span<const std::int64_t> dims, std::size_t axis,
                const Indices& kept, std::span<const std::byte> zero) {
  const Strides strides = strides_of(dims, axis);
  const std::size_t step = strides.inner * width, size = static_cast<std::size_t>(dims[axis]);
  std::vector<bool> stays(size);
  for (const std::uint32_t index : kept) stays[index] = true;
  for (std::size_t o = 0; o < strides.outer; ++o)
    for (std::size_t index = 0; index < size; ++index) {
      if (stays[index]) continue;
      const auto slice = bytes.subspan((o * size + index) * step, step);
      for (std::size_t i = 0; i < step; ++i) slice[i] = zero.empty() ? std::byte{0} : zero[i % width];
    }
}

}  // namespace

AxisCuts cuts_of(const KeptAxes& kept, const TensorRef& tensor, std::size_t rank) {
  AxisCuts cuts;
  if (!kept.touches(tensor)) return cuts;
  for (std::size_t axis = 0; axis < rank; ++axis)
    if (const Indices* indices = kept.find(tensor, axis)) cuts.emplace(axis, *indices);
  return cuts;
}

std::string cuts_key(const AxisCuts& cuts) {
  std::string key;
  for (const auto& [axis, kept] : cuts) {
    key += fmt::format("{}:{}:", axis, kept.size());
    for (const std::uint32_t index : kept) key.append(reinterpret_cast<const char*>(&index), sizeof index);
  }
  return key;
}

Status check_cuts(DType dtype, std::span<const std::int64_t> dims, const AxisCuts& cuts) {
  if (bit_width(dtype) == 0) return fail(Code::unsupported, "{} cannot be cut", dtype_name(dtype));
  for (const auto& [axis, kept] : cuts) {
    if (axis >= dims.size()) return fail(Code::unsupported, "no axis {} in {}", axis, dims_text(dims));
    if (std::ranges::adjacent_find(kept, std::greater_equal<>{}) != kept.end())
      return fail(Code::unsupported, "what axis {} keeps is not ascending", axis);
    if (!kept.empty() && static_cast<std::int64_t>(kept.back()) >= dims[axis])
      return fail(Code::unsupported, "no index {} on axis {} of {}", kept.back(), axis, dims_text(dims));
  }
  return {};
}

Result<Tensor> cut_tensor(const TensorView& tensor, const AxisCuts& cuts) {
  OP_TRY(check_cuts(tensor.dtype, tensor.dims, cuts));
  const std::size_t width = element_bytes(tensor.dtype);
  Dims dims(tensor.dims.begin(), tensor.dims.end());
  std::vector<std::byte> bytes;
  if (is_packed(tensor.dtype)) {
    bytes = unpack(tensor.bytes, static_cast<std::size_t>(tensor.size()));
  } else if (cuts.empty()) {
    bytes.assign(tensor.bytes.begin(), tensor.bytes.end());
  }
  bool first = !is_packed(tensor.dtype);
  for (const auto& [axis, kept] : cuts) {
    bytes = cut_axis(first ? tensor.bytes : std::span<const std::byte>(bytes), width, dims, axis, kept);
    first = false;
    dims[axis] = static_cast<std::int64_t>(kept.size());
  }
  return Tensor(tensor.dtype, std::move(dims), is_packed(tensor.dtype) ? pack(bytes) : std::move(bytes));
}

Result<Tensor> blank_tensor(Tensor tensor, const AxisCuts& cuts, std::span<const std::byte> zero) {
  OP_TRY(check_cuts(tensor.dtype(), tensor.dims(), cuts));
  const std::size_t width = element_bytes(tensor.dtype());
  if (!is_packed(tensor.dtype())) {
    for (const auto& [axis, kept] : cuts) blank_axis(tensor.mutable_bytes(), width, tensor.dims(), axis, kept, zero);
    return tensor;
  }
  std::vector<std::byte> nibbles = unpack(tensor.bytes(), static_cast<std::size_t>(tensor.size()));
  for (const auto& [axis, kept] : cuts) blank_axis(nibbles, width, tensor.dims(), axis, kept, zero);
  return Tensor(tensor.dtype(), tensor.dims(), pack(nibbles));
}

}  // namespace onnxpress
