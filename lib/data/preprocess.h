// From a decoded image to the numbers a model expects: --preprocess.
//
//   preprocess = item { "," item } ;   item = preset | key "=" value ;   preset = "imagenet" ;
//   resize=WxH        to exactly W x H
//   resize=S          the short side becomes S, the other keeps the aspect (rounded down, as torchvision)
//   crop=WxH          the centre; an image smaller than that is an error
//   letterbox=WxH     fitted inside W x H keeping the aspect, centred, the rest filled with grey 114 (as YOLO)
//   filter=bicubic|bilinear    bicubic unless given (Pillow's default)
//   scale=NUMBER or A/B        1 unless given
//   mean=, std=                a number, [a,b,c] or a:b:c in the order of color=; 0 and 1 unless given
//   color=RGB|BGR|GRAY         unless given GRAY for a one-channel input, else RGB
//   layout=NCHW|NHWC           unless given what the input's shape says, else NCHW
//
// Geometry is applied in the order written; grey conversion comes before it. value = (pixel * scale - mean) / std.
// "imagenet" is torchvision's evaluation recipe; what follows it overrides it, and any geometry replaces its geometry.
// Without geometry, an input of fixed height and width implies resize=WxH.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "data/image.h"
#include "data/resize.h"
#include "num/value_type.h"

namespace onnxpress {

struct GeometryStep {
  enum class Kind { resize, short_side, crop, letterbox };
  Kind kind = Kind::resize;
  int width = 0;
  int height = 0;  // equal to width for short_side
  bool operator==(const GeometryStep&) const = default;
};

enum class Color { rgb, bgr, gray };
enum class Layout { nchw, nhwc };

struct Preprocess {
  std::vector<GeometryStep> geometry;
  Filter filter = Filter::bicubic;
  std::string scale_text = "1";  // as written: 1/127.5 says more than 0.00784313725490196
  double scale = 1;
  std::vector<double> mean = {0};
  std::vector<double> std = {1};
  std::optional<Color> color;
  std::optional<Layout> layout;

  int channels() const { return color == Color::gray ? 1 : 3; }
};

// Errors: usage, with "did you mean".
Result<Preprocess> parse_preprocess(std::string_view text);

// Fills in what the model's input decides and checks the rest against it. Errors: usage when they contradict each
// other, bad_input when the input takes no images.
Status resolve_preprocess(Preprocess& preprocess, const ValueInfo& input);

// The resolved recipe in one line:
// "RGB, resize 224x224 (bicubic), value = (pixel * 1/127.5 - 1) / 1, NCHW".
std::string preprocess_formula(const Preprocess& preprocess);

// Colour and geometry of a decoded RGB image; BGR is swapped in write_values. Error bad_input when a crop exceeds it.
Result<Image> apply_geometry(const Image& rgb, const Preprocess& preprocess);

// The values of one image in the layout asked for. out.size() is width x height x channels.
void write_values(const Image& image, const Preprocess& preprocess, std::span<float> out);

}  // namespace onnxpress
