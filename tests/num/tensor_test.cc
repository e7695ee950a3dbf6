#include "num/tensor.h"

#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "num/value_type.h"

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;

// --- slow, obvious models of the formats ---

struct Format {
  DType dtype;
  int exponent_bits, mantissa_bits, bias;
  bool infinities;  // IEEE: the top exponent is infinity and NaN
  bool fnuz;        // NaN is the code of -0
  int nan;          // magnitude code of NaN in a format without infinities and fnuz; -1 for none
  bool saturates;
};

const std::vector<Format> kFormats = {
    {DType::f16, 5, 10, 15, true, false, -1, false},      {DType::bf16, 8, 7, 127, true, false, -1, false},
    {DType::f8e4m3fn, 4, 3, 7, false, false, 0x7f, true}, {DType::f8e4m3fnuz, 4, 3, 8, false, true, -1, true},
    {DType::f8e5m2, 5, 2, 15, true, false, -1, true},     {DType::f8e5m2fnuz, 5, 2, 16, false, true, -1, true},
    {DType::f4e2m1, 2, 1, 1, false, false, -1, true},
};

int code_count(const Format& f) { return 1 << (1 + f.exponent_bits + f.mantissa_bits); }

// The value of a code by the definition: (-1)^s * 2^(e - bias) * 1.m, subnormals 2^(1 - bias) * 0.m.
double oracle_value(const Format& f, int code) {
  const int sign = code >> (f.exponent_bits + f.mantissa_bits);
  const int e = code >> f.mantissa_bits & ((1 << f.exponent_bits) - 1);
  const int m = code & ((1 << f.mantissa_bits) - 1);
  if (f.fnuz && sign == 1 && e == 0 && m == 0) return kNan;
  if (f.nan >= 0 && (code & 0x7f) == f.nan) return kNan;
  if (f.infinities && e == (1 << f.exponent_bits) - 1) return m != 0 ? kNan : sign != 0 ? -kInf : kInf;
  const double fraction = m / std::pow(2.0, f.mantissa_bits);
  const double value = e == 0 ? std::pow(2.0, 1 - f.bias) * fraction : std::pow(2.0, e - f.bias) * (1 + fraction);
  return sign != 0 ? -value : value;
}

double value_of(const Format& f, int code) {
  const auto bits = static_cast<std::uint16_t>(code);
  if (f.dtype == DType::f16) return half_to_float(bits);
  if (f.dtype == DType::bf16) return bfloat16_to_float(bits);
  if (f.dtype == DType::f4e2m1) return fp4_to_float(static_cast<std::uint8_t>(code));
  return fp8_to_float(static_cast<std::uint8_t>(code), f.dtype);
}

