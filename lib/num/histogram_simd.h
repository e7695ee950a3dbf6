// The hot loop of Histogram, compiled per instruction set in histogram_simd.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace onnxpress {

// Neighbouring values go to different tables of counters: runs of equal values would otherwise wait for each other's
// store.
inline constexpr std::size_t kCountTables = 4;

// One table per (value index mod kCountTables); in it a block of `stride` counters per sign. Counter 0 of a block is
// for magnitudes below bin `first`, counter 1 for bin `first`, ...; bins from `end` on share counter end - first + 1.
struct CountTarget {
  std::uint32_t* counts = nullptr;
  std::uint32_t first = 0, end = 0;
  std::uint32_t stride = 0;
};
// The bin of a value is the bit pattern of its magnitude >> shift.
void count_bins(const float* x, std::size_t n, const CountTarget& target);

// out[i] += the sum over the tables (`stride` counters apart) of block[i], which become 0. No sum may exceed 32 bits.
inline constexpr std::size_t kDrainMultiple = 64;  // of out.size()
void drain_counts(std::uint32_t* block, std::size_t stride, std::span<std::uint64_t> out);

}  // namespace onnxpress
