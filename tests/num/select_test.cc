#include "num/select.h"

#include <algorithm>
#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "support/models.h"

namespace onnxpress {
namespace {

using testing::random_floats;

Tensor floats(const std::vector<float>& values) {
  return Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values);
}
Tensor halves(const std::vector<std::uint16_t>& bits, DType dtype = DType::f16) {
  return Tensor::of<std::uint16_t>(dtype, {static_cast<std::int64_t>(bits.size())}, bits);
}
Tensor doubles(const std::vector<double>& values) {
  return Tensor::of<double>(DType::f64, {static_cast<std::int64_t>(values.size())}, values);
}

// The oracle: sort all magnitudes with their place, zero the first k.
std::vector<double> pruned_by_sort(std::vector<double> values, std::uint64_t k) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    const bool nan_a = std::isnan(values[a]), nan_b = std::isnan(values[b]);
    return nan_a || nan_b ? !nan_a && nan_b : std::abs(values[a]) < std::abs(values[b]);
  });
  for (std::size_t i = 0; i < k; ++i) values[order[i]] = 0;
  return values;
}

std::vector<double> as_doubles(const Tensor& tensor) {
  std::vector<double> values;
  switch (tensor.dtype()) {
    case DType::f64:
      return {tensor.as<double>().begin(), tensor.as<double>().end()};
    case DType::f32:
      return {tensor.as<float>().begin(), tensor.as<float>().end()};
    case DType::f16:
      for (const std::uint16_t bits : tensor.as<std::uint16_t>()) values.push_back(half_to_float(bits));
      return values;
    default:
      for (const std::uint16_t bits : tensor.as<std::uint16_t>()) values.push_back(bfloat16_to_float(bits));
      return values;
  }
}

void prune(std::vector<Tensor>& tensors, std::uint64_t k, bool wide) {
  MagnitudeSelect select(k, wide);
  while (!select.done()) {
    for (const Tensor& tensor : tensors) select.add(select.count(tensor.view()));
    select.end_round();
  }
  const MagnitudeCut cut = select.cut();
  std::uint64_t ties = cut.ties;
  for (Tensor& tensor : tensors) {
    zero_below(tensor, cut);
    ties -= zero_ties(tensor, cut, ties);
  }
}

