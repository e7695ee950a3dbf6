#include "calib/min_max.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

ValueRange naive(const std::vector<float>& values) {
  ValueRange range;
  for (const float v : values) {
    if (v != v) {
      range.nan += 1;
    } else if (v == kInf || v == -kInf) {
      range.infinite += 1;
    } else {
      if (range.finite == 0 || v < range.min) range.min = v;
      if (range.finite == 0 || v > range.max) range.max = v;
      range.finite += 1;
    }
  }
  return range;
}

ValueRange of(const std::vector<float>& values) {
  return range_of(Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values).view());
}

}  // namespace

TEST_CASE("the range agrees with a naive one at every length") {
  for (unsigned n = 0; n < 200; ++n) {
    auto values = random_floats(n, n);
    CHECK(of(values) == naive(values));
    if (n > 2) {
      values[n / 2] = kNan;
      values[n / 3] = -kInf;
      values.back() = kInf;
      CHECK(of(values) == naive(values));
    }
  }
}

TEST_CASE("NaN and infinities never make a range") {
  const ValueRange range = of({kNan, kInf, -kInf, kNan});
  CHECK(range.empty());
  CHECK(range.nan == 2);
  CHECK(range.infinite == 2);
  CHECK(of({}).empty());
  CHECK_FALSE(of({0}).empty());
}

TEST_CASE("other types are measured by value") {
  const auto bytes = Tensor::of<std::int8_t>(DType::i8, {3}, std::vector<std::int8_t>{-128, 5, 127});
  CHECK(range_of(bytes.view()).min == -128);
  CHECK(range_of(bytes.view()).max == 127);
  const auto half = Tensor::of<std::uint16_t>(DType::f16, {3}, std::vector<std::uint16_t>{0x3c00, 0xc000, 0xfc00});
  CHECK(range_of(half.view()) == ValueRange{-2, 1, 2, 0, 1});
  CHECK(range_of(Tensor(DType::c64, {2}).view()).empty());
}

TEST_CASE("merging batches is the range of all of them") {
  const auto all = random_floats(1000, 7);
  MinMaxAccumulator accumulator;
  for (std::size_t at = 0; at < all.size(); at += 130) {
    const std::vector<float> part(all.begin() + static_cast<std::ptrdiff_t>(at),
                                  all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), at + 130)));
    accumulator.merge(accumulator.reduce(Tensor::of_floats({static_cast<std::int64_t>(part.size())}, part).view()));
    accumulator.merge(accumulator.reduce(Tensor::of_floats({0}, {}).view()));
  }
  CHECK(accumulator.range() == naive(all));
}

}  // namespace onnxpress::testing
