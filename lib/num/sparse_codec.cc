#include "num/sparse_codec.h"

#include <algorithm>
#include <array>
#include <cassert>

namespace onnxpress {
namespace {

// Calls fn with the bytes of the tensor as unsigned integers of its element size.
template <class Fn>
auto with_bits(const TensorView& tensor, Fn&& fn) {
  const auto as = [&]<class T>(T) {
    return std::span<const T>(reinterpret_cast<const T*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(T));
  };
  switch (bit_width(tensor.dtype)) {
    case 8:
      return fn(as(std::uint8_t{}));
    case 16:
      return fn(as(std::uint16_t{}));
    case 32:
      return fn(as(std::uint32_t{}));
    default:
      assert(bit_width(tensor.dtype) == 64);
      return fn(as(std::uint64_t{}));
  }
}

template <class T>
Tensor one_axis(DType dtype, std::span<const T> values) {
  const auto raw = std::as_bytes(values);
  return Tensor(dtype, {static_cast<std::int64_t>(values.size())}, {raw.begin(), raw.end()});
}

}  // namespace

bool has_sparse_form(DType dtype) {
  const unsigned bits = bit_width(dtype);
  return bits == 8 || bits == 16 || bits == 32 || bits == 64;
}

Tensor common_value(const TensorView& tensor) {
  Tensor fill(tensor.dtype, {1});
  if (tensor.dtype != DType::i8 && tensor.dtype != DType::u8) return fill;
  std::array<std::uint64_t, 256> counts{};
  for (const std::byte code : tensor.bytes) ++counts[static_cast<std::size_t>(code)];
  fill.mutable_bytes()[0] = static_cast<std::byte>(std::ranges::max_element(counts) - counts.begin());
  return fill;
}

std::vector<std::uint32_t> positions_of_others(const TensorView& tensor, const TensorView& fill) {
  assert(tensor.dtype == fill.dtype && tensor.size() <= kMostSparseElements);
  return with_bits(tensor, [&](auto elements) {
    const auto common = with_bits(fill, [](auto one) { return static_cast<std::uint64_t>(one.front()); });
    std::vector<std::uint32_t> positions;
    for (std::size_t i = 0; i < elements.size(); ++i)
      if (elements[i] != common) positions.push_back(static_cast<std::uint32_t>(i));
    return positions;
  });
}

std::vector<std::uint32_t> bridged(std::span<const std::uint32_t> positions, std::uint32_t widest) {
  std::vector<std::uint32_t> out;
  out.reserve(positions.size() + 1);
  std::uint32_t last = 0;
  for (const std::uint32_t position : positions) {
    for (; position - last > widest; last += widest) out.push_back(last + widest);
    out.push_back(last = position);
  }
  if (out.empty()) out.push_back(0);
  return out;
}

Tensor gaps_of(std::span<const std::uint32_t> positions, DType dtype) {
  assert(dtype == DType::u8 || dtype == DType::u16);
  const auto differences = [&]<class T>(T) {
    std::vector<T> gaps(positions.size());
    std::uint32_t last = 0;
    for (std::size_t i = 0; i < positions.size(); ++i) {
      gaps[i] = static_cast<T>(positions[i] - last);
      last = positions[i];
    }
    return one_axis<T>(dtype, gaps);
  };
  return dtype == DType::u8 ? differences(std::uint8_t{}) : differences(std::uint16_t{});
}

Result<std::vector<std::uint32_t>> positions_of(const TensorView& gaps, std::uint64_t size) {
  if (gaps.dtype != DType::u8 && gaps.dtype != DType::u16)
    return fail(Code::bad_input, "gaps are {}, neither uint8 nor uint16", dtype_name(gaps.dtype));
  return with_bits(gaps, [&](auto elements) -> Result<std::vector<std::uint32_t>> {
    std::vector<std::uint32_t> positions;
    positions.reserve(elements.size());
    std::uint64_t at = 0;
    for (const auto gap : elements) {
      at += static_cast<std::uint64_t>(gap);
      if (at >= size || at > kMostSparseElements)
        return fail(Code::bad_input, "gaps lead to element {} of {}", at, size);
      positions.push_back(static_cast<std::uint32_t>(at));
    }
    return positions;
  });
}

Tensor take(const TensorView& tensor, std::span<const std::uint32_t> positions) {
  return with_bits(tensor, [&](auto elements) {
    using T = std::remove_cvref_t<decltype(elements.front())>;
    std::vector<T> values(positions.size());
    std::ranges::transform(positions, values.begin(), [&](std::uint32_t position) { return elements[position]; });
    return one_axis<T>(tensor.dtype, values);
  });
}

std::optional<Codebook> codebook_of(const TensorView& values, std::size_t most) {
  assert(most <= 256);
  return with_bits(values, [&](auto elements) -> std::optional<Codebook> {
    using T = std::remove_cvref_t<decltype(elements.front())>;
    std::vector<T> table;  // ascending
    for (const T element : elements) {
      const auto at = std::ranges::lower_bound(table, element);
      if (at != table.end() && *at == element) continue;
      if (table.size() == most) return std::nullopt;
      table.insert(at, element);
    }
    std::vector<std::uint8_t> codes(elements.size());
    std::ranges::transform(elements, codes.begin(), [&](T element) {
      return static_cast<std::uint8_t>(std::ranges::lower_bound(table, element) - table.begin());
    });
    return Codebook{one_axis<T>(values.dtype, table), one_axis<std::uint8_t>(DType::u8, codes)};
  });
}

}  // namespace onnxpress
