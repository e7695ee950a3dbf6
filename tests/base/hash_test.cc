#include "base/hash.h"

#include <catch2/catch_test_macros.hpp>
#include <vector>

namespace onnxpress {
namespace {

TEST_CASE("the hash is XXH3-128 in hexadecimal") {
  // The published value for empty input and seed 0.
  CHECK(hash_hex({}) == "99aa06d3014798d86001c324468d497f");
}

TEST_CASE("how the bytes are cut into pieces does not matter, their content does") {
  std::vector<std::byte> bytes(100'000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 >> 3U);
  Hasher pieces;
  for (std::size_t i = 0; i < bytes.size(); i += 333) {
    pieces.add(std::span(bytes).subspan(i, std::min<std::size_t>(333, bytes.size() - i)));
  }
  const std::string whole = hash_hex(bytes);
  CHECK(pieces.hex() == whole);
  CHECK(whole.size() == 32);
  CHECK(pieces.hex() == whole);  // reading does not change the state
  bytes[50'000] ^= std::byte{1};
  CHECK(hash_hex(bytes) != whole);
}

TEST_CASE("text and bytes hash alike") {
  const std::string text = "onnxpress";
  CHECK(Hasher().add(text).hex() == hash_hex(std::as_bytes(std::span(text))));
}

}  // namespace
}  // namespace onnxpress
