#include "num/sparse_codec.h"

#include <algorithm>
#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "support/models.h"

namespace onnxpress {
namespace {

using Positions = std::vector<std::uint32_t>;

// What a runtime does: a running sum, a scatter.
std::vector<float> decoded(const Tensor& gaps, const Tensor& values, std::size_t size) {
  std::vector<float> out(size, 0);
  std::size_t at = 0;
  for (std::size_t i = 0; i < gaps.size(); ++i) {
    at += gaps.dtype() == DType::u8 ? gaps.as<std::uint8_t>()[i] : gaps.as<std::uint16_t>()[i];
    out.at(at) = values.as<float>()[i];
  }
  return out;
}

Tensor floats(const std::vector<float>& values) {
  return Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values);
}
Tensor bytes(DType dtype, const std::vector<std::uint8_t>& values) {
  return Tensor(dtype, {static_cast<std::int64_t>(values.size())},
                {reinterpret_cast<const std::byte*>(values.data()),
                 reinterpret_cast<const std::byte*>(values.data() + values.size())});
}

TEST_CASE("sparse codec: whatever is stored comes back bit by bit") {
  for (const std::size_t size : {1U, 2U, 255U, 256U, 257U, 70000U})
    for (const unsigned keep_one_of : {1U, 2U, 10U, 300U, 40000U, 1000000U})
      for (const DType type : {DType::u8, DType::u16}) {
        std::vector<float> values = testing::random_floats(size, keep_one_of);
        for (std::size_t i = 0; i < size; ++i)
          if ((i * 7919 + 13) % keep_one_of != 0) values[i] = 0;
        if (size > 2) values[2] = -0.0F;
        const Tensor dense = floats(values);
        const Tensor fill = common_value(dense.view());
        const Positions entries =
            bridged(positions_of_others(dense.view(), fill.view()), type == DType::u8 ? 0xff : 0xffff);
        const Tensor gaps = gaps_of(entries, type);
        const std::vector<float> back = decoded(gaps, take(dense.view(), entries), size);
        INFO(size << " " << keep_one_of);
        CHECK(std::ranges::equal(std::as_bytes(std::span(back)), dense.bytes()));
        const auto positions = positions_of(gaps.view(), size);
        REQUIRE(positions);
        CHECK(*positions == entries);
      }
}

TEST_CASE("sparse codec: distances that do not fit are bridged, and no others") {
  CHECK(bridged(Positions{0, 255}, 255) == Positions{0, 255});
  CHECK(bridged(Positions{256}, 255) == Positions{255, 256});
  CHECK(bridged(Positions{3, 3 + 511}, 255) == Positions{3, 258, 513, 514});
  CHECK(bridged(Positions{510}, 255) == Positions{255, 510});
  CHECK(bridged(Positions{}, 255) == Positions{0});
}

TEST_CASE("sparse codec: gaps of a bad file are refused") {
  const Tensor gaps = bytes(DType::u8, {200, 200});
  CHECK(positions_of(gaps.view(), 401));
  CHECK_FALSE(positions_of(gaps.view(), 400));
  CHECK_FALSE(positions_of(floats({1, 2}).view(), 10));
}

TEST_CASE("sparse codec: the common value is zero, or the most frequent code") {
  CHECK(common_value(floats({3, 3, 3}).view()).as<float>()[0] == 0);
  CHECK(common_value(bytes(DType::u8, {128, 7, 128}).view()).as<std::uint8_t>()[0] == 128);
  CHECK(common_value(bytes(DType::i8, {5, 5, 4, 4, 9}).view()).as<std::int8_t>()[0] == 4);
  const Tensor codes = bytes(DType::u8, {128, 7, 128});
  CHECK(positions_of_others(codes.view(), common_value(codes.view()).view()) == Positions{1});
}

TEST_CASE("sparse codec: a codebook has each value once, by bits, or there is none") {
  const Tensor values = floats({2, -1, 2, 0.0F, -0.0F});
  const auto book = codebook_of(values.view());
  REQUIRE(book);
  CHECK(book->table.size() == 4);
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(std::bit_cast<std::uint32_t>(book->table.as<float>()[book->codes.as<std::uint8_t>()[i]]) ==
          std::bit_cast<std::uint32_t>(values.as<float>()[i]));
  std::vector<float> many(256);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<float>(i);
  CHECK(codebook_of(floats(many).view()));
  many.push_back(256);
  CHECK_FALSE(codebook_of(floats(many).view()));
}

}  // namespace
}  // namespace onnxpress
