#include "num/quantize.h"

#include <hwy/targets.h>

#include <bit>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace onnxpress {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Runs `check` with every instruction set this program was built for and this machine has.
template <class Fn>
void on_every_target(Fn&& check) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    INFO("instruction set " << hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    check();
  }
  hwy::SetSupportedTargetsForTest(0);
}

// Floats of all magnitudes, with ties, both zeros, NaN and infinities among them when `odd`.
std::vector<float> mixed(std::size_t n, unsigned seed, bool odd) {
  std::mt19937 random(seed);
  std::vector<float> values(n);
  for (float& value : values) {
    const auto bits = static_cast<std::uint32_t>(random());
    switch (bits % 8) {
      case 0:
        value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
        break;
      case 1:
        value = static_cast<float>(static_cast<int>(bits >> 8U) % 600 - 300) / 2;
        break;  // ties for scale 1
      case 2:
        value = bits & 8U ? -0.0F : 0.0F;
        break;
      case 3:
        value = !odd ? 1 : bits & 8U ? kNan : bits & 16U ? kInf : -kInf;
        break;
      default:
        value = static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-24F;
        break;
    }
    if (!odd && !std::isfinite(value)) value = 0;
  }
  return values;
}

// Half to even by the definition, in double, where every quotient and zero point is exact.
std::int32_t oracle(float x, AffineParams params, CodeRange codes) {
  const auto quotient = static_cast<double>(x / params.scale);
  if (std::isnan(quotient)) return std::min(std::max(params.zero_point, codes.min), codes.max);
  double whole = std::floor(quotient);
  const double rest = quotient - whole;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) != 0)) whole += 1;
  const double code = whole + params.zero_point;
  if (code < codes.min) return codes.min;
  if (code > codes.max) return codes.max;
  return static_cast<std::int32_t>(code);
}

TEST_CASE("the codes of each type") {
  CHECK(code_range(DType::i8, true) == CodeRange{-127, 127});
  CHECK(code_range(DType::i8, false) == CodeRange{-128, 127});
  CHECK(code_range(DType::i8, true, true) == CodeRange{-64, 64});
  CHECK(code_range(DType::u8, false) == CodeRange{0, 255});
  CHECK(code_range(DType::u8, false, true) == CodeRange{0, 127});
  CHECK(code_range(DType::i4, true) == CodeRange{-8, 7});
  CHECK(code_range(DType::u4, false) == CodeRange{0, 15});
  CHECK(code_range(DType::i16, true) == CodeRange{-32767, 32767});
}

TEST_CASE("scale and zero point by hand") {
  CHECK(choose_affine(-1, 3, DType::u8, false) == AffineParams{static_cast<float>(4.0 / 255), 64});  // 63.75
  CHECK(choose_affine(-1, 3, DType::i8, false) == AffineParams{static_cast<float>(4.0 / 255), -64});
  CHECK(choose_affine(-1, 3, DType::i8, true) == AffineParams{static_cast<float>(6.0 / 254), 0});
  CHECK(choose_affine(-1, 3, DType::u8, true) == AffineParams{static_cast<float>(6.0 / 255), 128});
  CHECK(choose_affine(-3, 1, DType::i4, true) == AffineParams{static_cast<float>(6.0 / 15), 0});
}

TEST_CASE("zero is always in the range and has a code of its own") {
  CHECK(choose_affine(2, 6, DType::u8, false) == AffineParams{static_cast<float>(6.0 / 255), 0});
  CHECK(choose_affine(-6, -2, DType::u8, false) == AffineParams{static_cast<float>(6.0 / 255), 255});
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-5, 5);
  for (int i = 0; i < 2000; ++i) {
    const float a = uniform(random), b = uniform(random);
    for (const DType dtype : {DType::i8, DType::u8, DType::i4, DType::u4, DType::i16, DType::u16}) {
      for (const bool symmetric : {false, true}) {
        const CodeRange codes = code_range(dtype, symmetric);
        const AffineParams params = choose_affine(std::min(a, b), std::max(a, b), dtype, symmetric);
        REQUIRE(dequantize_value(quantize_value(0, params, codes), params) == 0);
        REQUIRE((params.zero_point >= codes.min && params.zero_point <= codes.max));
      }
    }
  }
}

TEST_CASE("a range without extent gives scale 1") {
  CHECK(choose_affine(0, 0, DType::i8, true) == AffineParams{1, 0});
  CHECK(choose_affine(0, 0, DType::u8, false) == AffineParams{1, 0});
  CHECK(choose_affine(-1e-40F, 1e-40F, DType::i8, true) == AffineParams{1, 0});
  const float max = std::numeric_limits<float>::max();
  CHECK(std::isfinite(choose_affine(-max, max, DType::u8, false).scale));  // the extent is no float
}

