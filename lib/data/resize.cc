#include "data/resize.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace onnxpress {
namespace {

// 8 bits of pixel and 2 bits of headroom for overshoot leave this many for the weights.
constexpr int kWeightBits = 32 - 8 - 2;

double bilinear(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// The input pixels [first, first + weights.size()) that make one output pixel.
struct Tap {
  std::size_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Tap> make_taps(int from, int to, Filter filter) {
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(scale, 1.0);
  const double support = (filter == Filter::bicubic ? 2.0 : 1.0) * stretch;
  std::vector<Tap> taps(static_cast<std::size_t>(to));
  std::vector<double> weights;
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - support + 0.5));
    const int last = std::min(from, static_cast<int>(centre + support + 0.5));
    weights.clear();
    double sum = 0;
    for (int x = first; x < last; ++x) {
      const double at = (x - centre + 0.5) * (1.0 / stretch);
      weights.push_back(filter == Filter::bicubic ? bicubic(at) : bilinear(at));
      sum += weights.back();
    }
    Tap& tap = taps[static_cast<std::size_t>(i)];
    tap.first = static_cast<std::size_t>(first);
    for (const double weight : weights) {
      const double fixed = (sum != 0 ? weight / sum : weight) * (1 << kWeightBits);
      tap.weights.push_back(static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return taps;
}

// One output value: the tap laid over samples `step` bytes apart.
std::uint8_t apply(const Tap& tap, const std::uint8_t* samples, std::size_t step) {
  std::int64_t sum = std::int64_t{1} << (kWeightBits - 1);
  for (const std::int32_t weight : tap.weights) {
    sum += std::int64_t{weight} * *samples;
    samples += step;
  }
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> kWeightBits, 0, 255));
}

Image resize_rows(const Image& image, int width, Filter filter) {
  const std::vector<Tap> taps = make_taps(image.width, width, filter);
  Image out = Image::blank(width, image.height, image.channels);
  const auto channels = static_cast<std::size_t>(image.channels);
  std::uint8_t* target = out.pixels.data();
  for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) {
    const std::uint8_t* row = image.pixels.data() + y * image.stride();
    for (const Tap& tap : taps)
      for (std::size_t c = 0; c < channels; ++c) *target++ = apply(tap, row + tap.first * channels + c, channels);
  }
  return out;
}

Image resize_columns(const Image& image, int height, Filter filter) {
  const std::vector<Tap> taps = make_taps(image.height, height, filter);
  Image out = Image::blank(image.width, height, image.channels);
  const std::size_t stride = image.stride();
  std::uint8_t* target = out.pixels.data();
  for (const Tap& tap : taps)
    for (std::size_t x = 0; x < stride; ++x)
      *target++ = apply(tap, image.pixels.data() + tap.first * stride + x, stride);
  return out;
}

}  // namespace

std::string_view filter_name(Filter filter) { return filter == Filter::bicubic ? "bicubic" : "bilinear"; }

Image resize(const Image& image, int width, int height, Filter filter) {
  assert(width > 0 && height > 0 && image.width > 0 && image.height > 0);
  if (width == image.width && height == image.height) return image;
  if (width == image.width) return resize_columns(image, height, filter);
  const Image wide = resize_rows(image, width, filter);
  return height == image.height ? wide : resize_columns(wide, height, filter);
}

}  // namespace onnxpress
