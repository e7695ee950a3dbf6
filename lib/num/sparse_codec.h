// A tensor of mostly one value, as the elements that differ from it and the distances between them.
//
//   0 0 0 5 0 7 0 0   =>   gaps 3 2, values 5 7            position = running sum of the gaps
//
// A distance that does not fit the type of the gaps is bridged by elements in between, which hold the common value.
// Elements are compared by their bits: -0 is not 0, and whatever is stored comes back exactly.
// Source: the relative index of Han et al., "Deep Compression" (arXiv 1510.00149), section 3.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "num/tensor.h"

namespace onnxpress {

// Positions are 32 bits and signed, as runtimes compute them.
inline constexpr std::uint64_t kMostSparseElements = 0x7fffffff;

// Element types of 8, 16, 32 and 64 bits have a sparse form here.
bool has_sparse_form(DType dtype);

// The common value: 0, or for 8-bit integers, whose zero point may be anything, the most frequent code (the lowest of
// several). One element, dims {1}.
Tensor common_value(const TensorView& tensor);

// Positions of the elements that differ from `fill` (one element of the same type), ascending. The tensor has at most
// kMostSparseElements.
std::vector<std::uint32_t> positions_of_others(const TensorView& tensor, const TensorView& fill);

// The same positions and those that bridge distances above `widest` (the first counts from 0); [0] when there are none,
// since runtimes need not take an empty list.
std::vector<std::uint32_t> bridged(std::span<const std::uint32_t> positions, std::uint32_t widest);

// Distances as u8 or u16 [n]; the first is the first position.
Tensor gaps_of(std::span<const std::uint32_t> positions, DType dtype);
// Their running sum. Error bad_input when it leaves [0, size), or the gaps are neither u8 nor u16.
Result<std::vector<std::uint32_t>> positions_of(const TensorView& gaps, std::uint64_t size);

// The elements at the positions, [n].
Tensor take(const TensorView& tensor, std::span<const std::uint32_t> positions);

// The distinct elements of `values`, in the order of their bits, and for each element which it is (u8).
struct Codebook {
  Tensor table, codes;
};
std::optional<Codebook> codebook_of(const TensorView& values, std::size_t most = 256);  // nullopt: more than `most`

}  // namespace onnxpress