TEST_CASE("one value: ties to even, saturation, NaN and infinity") {
  const CodeRange codes = {-128, 127};
  CHECK(quantize_value(2.5F, {1, 0}, codes) == 2);
  CHECK(quantize_value(3.5F, {1, 0}, codes) == 4);
  CHECK(quantize_value(2.5F, {1, 1}, codes) == 3);  // rounded before the zero point is added
  CHECK(quantize_value(-2.5F, {1, 0}, codes) == -2);
  CHECK(quantize_value(1e30F, {1, 5}, codes) == 127);
  CHECK(quantize_value(-kInf, {1, 5}, codes) == -128);
  CHECK(quantize_value(kNan, {1, 5}, codes) == 5);
}

template <class T>
void check_spans(CodeRange codes, AffineParams params) {
  for (const std::size_t n : {0U, 1U, 3U, 15U, 16U, 17U, 67U, 5000U}) {
    const std::vector<float> x = mixed(n, static_cast<unsigned>(n) + 1, true);
    std::vector<T> out(n + 1, T{77});
    quantize_span(x, params, codes, std::span(out).first(n));
    for (std::size_t i = 0; i < n; ++i) {
      if (out[i] != oracle(x[i], params, codes)) {
        CAPTURE(n, i, x[i], params.scale, params.zero_point, +out[i], oracle(x[i], params, codes));
        FAIL();
      }
      if (out[i] != quantize_value(x[i], params, codes)) FAIL(x[i]);
    }
    CHECK(out[n] == T{77});  // nothing behind the end is touched
  }
}

TEST_CASE("spans equal the definition on every instruction set") {
  on_every_target([] {
    for (const float scale : {1.0F, 0.5F, 0.0173F, 1e-20F, 3e30F, std::numeric_limits<float>::min()}) {
      check_spans<std::int8_t>({-127, 127}, {scale, 0});
      check_spans<std::int8_t>({-128, 127}, {scale, -37});
      check_spans<std::int8_t>({-64, 64}, {scale, 0});
      check_spans<std::uint8_t>({0, 255}, {scale, 128});
      check_spans<std::uint8_t>({0, 127}, {scale, 0});
      check_spans<std::int16_t>({-32768, 32767}, {scale, 11});
      check_spans<std::uint16_t>({0, 65535}, {scale, 40000});
    }
  });
}

