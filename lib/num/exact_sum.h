// The sum of floats without any rounding: one fixed-point number wide enough for all of them. Order and grouping of
// the additions do not matter, so partial sums of shards merge to the bits of one long sum.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace onnxpress {

class ExactSum {
 public:
  // Base-2^32 digits, lowest first, in two's complement: digit i weighs 2^(32 i - 149). Room for 2^31 floats.
  static constexpr std::size_t kDigits = 10;
  using Digits = std::array<std::uint32_t, kDigits>;

  void add(float finite);
  void merge(const ExactSum& other);
  double value() const;  // rounded once per digit, from the highest

  Digits digits() const;
  static ExactSum from_digits(const Digits& digits);
  bool operator==(const ExactSum& other) const { return digits() == other.digits(); }

 private:
  void carry();

  std::array<std::int64_t, kDigits> digits_{};  // with carries not yet passed on
  std::uint32_t pending_ = 0;                   // additions since the last carry()
};

}  // namespace onnxpress
