#include "data/image.h"

#include <png.h>
#include <webp/decode.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/text.h"

namespace onnxpress {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::string_view magic, std::size_t at = 0) {
  if (bytes.size() < at + magic.size()) return false;
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + at, magic.size()) == magic;
}

// libpng's simplified reader keeps state that must be released on every way out.
struct PngReader {
  png_image image{};
  PngReader() { image.version = PNG_IMAGE_VERSION; }
  ~PngReader() { png_image_free(&image); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
};

Result<Image> decode_png(std::span<const std::byte> bytes) {
  PngReader reader;
  png_image& png = reader.image;
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()) == 0)
    return fail(Code::bad_input, "damaged PNG: {}", escape_control(png.message));
  OP_TRY(check_pixels(png.width, png.height));
  png.format = PNG_FORMAT_RGBA;  // with alpha, because dropping it is not blending it with a background
  png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  std::vector<std::uint8_t> rgba(PNG_IMAGE_SIZE(png));
  if (png_image_finish_read(&png, nullptr, rgba.data(), 0, nullptr) == 0)
    return fail(Code::bad_input, "damaged PNG: {}", escape_control(png.message));
  Image image = Image::blank(static_cast<int>(png.width), static_cast<int>(png.height), 3);
  for (std::size_t i = 0; i < rgba.size() / 4; ++i) std::copy_n(&rgba[i * 4], 3, &image.pixels[i * 3]);
  return image;
}

Result<Image> decode_webp(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(data, bytes.size(), &features) != VP8_STATUS_OK) return fail(Code::bad_input, "damaged WebP");
  if (features.has_animation) return fail(Code::bad_input, "an animated WebP is not one image");
  OP_TRY(check_pixels(static_cast<std::uint64_t>(features.width), static_cast<std::uint64_t>(features.height)));
  Image image = Image::blank(features.width, features.height, 3);
  if (!WebPDecodeRGBInto(data, bytes.size(), image.pixels.data(), image.pixels.size(),
                         static_cast<int>(image.stride())))
    return fail(Code::bad_input, "damaged or cut-off WebP");
  return image;
}

}  // namespace

Image Image::blank(int width, int height, int channels, std::uint8_t value) {
  Image image{width, height, channels, {}};
  image.pixels.assign(image.stride() * static_cast<std::size_t>(height), value);
  return image;
}

Status check_pixels(std::uint64_t width, std::uint64_t height) {
  if (width == 0 || height == 0) return fail(Code::bad_input, "an image of {}x{} pixels", width, height);
  if (width > kMaxPixels || height > kMaxPixels || width * height > kMaxPixels)
    return fail(Code::bad_input, "an image of {}x{} pixels is over the limit of {} Mpx", width, height,
                kMaxPixels / 1'000'000);
  return {};
}

Result<Image> decode_image(std::span<const std::byte> bytes) {
  if (starts_with(bytes, "\xff\xd8\xff")) return decode_jpeg(bytes);
  if (starts_with(bytes, "\x89PNG\r\n\x1a\n")) return decode_png(bytes);
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return decode_webp(bytes);
  return fail(Code::bad_input, "neither JPEG, PNG nor WebP by its content");
}

Image to_gray(const Image& rgb) {
  Image gray = Image::blank(rgb.width, rgb.height, 1);
  for (std::size_t i = 0; i < gray.pixels.size(); ++i) {
    const std::uint8_t* pixel = &rgb.pixels[i * 3];
    gray.pixels[i] =
        static_cast<std::uint8_t>((pixel[0] * 19595U + pixel[1] * 38470U + pixel[2] * 7471U + 0x8000U) >> 16);
  }
  return gray;
}

}  // namespace onnxpress