TEST_CASE("biases use all of int32") {
  const std::vector<float> x = {1, -1, 0.5F, 1e30F, -1e30F, kNan, 16777217.0F};
  std::vector<std::int32_t> out(x.size());
  quantize_bias(x, 1.0, out);
  CHECK(out == std::vector<std::int32_t>{1, -1, 0, std::numeric_limits<std::int32_t>::max(),
                                         std::numeric_limits<std::int32_t>::min(), 0, 16777216});
  quantize_bias(std::vector<float>{1}, 1.0 / 1'234'567'891, std::span(out).first(1));
  CHECK(out[0] == 1'234'567'891);  // float would give 1'234'567'936
}

TEST_CASE("dequantizing is off by at most half a step inside the range") {
  const AffineParams params = choose_affine(-1.3F, 2.1F, DType::u8, false);
  std::vector<float> x(3000), back(3000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = -1.3F + 3.4F * static_cast<float>(i) / 3000;
  std::vector<std::uint8_t> q(3000);
  quantize_span(x, params, code_range(DType::u8, false), q);
  dequantize_span(q, params, back);
  for (std::size_t i = 0; i < x.size(); ++i) {
    // The rounded zero point may push the ends out by another half step.
    REQUIRE(std::fabs(back[i] - x[i]) <= params.scale * 1.001F);
    if (q[i] > 0 && q[i] < 255) REQUIRE(std::fabs(back[i] - x[i]) <= params.scale * 0.5001F);
  }
  std::vector<float> ints(2);
  dequantize_span(std::vector<std::int32_t>{-3, 1'000'000}, {0.5F, 0}, ints);
  CHECK(ints == std::vector<float>{-1.5F, 500'000});
  dequantize_span(std::vector<std::int8_t>{-128, 1}, {2, 1}, ints);
  CHECK(ints == std::vector<float>{-258, 0});
}

MinMax slow_min_max(std::span<const float> x) {
  MinMax range;
  for (const float value : x) {
    if (!std::isfinite(value)) {
      ++range.non_finite;
      continue;
    }
    if (range.finite == 0 || value < range.min) range.min = value;
    if (range.finite == 0 || value > range.max) range.max = value;
    ++range.finite;
  }
  return range;
}

TEST_CASE("min and max leave NaN and infinity out and count them, on every instruction set") {
  on_every_target([] {
    for (const std::size_t n : {0U, 1U, 2U, 15U, 16U, 33U, 4001U}) {
      for (const bool odd : {false, true}) {
        const std::vector<float> x = mixed(n, static_cast<unsigned>(n), odd);
        CHECK(min_max(x) == slow_min_max(x));
      }
    }
    CHECK(min_max(std::vector<float>(20, kNan)) == MinMax{0, 0, 0, 20});
    CHECK_FALSE(std::signbit(min_max(std::vector<float>(20, -0.0F)).min));
    CHECK_FALSE(std::signbit(min_max(std::vector<float>(20, -0.0F)).max));
    CHECK(min_max(std::vector<float>(20, -3.0F)) == MinMax{-3, -3, 20, 0});
  });
}

TEST_CASE("merged ranges equal the range of the whole") {
  const std::vector<float> x = mixed(1000, 9, true);
  MinMax merged;
  for (std::size_t i = 0; i < 1000; i += 7)
    merged.merge(min_max(std::span(x).subspan(i, std::min<std::size_t>(7, 1000 - i))));
  CHECK(merged == min_max(x));
  CHECK(MinMax{-4, 3, 2, 0}.absmax() == 4);
}

TEST_CASE("ranges per channel, for every axis of tensors of every rank") {
  for (const Dims& dims :
       {Dims{7}, Dims{5, 3}, Dims{3, 40}, Dims{4, 3, 5}, Dims{2, 3, 4, 20}, Dims{1, 1, 6}, Dims{3, 0, 2}}) {
    const std::vector<float> x = mixed(static_cast<std::size_t>(*element_count(dims)), 5, true);
    for (std::size_t axis = 0; axis < dims.size(); ++axis) {
      CAPTURE(dims_text(dims), axis);
      // Each element's channel from its coordinates, one by one.
      std::uint64_t stride = 1;
      for (std::size_t d = axis + 1; d < dims.size(); ++d) stride *= static_cast<std::uint64_t>(dims[d]);
      std::vector<std::vector<float>> channels(static_cast<std::size_t>(dims[axis]));
      for (std::size_t i = 0; i < x.size(); ++i) channels[i / stride % channels.size()].push_back(x[i]);
      const auto ranges = min_max_per_channel(x, dims, static_cast<std::int64_t>(axis));
      const auto negative =
          min_max_per_channel(x, dims, static_cast<std::int64_t>(axis) - static_cast<std::int64_t>(dims.size()));
      const auto absmax = absmax_per_channel(x, dims, static_cast<std::int64_t>(axis));
      REQUIRE((ranges && negative && absmax));
      CHECK(*ranges == *negative);
      REQUIRE(ranges->size() == channels.size());
      for (std::size_t c = 0; c < channels.size(); ++c) {
        CHECK((*ranges)[c] == slow_min_max(channels[c]));
        CHECK((*absmax)[c] == std::max(std::fabs((*ranges)[c].min), std::fabs((*ranges)[c].max)));
      }
    }
  }
}

TEST_CASE("an axis or shape that is not there is an error") {
  const std::vector<float> x(6);
  CHECK(min_max_per_channel(x, Dims{2, 3}, 2).error().code == Code::bad_input);
  CHECK(min_max_per_channel(x, Dims{2, 3}, -3).error().code == Code::bad_input);
  CHECK(min_max_per_channel(x, Dims{}, 0).error().code == Code::bad_input);
  CHECK(min_max_per_channel(x, Dims{2, 4}, 0).error().code == Code::bad_input);
  CHECK(min_max_per_channel({}, Dims{std::int64_t{1} << 60, 0}, 0).error().code == Code::bad_input);
  CHECK(choose_tensor(x, Dims{7}, DType::i8, true, std::nullopt).error().code == Code::bad_input);
  CHECK(choose_tensor(std::vector<float>{1, kNan}, Dims{2}, DType::i8, true, std::nullopt).error().code ==
        Code::bad_input);
}

TEST_CASE("tensors: per tensor and per channel, every type") {
  const Dims dims = {3, 5, 17};
  std::vector<float> x(3 * 5 * 17);
  std::mt19937 random(1);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31F * static_cast<float>(1 + i / 17 % 5);
  }
  for (const DType dtype : {DType::i4, DType::u4, DType::i8, DType::u8, DType::i16, DType::u16}) {
    for (const std::optional<std::int64_t> axis : {std::optional<std::int64_t>(), std::optional<std::int64_t>(0),
                                                   std::optional<std::int64_t>(1), std::optional<std::int64_t>(-1)}) {
      for (const bool symmetric : {false, true}) {
        CAPTURE(dtype_name(dtype), axis.value_or(99), symmetric);
        const auto how = choose_tensor(x, dims, dtype, symmetric, axis);
        REQUIRE(how);
        const std::size_t strides[] = {85, 17, 1}, sizes[] = {3, 5, 17};
        const auto q = quantize_tensor(x, dims, *how);
        REQUIRE(q);
        CHECK(q->dtype() == dtype);
        CHECK(q->dims() == dims);
        const auto codes = to_int64s(q->view());
        const auto back = dequantize_tensor(q->view(), *how);
        REQUIRE((codes && back));
        for (std::size_t i = 0; i < x.size(); ++i) {
          const auto at = static_cast<std::size_t>(axis.value_or(0) < 0 ? 2 : axis.value_or(0));
          const AffineParams params = how->params[axis ? i / strides[at] % sizes[at] : 0];
          REQUIRE((*codes)[i] == oracle(x[i], params, how->codes));
          REQUIRE(back->as<float>()[i] == dequantize_value(static_cast<std::int32_t>((*codes)[i]), params));
          REQUIRE(std::fabs(back->as<float>()[i] - x[i]) <= params.scale * 1.001F);
        }
      }
    }
  }
}

}  // namespace
}  // namespace onnxpress
