#include "data/image.h"

#include <catch2/catch_test_macros.hpp>

#include "files.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

std::string test_image(const std::string& name) { return read_file(ONNXPRESS_SOURCE_DIR "/testdata/images/" + name); }

Result<Image> decode(const std::string& bytes) { return decode_image(std::as_bytes(std::span(bytes))); }

}  // namespace

TEST_CASE("image: a cut-off file is an error, whatever the format") {
  for (const char* name :
       {"rgb_420.jpg", "progressive.jpg", "cmyk.jpg", "gray.png", "palette.png", "lossless.webp", "lossy.webp"}) {
    const std::string whole = test_image(name);
    REQUIRE(decode(whole));
    for (const std::size_t cut : {whole.size() / 8, whole.size() / 2, whole.size() * 3 / 4}) {
      INFO(name << " cut to " << cut);
      const auto image = decode(whole.substr(0, cut));
      REQUIRE_FALSE(image);
      CHECK(image.error().code == Code::bad_input);
    }
  }
}

TEST_CASE("image: no flipped byte crashes") {
  for (const char* name :
       {"rgb_420.jpg", "progressive.jpg", "gray.png", "palette.png", "lossless.webp", "lossy.webp"}) {
    const std::string whole = test_image(name);
    for (std::size_t at = 0; at < whole.size(); at += 7) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
      const auto image = decode(damaged);
      if (image) CHECK(image->pixels.size() == image->stride() * static_cast<std::size_t>(image->height));
    }
  }
}

TEST_CASE("image: too many pixels are refused before decoding") {
  CHECK(check_pixels(8000, 8000));
  require_error(check_pixels(8001, 8000), Code::bad_input, "64 Mpx");
  require_error(check_pixels(~std::uint64_t{0}, 2), Code::bad_input, "64 Mpx");
  require_error(check_pixels(0, 5), Code::bad_input, "0x5");
  // The frame header of a JPEG: marker, length, precision, height, width.
  std::string jpeg = test_image("rgb_420.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xdc\xff\xdc");
  require_error(decode(jpeg), Code::bad_input, "65500x65500 pixels");
}

TEST_CASE("image: the content decides, not the name") {
  require_error(decode(""), Code::bad_input, "neither JPEG");
  require_error(decode("GIF89a"), Code::bad_input, "neither JPEG");
  require_error(decode("\xff\xd8\xff"), Code::bad_input, "damaged JPEG");
  require_error(decode("RIFF....WEBP"), Code::bad_input, "damaged WebP");
  require_error(decode("\x89PNG\r\n\x1a\n"), Code::bad_input, "damaged PNG");
}

TEST_CASE("image: grey is the 601 luma") {
  Image image = Image::blank(2, 1, 3);
  image.pixels = {255, 255, 255, 255, 0, 0};
  CHECK(to_gray(image).pixels == std::vector<std::uint8_t>{255, 76});
}
