#include "report/nonzero.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

using namespace onnxpress;

namespace {

template <class T>
std::uint64_t count(DType dtype, Dims dims, std::vector<T> values, const ZeroPoints& zeros = {}) {
  return count_nonzeros(Tensor::of<T>(dtype, std::move(dims), values).view(), zeros);
}

}  // namespace

TEST_CASE("Floats: both zeros are zero, NaN and the smallest subnormal are not") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  CHECK(count<float>(DType::f32, {5}, {0, -0.0F, 1, kNan, std::numeric_limits<float>::denorm_min()}) == 3);
  CHECK(count<double>(DType::f64, {3}, {0, -0.0, 1}) == 1);
  CHECK(count<std::uint16_t>(DType::f16, {3}, {0, 0x8000, 1}) == 1);
  CHECK(count<std::uint16_t>(DType::bf16, {3}, {0, 0x8000, 0x3f80}) == 1);
  CHECK(count<std::uint8_t>(DType::f8e4m3fn, {3}, {0, 0x80, 1}) == 1);
  CHECK(count<std::uint8_t>(DType::f8e5m2fnuz, {3}, {0, 0x80, 1}) == 2);  // 0x80 is NaN there
  CHECK(count<std::uint8_t>(DType::f4e2m1, {3}, {0x81, 0x02}) == 2);      // 0.5, -0, 1
}

TEST_CASE("Integers: equal to the zero point is zero") {
  CHECK(count<std::int8_t>(DType::i8, {4}, {0, -1, 2, 0}) == 2);
  CHECK(count<std::uint8_t>(DType::u8, {4}, {128, 0, 128, 1}, {{128}, 0}) == 2);
  CHECK(count<std::int32_t>(DType::i32, {2}, {0, 7}) == 1);
  CHECK(count<std::uint8_t>(DType::i4, {3}, {0x0f, 0x08}) == 2);             // -1, 0, -8
  CHECK(count<std::uint8_t>(DType::i4, {3}, {0x0f, 0x08}, {{-8}, 0}) == 2);  // -8 is the zero
  CHECK(count<std::uint8_t>(DType::u4, {3}, {0x0f, 0x08}, {{8}, 0}) == 2);
}

TEST_CASE("Zero points per axis, against a walk over indices") {
  std::vector<std::int8_t> values;
  for (int i = 0; i < 24; ++i) values.push_back(static_cast<std::int8_t>(i % 3));
  const std::vector<std::int64_t> zeros = {0, 1, 2};
  std::uint64_t expected = 0;
  for (std::size_t a = 0; a < 2; ++a)
    for (std::size_t b = 0; b < 3; ++b)
      for (std::size_t c = 0; c < 4; ++c) expected += values[(a * 3 + b) * 4 + c] != zeros[b];
  CHECK(count<std::int8_t>(DType::i8, {2, 3, 4}, values, {zeros, 1}) == expected);
  // A list that does not fit the axis is no list.
  CHECK(count<std::int8_t>(DType::i8, {2, 3, 4}, values, {zeros, 2}) == 16);
  CHECK(count<std::int8_t>(DType::i8, {2, 3, 4}, values, {zeros, 9}) == 16);
}

TEST_CASE("What has no zero counts whole") { CHECK(count<std::uint8_t>(DType::boolean, {3}, {0, 1, 0}) == 3); }
