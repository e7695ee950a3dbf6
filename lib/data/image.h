// Decoding photographs: JPEG, PNG and WebP to 8-bit RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace onnxpress {

struct Image {
  int width = 0;
  int height = 0;
  int channels = 3;
  std::vector<std::uint8_t> pixels;  // row by row, channels interleaved

  static Image blank(int width, int height, int channels, std::uint8_t value = 0);
  std::size_t stride() const { return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels); }
};

// Larger images are refused before they are decoded.
inline constexpr std::uint64_t kMaxPixels = 64'000'000;

// Error bad_input when an image of this size must not be decoded.
Status check_pixels(std::uint64_t width, std::uint64_t height);

// By content, not by name. Grey, palette and CMYK become RGB, alpha is dropped, 16 bits become 8; the EXIF orientation
// is not applied, as in Pillow. Errors: bad_input for an unknown format, a damaged or cut-off image, too many pixels.
Result<Image> decode_image(std::span<const std::byte> bytes);
Result<Image> decode_jpeg(std::span<const std::byte> bytes);

// ITU-R 601 luma in 16-bit fixed point, as Pillow's mode L.
Image to_gray(const Image& rgb);

}  // namespace onnxpress