int code_of(const Format& f, float value) {
  if (f.dtype == DType::f16) return float_to_half(value);
  if (f.dtype == DType::bf16) return float_to_bfloat16(value);
  if (f.dtype == DType::f4e2m1) return float_to_fp4(value);
  return float_to_fp8(value, f.dtype);
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

// The positive finite values in ascending order; their index is their code.
std::vector<double> positives(const Format& f) {
  std::vector<double> values;
  for (int code = 0; code < code_count(f) / 2; ++code) {
    const double value = oracle_value(f, code);
    if (!std::isfinite(value)) break;
    values.push_back(value);
  }
  return values;
}

TEST_CASE("every code of every small float has the value of its definition") {
  for (const Format& f : kFormats) {
    CAPTURE(dtype_name(f.dtype));
    for (int code = 0; code < code_count(f); ++code) {
      if (!same(value_of(f, code), oracle_value(f, code))) {
        CAPTURE(code, value_of(f, code), oracle_value(f, code));
        FAIL();
      }
    }
  }
}

TEST_CASE("known limits of the small floats") {
  CHECK(half_to_float(0x7bff) == 65504.0F);
  CHECK(half_to_float(1) == 0x1p-24F);
  CHECK(fp8_to_float(0x7e, DType::f8e4m3fn) == 448.0F);
  CHECK(fp8_to_float(0x7f, DType::f8e4m3fnuz) == 240.0F);
  CHECK(fp8_to_float(0x7b, DType::f8e5m2) == 57344.0F);
  CHECK(fp8_to_float(0x7f, DType::f8e5m2fnuz) == 57344.0F);
  CHECK(std::isnan(fp8_to_float(0xff, DType::f8e4m3fn)));
  CHECK(std::isnan(fp8_to_float(0x80, DType::f8e5m2fnuz)));
  CHECK(std::isinf(fp8_to_float(0x7c, DType::f8e5m2)));
  CHECK(std::vector<float>{fp4_to_float(1), fp4_to_float(5), fp4_to_float(15)} ==
        std::vector<float>{0.5F, 3.0F, -6.0F});
}

TEST_CASE("every finite value encodes as its own code") {
  for (const Format& f : kFormats) {
    CAPTURE(dtype_name(f.dtype));
    for (int code = 0; code < code_count(f); ++code) {
      const double value = oracle_value(f, code);
      if (std::isfinite(value) && code_of(f, static_cast<float>(value)) != code) FAIL(code);
    }
  }
}

TEST_CASE("between neighbours the nearer wins, half way the even one") {
  for (const Format& f : kFormats) {
    CAPTURE(dtype_name(f.dtype));
    const std::vector<double> values = positives(f);
    const int sign = code_count(f) / 2;
    for (std::size_t i = 0; i + 1 < values.size(); ++i) {
      const double middle = (values[i] + values[i + 1]) / 2;
      const auto at = static_cast<float>(middle);
      if (static_cast<double>(at) != middle) continue;  // below the smallest float: bfloat16's subnormals
      const int low = static_cast<int>(i), high = low + 1, even = low % 2 == 0 ? low : high;
      CAPTURE(middle);
      if (code_of(f, at) != even) FAIL("tie");
      if (code_of(f, std::nextafterf(at, 0.0F)) != low) FAIL("just below");
      if (code_of(f, std::nextafterf(at, std::numeric_limits<float>::infinity())) != high) FAIL("just above");
      const int negative = f.fnuz && even == 0 ? 0 : even + sign;
      if (code_of(f, -at) != negative) FAIL("negative tie");
    }
  }
}

TEST_CASE("beyond the largest value: infinity, or the largest value where the format saturates") {
  for (const Format& f : kFormats) {
    CAPTURE(dtype_name(f.dtype));
    const std::vector<double> values = positives(f);
    const int largest = static_cast<int>(values.size()) - 1;
    const int beyond = f.saturates ? largest : largest + 1;
    CHECK(code_of(f, std::numeric_limits<float>::infinity()) == beyond);
    CHECK(code_of(f, -std::numeric_limits<float>::infinity()) == beyond + code_count(f) / 2);
    if (f.dtype != DType::bf16) CHECK(code_of(f, 1e30F) == beyond);
    CHECK(code_of(f, std::numeric_limits<float>::max()) == beyond);
    // What would round to the largest value still does.
    const double step = values.back() - values[values.size() - 2];
    const auto edge = static_cast<float>(values.back() + step / 2);
    CHECK(code_of(f, std::nextafterf(edge, 0.0F)) == largest);
    CHECK(code_of(f, edge) == beyond);
  }
}

TEST_CASE("NaN stays NaN, zero keeps its sign where there is one") {
  for (const Format& f : kFormats) {
    CAPTURE(dtype_name(f.dtype));
    const auto nan = std::numeric_limits<float>::quiet_NaN();
    if (f.dtype == DType::f4e2m1) {
      CHECK(fp4_to_float(float_to_fp4(nan)) == 6.0F);
    } else {
      CHECK(std::isnan(value_of(f, code_of(f, nan))));
      CHECK(std::isnan(value_of(f, code_of(f, -nan))));
      CHECK(std::isnan(value_of(f, code_of(f, std::bit_cast<float>(0x7f800001U)))));  // no payload turns it to infinity
    }
    CHECK(code_of(f, 0.0F) == 0);
    CHECK(code_of(f, -0.0F) == (f.fnuz ? 0 : code_count(f) / 2));
    CHECK(code_of(f, 1e-45F) == 0);
  }
}

TEST_CASE("double converts to a small float with one rounding") {
  // Just above a tie of float16: rounding to float first would land on the tie and go down to even.
  const double above = 1.0 + 0x1p-11 + 0x1p-40;
  const Tensor wide = Tensor::scalar<double>(DType::f64, above);
  CHECK(convert(wide.view(), DType::f16)->as<std::uint16_t>()[0] == 0x3c01);
  // The same with an integer that no double holds: 2^62 + 2^54 is a tie of bfloat16, one more is above it.
  const Tensor integer =
      Tensor::scalar<std::int64_t>(DType::i64, (std::int64_t{1} << 62) + (std::int64_t{1} << 54) + 1);
  CHECK(bfloat16_to_float(convert(integer.view(), DType::bf16)->as<std::uint16_t>()[0]) == 0x1p62F + 0x1p55F);
}

// --- types and sizes ---

TEST_CASE("names go both ways and match the ONNX text syntax") {
  for (int value = 1; value <= 23; ++value) {
    const auto dtype = static_cast<DType>(value);
    CHECK(is_known(dtype));
    CHECK(dtype_from_name(dtype_name(dtype)) == dtype);
  }
  CHECK(dtype_name(DType::f32) == "float");
  CHECK(dtype_name(DType::f8e4m3fnuz) == "float8e4m3fnuz");
  CHECK_FALSE(is_known(DType::undefined));
  CHECK_FALSE(is_known(static_cast<DType>(24)));
  CHECK_FALSE(is_known(static_cast<DType>(-1)));
  CHECK_FALSE(dtype_from_name("undefined"));
  CHECK_FALSE(dtype_from_name("float33"));
  CHECK(bit_width(static_cast<DType>(99)) == 0);
}

TEST_CASE("floats and integers are told apart") {
  CHECK((is_float(DType::bf16) && is_float(DType::f4e2m1) && is_float(DType::f64)));
  CHECK_FALSE((is_float(DType::i8) || is_float(DType::c64) || is_float(DType::string)));
  CHECK((is_integer(DType::u4) && is_integer(DType::i64)));
  CHECK_FALSE((is_integer(DType::boolean) || is_integer(DType::f16) || is_integer(DType::undefined)));
}

TEST_CASE("counts never wrap") {
  const auto big = static_cast<std::int64_t>(kHuge);
  CHECK(element_count(Dims{}) == 1);
  CHECK(element_count(Dims{2, 3, 4}) == 24);
  CHECK(element_count(Dims{big}) == kHuge);
  CHECK(element_count(Dims{0, big, big}) == 0);
  CHECK_FALSE(element_count(Dims{big, 2}));
  CHECK_FALSE(element_count(Dims{std::int64_t{1} << 32, std::int64_t{1} << 32}));  // 2^64 would wrap to 0
  CHECK_FALSE(element_count(Dims{-1, 2}));
  CHECK_FALSE(element_count(Dims{0, -1}));
}

TEST_CASE("bytes: 4-bit types round up, overflow is no number") {
  const auto big = static_cast<std::int64_t>(kHuge);
  CHECK(byte_count(DType::f32, Dims{2, 3}) == 24);
  CHECK(byte_count(DType::u4, Dims{3}) == 2);
  CHECK(byte_count(DType::i4, Dims{4}) == 2);
  CHECK(byte_count(DType::f4e2m1, Dims{}) == 1);
  CHECK(byte_count(DType::i4, Dims{0}) == 0);
  CHECK(byte_count(DType::i4, Dims{big}) == kHuge / 2);
  CHECK(byte_count(DType::c128, Dims{2}) == 32);
  CHECK(byte_count(DType::u16, Dims{big}) == 2 * kHuge);
  CHECK_FALSE(byte_count(DType::f32, Dims{big}));
  CHECK_FALSE(byte_count(DType::string, Dims{1}));
  CHECK_FALSE(byte_count(DType::undefined, Dims{1}));
  CHECK_FALSE(byte_count(DType::f32, Dims{-1}));
  CHECK(dims_text(Dims{64, 3}) == "[64, 3]");
  CHECK(dims_text(Dims{}) == "[]");
}

// --- Tensor ---

TEST_CASE("shared bytes become private on the first change") {
  auto source = std::make_shared<std::vector<std::byte>>(8, std::byte{1});
  Tensor tensor(DType::i32, {2}, *source, source);
  CHECK(tensor.bytes().data() == source->data());
  const Tensor other = tensor;
  tensor.as_mutable<std::int32_t>()[0] = 5;
  CHECK(tensor.as<std::int32_t>()[0] == 5);
  CHECK((*source)[0] == std::byte{1});
  CHECK(other.as<std::int32_t>()[0] == 0x01010101);
  // Without anything that keeps the bytes they are copied.
  const Tensor copied(DType::i32, {2}, *source, nullptr);
  CHECK(copied.bytes().data() != source->data());
  CHECK(copied.bytes().size() == 8);
}

TEST_CASE("tensors are made zero, from values, and reshaped") {
  const Tensor zero(DType::i4, {3});
  CHECK(zero.bytes().size() == 2);
  CHECK(zero.bytes()[1] == std::byte{0});
  Tensor tensor = Tensor::of_floats({2, 2}, std::vector<float>{1, 2, 3, 4});
  tensor.reshape({4});
  CHECK(tensor.dims() == Dims{4});
  CHECK(tensor.as<float>()[3] == 4);
  CHECK(Tensor::scalar<float>(DType::f32, 2.5F).size() == 1);
}

// --- convert ---

template <class T>
std::vector<T> values_of(const Result<Tensor>& tensor) {
  REQUIRE(tensor);
  const auto span = tensor->as<T>();
  return {span.begin(), span.end()};
}

TEST_CASE("floats to integers: half to even, saturating, NaN to zero") {
  const auto f = [](std::vector<double> values) {
    return Tensor::of<double>(DType::f64, {static_cast<std::int64_t>(values.size())}, values);
  };
  const Tensor x = f({0.5, 1.5, 2.5, -0.5, -1.5, 127.5, 1e30, -1e30, kInf, -kInf, kNan});
  CHECK(values_of<std::int8_t>(convert(x.view(), DType::i8)) ==
        std::vector<std::int8_t>{0, 2, 2, 0, -2, 127, 127, -128, 127, -128, 0});
  CHECK(values_of<std::uint8_t>(convert(x.view(), DType::u8)) ==
        std::vector<std::uint8_t>{0, 2, 2, 0, 0, 128, 255, 0, 255, 0, 0});
  constexpr auto max64 = std::numeric_limits<std::int64_t>::max(), min64 = std::numeric_limits<std::int64_t>::min();
  CHECK(values_of<std::int64_t>(convert(f({0x1p63, -0x1p63, kInf, -kInf, kNan, 3}).view(), DType::i64)) ==
        std::vector<std::int64_t>{max64, min64, max64, min64, 0, 3});
  CHECK(values_of<std::uint64_t>(convert(f({0x1p64, -1, 0x1p63}).view(), DType::u64)) ==
        std::vector<std::uint64_t>{~std::uint64_t{0}, 0, std::uint64_t{1} << 63});
  CHECK(values_of<std::uint8_t>(convert(f({0, -0.0, 0.1, kNan}).view(), DType::boolean)) ==
        std::vector<std::uint8_t>{0, 0, 1, 1});
}

TEST_CASE("integers to integers saturate") {
  const Tensor x =
      Tensor::of_int64s({5}, std::vector<std::int64_t>{-1, 300, 7, -300, std::numeric_limits<std::int64_t>::max()});
  CHECK(values_of<std::uint8_t>(convert(x.view(), DType::u8)) == std::vector<std::uint8_t>{0, 255, 7, 0, 255});
  CHECK(values_of<std::int8_t>(convert(x.view(), DType::i8)) == std::vector<std::int8_t>{-1, 127, 7, -128, 127});
  CHECK(values_of<std::uint64_t>(convert(x.view(), DType::u64))[0] == 0);
  CHECK(values_of<std::uint64_t>(convert(x.view(), DType::u64))[4] == std::numeric_limits<std::int64_t>::max());
  const Tensor big = Tensor::scalar<std::uint64_t>(DType::u64, ~std::uint64_t{0});
  CHECK(values_of<std::int64_t>(convert(big.view(), DType::i64))[0] == std::numeric_limits<std::int64_t>::max());
  CHECK(values_of<double>(convert(big.view(), DType::f64))[0] == 0x1p64);
}

TEST_CASE("4-bit types are packed low nibble first and pad with zero") {
  const Tensor x = Tensor::of_floats({5}, std::vector<float>{-8, 7, -1, 99, -99});
  const auto packed = convert(x.view(), DType::i4);
  REQUIRE(packed);
  CHECK(values_of<std::uint8_t>(packed) == std::vector<std::uint8_t>{0x78, 0x7f, 0x08});
  CHECK(*to_floats(packed->view()) == std::vector<float>{-8, 7, -1, 7, -8});
  CHECK(*to_int64s(packed->view()) == std::vector<std::int64_t>{-8, 7, -1, 7, -8});
  const auto positive = convert(x.view(), DType::u4);
  CHECK(*to_int64s(positive->view()) == std::vector<std::int64_t>{0, 7, 0, 15, 0});
  const auto four = convert(x.view(), DType::f4e2m1);
  CHECK(*to_floats(four->view()) == std::vector<float>{-6, 6, -1, 6, -6});
}

TEST_CASE("every code of a small integer and float survives the way through every wider type") {
  const auto to_and_back = [](const Tensor& x, DType wide) {
    const auto there = convert(x.view(), wide);
    REQUIRE(there);
    const auto back = convert(there->view(), x.dtype());
    REQUIRE(back);
    CAPTURE(dtype_name(x.dtype()), dtype_name(wide));
    CHECK(std::ranges::equal(back->bytes(), x.bytes()));
  };
  std::vector<std::byte> all(256);
  for (std::size_t i = 0; i < 256; ++i) all[i] = static_cast<std::byte>(i);
  for (const DType wide : {DType::f32, DType::f64, DType::f16, DType::i32, DType::i64, DType::i16}) {
    to_and_back(Tensor(DType::i8, {256}, all), wide);
    to_and_back(Tensor(DType::u8, {256}, all), wide);
    to_and_back(Tensor(DType::i4, {512}, all), wide);
    to_and_back(Tensor(DType::u4, {511},
                       [&] {
                         auto odd = all;
                         odd[255] &= std::byte{15};
                         return odd;
                       }()),
                wide);
  }
  for (const DType wide : {DType::f32, DType::f64, DType::f16, DType::bf16}) {
    to_and_back(Tensor(DType::f4e2m1, {512}, all), wide);
  }
}

TEST_CASE("bulk conversion equals the scalar functions") {
  std::mt19937 random(7);
  std::vector<float> values(5000);
  for (float& value : values) value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
  const Tensor x = Tensor::of_floats({5000}, values);
  for (const Format& f : kFormats) {
    CAPTURE(dtype_name(f.dtype));
    const auto small = convert(x.view(), f.dtype);
    REQUIRE(small);
    const auto back = to_floats(small->view());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!same(static_cast<double>((*back)[i]), value_of(f, code_of(f, values[i])))) FAIL(values[i]);
    }
    // By way of double the same codes.
    const auto again = to_floats(convert(convert(x.view(), DType::f64)->view(), f.dtype)->view());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!same(static_cast<double>((*again)[i]), static_cast<double>((*back)[i]))) FAIL(values[i]);
    }
  }
}

