#include "data/resize.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>

#include "files.h"
#include "npz/npz.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

// testdata/images/golden.npz, made by testdata/scripts/make_image_goldens.py with Pillow.
Image golden(const std::string& key) {
  auto npz = NpzFile::open(ONNXPRESS_SOURCE_DIR "/testdata/images/golden.npz");
  REQUIRE(npz);
  auto reader = npz->array(key);
  REQUIRE(reader);
  const Dims& dims = reader->dims();
  Image image = Image::blank(static_cast<int>(dims[1]), static_cast<int>(dims[0]), dims.size() == 3 ? 3 : 1);
  REQUIRE(reader->read(std::as_writable_bytes(std::span(image.pixels))));
  return image;
}

int largest_difference(const Image& a, const Image& b) {
  REQUIRE(a.width == b.width);
  REQUIRE(a.height == b.height);
  REQUIRE(a.channels == b.channels);
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  return largest;
}

}  // namespace

TEST_CASE("resize: the pixels of Pillow's Image.resize, up, down and on one axis") {
  const Image source = golden("source");
  for (const Filter filter : {Filter::bicubic, Filter::bilinear}) {
    for (const auto& [width, height] : {std::pair(16, 16), {97, 19}, {23, 80}, {37, 11}, {9, 53}, {61, 70}, {1, 1}}) {
      const std::string key = fmt::format("{}_{}x{}", filter_name(filter), width, height);
      INFO(key);
      // The same arithmetic: not within one level but equal.
      CHECK(largest_difference(resize(source, width, height, filter), golden(key)) == 0);
    }
    const std::string gray = fmt::format("gray_{}_16x16", filter_name(filter));
    CHECK(largest_difference(resize(to_gray(source), 16, 16, filter), golden(gray)) == 0);
  }
}

TEST_CASE("resize: the same size is the same image, a flat image stays flat") {
  const Image source = golden("source");
  CHECK(resize(source, 37, 53, Filter::bicubic).pixels == source.pixels);
  const Image flat = Image::blank(13, 7, 3, 200);
  for (const Filter filter : {Filter::bicubic, Filter::bilinear}) {
    const Image larger = resize(flat, 50, 3, filter);
    CHECK(std::ranges::all_of(larger.pixels, [](std::uint8_t pixel) { return pixel == 200; }));
  }
}

TEST_CASE("decode: the pixels Pillow decodes, from every format and colour") {
  for (const char* name : {"rgb_420.jpg", "progressive.jpg", "gray.jpg", "gray.png", "palette.png", "alpha.png",
                           "lossless.webp", "lossy.webp"}) {
    INFO(name);
    const std::string bytes = read_file(std::string(ONNXPRESS_SOURCE_DIR "/testdata/images/") + name);
    const auto image = decode_image(std::as_bytes(std::span(bytes)));
    REQUIRE(image);
    CHECK(largest_difference(*image, golden(name)) == 0);
  }
  const std::string bytes = read_file(ONNXPRESS_SOURCE_DIR "/testdata/images/cmyk.jpg");
  CHECK(largest_difference(decode_image(std::as_bytes(std::span(bytes))).value(), golden("cmyk.jpg")) <= 1);
}
