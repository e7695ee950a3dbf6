#include "num/exact_sum.h"

#include <bit>
#include <cassert>
#include <cmath>

namespace onnxpress {
namespace {

constexpr std::int64_t kBase = std::int64_t{1} << 32;
constexpr std::uint32_t kMaxPending = std::uint32_t{1} << 29;

}  // namespace

void ExactSum::add(float finite) {
  assert(std::isfinite(finite));
  const auto bits = std::bit_cast<std::uint32_t>(finite);
  const std::uint32_t exponent = (bits >> 23) & 0xffU, fraction = bits & 0x7fffffU;
  const std::uint64_t mantissa = exponent == 0 ? fraction : fraction | 0x800000U;
  const std::uint32_t position = exponent == 0 ? 0 : exponent - 1;
  const std::uint64_t shifted = mantissa << (position % 32);
  const auto low = static_cast<std::int64_t>(shifted & 0xffffffffU), high = static_cast<std::int64_t>(shifted >> 32);
  const bool negative = bits >> 31 != 0;
  digits_[position / 32] += negative ? -low : low;
  digits_[position / 32 + 1] += negative ? -high : high;
  if (++pending_ == kMaxPending) carry();
}

// Leaves every digit but the highest in [0, 2^32).
void ExactSum::carry() {
  for (std::size_t i = 0; i + 1 < kDigits; ++i) {
    const std::int64_t up = digits_[i] >> 32;  // rounds down: C++20 shifts are arithmetic
    digits_[i] -= up * kBase;
    digits_[i + 1] += up;
  }
  pending_ = 0;
}

void ExactSum::merge(const ExactSum& other) {
  ExactSum addend = other;
  addend.carry();
  carry();
  for (std::size_t i = 0; i < kDigits; ++i) digits_[i] += addend.digits_[i];
  carry();
}

double ExactSum::value() const {
  ExactSum sum = *this;
  sum.carry();
  const bool negative = sum.digits_.back() < 0;
  if (negative) {
    for (std::int64_t& digit : sum.digits_) digit = -digit;
    sum.carry();
  }
  double total = 0;
  for (std::size_t i = kDigits; i-- > 0;)
    total += std::ldexp(static_cast<double>(sum.digits_[i]), 32 * static_cast<int>(i) - 149);
  return negative ? -total : total;
}

ExactSum::Digits ExactSum::digits() const {
  ExactSum sum = *this;
  sum.carry();
  Digits out;
  for (std::size_t i = 0; i < kDigits; ++i) out[i] = static_cast<std::uint32_t>(sum.digits_[i]);
  return out;
}

ExactSum ExactSum::from_digits(const Digits& digits) {
  ExactSum sum;
  for (std::size_t i = 0; i < kDigits; ++i) sum.digits_[i] = digits[i];
  // The highest digit carries the sign.
  sum.digits_.back() = static_cast<std::int32_t>(digits.back());
  return sum;
}

}  // namespace onnxpress