TEST_CASE("what holds no numbers, or not its bytes, is refused") {
  const Tensor x = Tensor::of_floats({2}, std::vector<float>{1, 2});
  CHECK(convert(x.view(), DType::c64).error().code == Code::unsupported);
  CHECK(convert(x.view(), DType::string).error().code == Code::unsupported);
  CHECK(convert(Tensor(DType::c64, {1}).view(), DType::f32).error().code == Code::unsupported);
  const Dims three = {3};
  CHECK(convert({DType::f32, three, x.bytes()}, DType::f16).error().code == Code::bad_input);
  CHECK(to_floats({DType::f32, three, x.bytes()}).error().code == Code::bad_input);
  CHECK(to_int64s(x.view()).error().code == Code::bad_input);
  CHECK(to_int64s(Tensor::scalar<std::uint64_t>(DType::u64, ~std::uint64_t{0}).view()).error().code == Code::bad_input);
  CHECK(*to_int64s(Tensor::scalar<std::uint8_t>(DType::boolean, 1).view()) == std::vector<std::int64_t>{1});
}

// --- ValueType ---

TEST_CASE("shapes are static only when every dim is known") {
  ValueType type{DType::f32, std::vector<Dim>{{4, ""}, {std::nullopt, "batch"}}, true};
  CHECK(type.rank() == 2);
  CHECK_FALSE(type.static_shape());
  CHECK(type.dim(0) == 4);
  CHECK_FALSE(type.dim(1));
  CHECK_FALSE(type.dim(2));
  (*type.shape)[1] = {3, ""};
  CHECK(type.static_shape() == Dims{4, 3});
  CHECK_FALSE(ValueType{}.static_shape());
  CHECK_FALSE(ValueType{}.rank());
}

}  // namespace
}  // namespace onnxpress
