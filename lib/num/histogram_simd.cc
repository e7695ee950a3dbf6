// The bins of many floats: index arithmetic in vectors, increments one by one.
#include "num/histogram_simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "num/histogram_simd.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cassert>

#include "num/histogram.h"

HWY_BEFORE_NAMESPACE();
namespace onnxpress {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kShift = 23 - static_cast<int>(Histogram::kMantissaBits);
constexpr std::size_t kBlock = 64;

void count_loop(const float* x, std::size_t n, const CountTarget& target) {
  const hn::CappedTag<float, kBlock> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::RebindToSigned<decltype(d)> di;
  const std::size_t lanes = hn::Lanes(d);
  const auto below = hn::Set(du, target.first - 1);
  const auto end = hn::Set(du, target.end);
  const auto stride = hn::Set(du, target.stride);
  const auto magnitude_bits = hn::Set(du, 0x7fffffffU);
  const std::size_t table = std::size_t{2} * target.stride;
  std::uint32_t* const HWY_RESTRICT t0 = target.counts;
  std::uint32_t* const HWY_RESTRICT t1 = t0 + table;
  std::uint32_t* const HWY_RESTRICT t2 = t1 + table;
  std::uint32_t* const HWY_RESTRICT t3 = t2 + table;
  HWY_ALIGN std::uint32_t slots[kBlock];
  std::size_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    for (std::size_t j = 0; j < kBlock; j += lanes) {
      const auto bits = hn::BitCast(du, hn::LoadU(d, x + i + j));
      const auto bin = hn::ShiftRight<kShift>(hn::And(bits, magnitude_bits));
      const auto slot = hn::Sub(hn::Min(hn::Max(bin, below), end), below);
      const auto sign = hn::BitCast(du, hn::BroadcastSignBit(hn::BitCast(di, bits)));
      hn::Store(hn::Add(slot, hn::And(sign, stride)), du, slots + j);
    }
    for (std::size_t j = 0; j < kBlock; j += kCountTables) {
      ++t0[slots[j]];
      ++t1[slots[j + 1]];
      ++t2[slots[j + 2]];
      ++t3[slots[j + 3]];
    }
  }
  for (; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(x[i]);
    const std::uint32_t bin = (bits & 0x7fffffffU) >> kShift;
    const std::uint32_t slot = std::clamp(bin, target.first - 1, target.end) - (target.first - 1);
    ++t0[slot + (bits >> 31) * target.stride];
  }
}

void drain_loop(std::uint32_t* block, std::size_t stride, std::size_t n, std::uint64_t* out) {
  const hn::ScalableTag<std::uint32_t> d;
  const hn::RepartitionToWide<decltype(d)> wide;
  const std::size_t lanes = hn::Lanes(d), half = hn::Lanes(wide);
  const auto zero = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    std::uint32_t* const at = block + i;
    auto sum = hn::LoadU(d, at);
    for (std::size_t t = 1; t < kCountTables; ++t) sum = hn::Add(sum, hn::LoadU(d, at + t * stride));
    if (hn::AllTrue(d, hn::Eq(sum, zero))) continue;
    for (std::size_t t = 0; t < kCountTables; ++t) hn::StoreU(zero, d, at + t * stride);
    hn::StoreU(hn::Add(hn::LoadU(wide, out + i), hn::PromoteLowerTo(wide, sum)), wide, out + i);
    hn::StoreU(hn::Add(hn::LoadU(wide, out + i + half), hn::PromoteUpperTo(wide, sum)), wide, out + i + half);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace onnxpress
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace onnxpress {
namespace {

HWY_EXPORT(count_loop);
HWY_EXPORT(drain_loop);

}  // namespace

void count_bins(const float* x, std::size_t n, const CountTarget& target) {
  HWY_DYNAMIC_DISPATCH(count_loop)(x, n, target);
}

void drain_counts(std::uint32_t* block, std::size_t stride, std::span<std::uint64_t> out) {
  assert(out.size() % kDrainMultiple == 0);
  HWY_DYNAMIC_DISPATCH(drain_loop)(block, stride, out.size(), out.data());
}

}  // namespace onnxpress
#endif