bool same(const std::vector<double>& a, const std::vector<double>& b) {
  return std::ranges::equal(a, b, [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

// Every k on the tensors as one list.
void require_like_sort(const std::vector<Tensor>& tensors, bool wide) {
  std::vector<double> all;
  for (const Tensor& tensor : tensors) std::ranges::copy(as_doubles(tensor), std::back_inserter(all));
  for (std::uint64_t k = 0; k <= all.size(); ++k) {
    std::vector<Tensor> pruned = tensors;
    prune(pruned, k, wide);
    std::vector<double> got;
    for (const Tensor& tensor : pruned) std::ranges::copy(as_doubles(tensor), std::back_inserter(got));
    INFO("k = " << k);
    REQUIRE(same(got, pruned_by_sort(all, k)));
  }
}

}  // namespace

TEST_CASE("fraction_of is the floor of the decimal product") {
  for (std::uint64_t percent = 0; percent <= 100; ++percent)
    for (const std::uint64_t n : {0ULL, 1ULL, 7ULL, 100ULL, 999ULL, 4096ULL, 1'500'000'001ULL})
      REQUIRE(fraction_of(static_cast<double>(percent) / 100, n) == percent * n / 100);
  CHECK(fraction_of(1.0 / 3, 3) == 1);
  CHECK(fraction_of(0.9999, 10) == 9);
}

TEST_CASE("Only float types of 16 bits and more have magnitudes") {
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32, DType::f64}) CHECK(has_magnitudes(dtype));
  for (const DType dtype : {DType::i8, DType::u8, DType::i32, DType::f8e4m3fn, DType::f4e2m1, DType::c64})
    CHECK_FALSE(has_magnitudes(dtype));
}

TEST_CASE("Selection equals a stable sort") {
  SECTION("random floats") { require_like_sort({floats(random_floats(300, 1))}, false); }
  SECTION("many ties") {
    std::vector<float> values = random_floats(200, 2);
    for (float& value : values) value = std::round(value * 4) / 4;
    require_like_sort({floats(values)}, false);
  }
  SECTION("every kind of number") {
    using limits = std::numeric_limits<float>;
    require_like_sort(
        {floats({limits::quiet_NaN(), -0.0F, limits::infinity(), 1, limits::denorm_min(), -limits::max(),
                 -limits::denorm_min(), 0, limits::min(), -limits::infinity(), -1, -limits::quiet_NaN()})},
        false);
  }
  SECTION("half") {
    require_like_sort({halves({0x7e00, 0x8000, 0x7c00, 0x3c00, 0x0001, 0xfbff, 0x8001, 0, 0x0400, 0xbc00, 0x3c00})},
                      false);
  }
  SECTION("bfloat16") {
    require_like_sort(
        {halves({0x7fc0, 0x8000, 0x7f80, 0x3f80, 0x0001, 0xff7f, 0x8001, 0, 0x0080, 0xbf80}, DType::bf16)}, false);
  }
  SECTION("double tells apart what float does not") {
    require_like_sort({doubles({1 + 1e-12, 1, -(1 + 1e-13), 1e-300, -1e-320, 0, 1 + 1e-12, 1e300})}, true);
  }
  SECTION("several tensors, ties across them, an empty one") {
    require_like_sort({floats({1, 2, 3, 1}), floats({}), floats({-1, 5, 1, 0}), floats({1, 1, 9})}, false);
  }
  SECTION("mixed types") {
    require_like_sort({floats({1, 0.5F, 2}), halves({0x3c00, 0x3800, 0x4200}), doubles({1, 0.25, 1 + 1e-12})}, true);
  }
}

TEST_CASE("The cut says how many ties it takes") {
  const Tensor tensor = floats({3, 1, -2, 2, 2, 5});
  const MagnitudeCut cut = smallest_magnitudes(tensor.view(), 3);
  CHECK(cut.key == std::bit_cast<std::uint32_t>(2.0F));
  CHECK(cut.ties == 2);
  CHECK_FALSE(cut.wide);
  CHECK(smallest_magnitudes(doubles({1, 2}).view(), 1).wide);
}

TEST_CASE("Nothing is touched when nothing is selected") {
  const std::vector<float> values = {-0.0F, 0, 1, 2};
  for (const std::uint64_t k : {0, 1, 2}) {
    Tensor tensor = floats(values);
    const MagnitudeCut cut = smallest_magnitudes(tensor.view(), k);
    CHECK(zero_below(tensor, cut) == 0);
    CHECK(zero_ties(tensor, cut, cut.ties) == 0);
    CHECK(std::ranges::equal(tensor.bytes(), std::as_bytes(std::span(values))));  // -0 keeps its sign
  }
}

TEST_CASE("Shared bytes are not written to") {
  const auto values = std::make_shared<std::vector<float>>(std::vector<float>{1, -2, 3});
  Tensor tensor(DType::f32, {3}, std::as_bytes(std::span(*values)), values);
  CHECK(zero_below(tensor, smallest_magnitudes(tensor.view(), 2)) == 1);
  CHECK(*values == std::vector<float>{1, -2, 3});
  CHECK(tensor.as<float>()[0] == 0);
}

TEST_CASE("count_zeros counts both zeros and nothing else") {
  CHECK(count_zeros(floats({0, -0.0F, std::numeric_limits<float>::denorm_min(), 1}).view()) == 2);
  CHECK(count_zeros(halves({0x8000, 0x0001, 0}).view()) == 2);
  CHECK(count_zeros(doubles({1e-320, 0}).view()) == 1);
  CHECK(count_zeros(floats({}).view()) == 0);
}

}  // namespace onnxpress
