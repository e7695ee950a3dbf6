// Resampling of 8-bit images with the arithmetic of Pillow's Image.resize, so that a model trained behind Pillow or
// torchvision sees the same pixels.
#pragma once

#include <string_view>

#include "data/image.h"

namespace onnxpress {

enum class Filter { bicubic, bilinear };

std::string_view filter_name(Filter filter);

// Separable convolution, horizontally and then vertically, each pass rounded to 8 bits; weights in 22-bit fixed point.
// When shrinking, the filter is widened by the scale (antialiasing). Bicubic is Keys' kernel with a = -0.5 ("Cubic
// convolution interpolation for digital image processing", 1981). width and height are at least 1.
Image resize(const Image& image, int width, int height, Filter filter);

}  // namespace onnxpress
