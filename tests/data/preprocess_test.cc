#include "data/preprocess.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include "files.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

Preprocess resolved(std::string_view text, const ValueInfo& info) {
  auto preprocess = parse_preprocess(text);
  if (!preprocess) FAIL(preprocess.error().text());
  const auto status = resolve_preprocess(*preprocess, info);
  if (!status) FAIL(status.error().text());
  return *preprocess;
}

std::string formula(std::string_view text, const ValueInfo& info) { return preprocess_formula(resolved(text, info)); }

const ValueInfo kPhoto = input("x", DType::f32, {1, 3, 224, 224});

// Red counts columns, green counts rows.
Image ramp(int width, int height) {
  Image image = Image::blank(width, height, 3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      std::uint8_t* pixel = &image.pixels[static_cast<std::size_t>(y * width + x) * 3];
      pixel[0] = static_cast<std::uint8_t>(x);
      pixel[1] = static_cast<std::uint8_t>(y);
    }
  }
  return image;
}

Image geometry(const Image& image, std::string_view text) {
  auto result = apply_geometry(image, parse_preprocess(text).value());
  if (!result) FAIL(result.error().text());
  return *result;
}

}  // namespace

TEST_CASE("preprocess: the formula is resolved and printed") {
  CHECK(formula("resize=224x224,scale=1/127.5,mean=1,std=1,color=RGB,layout=NCHW", kPhoto) ==
        "RGB, resize 224x224 (bicubic), value = (pixel * 1/127.5 - 1) / 1, NCHW");
  CHECK(
      formula("imagenet", kPhoto) ==
      "RGB, resize short side 256 (bilinear), crop 224x224 (centre), value = (pixel * 1/255 - [0.485, 0.456, 0.406]) / "
      "[0.229, 0.224, 0.225], NCHW");
  CHECK(formula(" mean = 1:2:3 , letterbox=224x224, color=BGR", kPhoto) ==
        "BGR, letterbox 224x224 (bicubic, grey 114), value = (pixel * 1 - [1, 2, 3]) / 1, NCHW");
}

TEST_CASE("preprocess: what is not given follows from the input") {
  CHECK(formula("", kPhoto) == "RGB, resize 224x224 (bicubic), value = (pixel * 1 - 0) / 1, NCHW");
  CHECK(formula("", input("x", DType::f32, {-1, 28, 32, 1})) ==
        "GRAY, resize 32x28 (bicubic), value = (pixel * 1 - 0) / 1, NHWC");
  CHECK(formula("", input("x", DType::u8, {3, -1, -1})) == "RGB, value = (pixel * 1 - 0) / 1, NCHW");
  CHECK(formula("", {"x", {DType::f32, std::nullopt, true}}) == "RGB, value = (pixel * 1 - 0) / 1, NCHW");
}

TEST_CASE("preprocess: a preset can be overridden") {
  CHECK(
      formula("imagenet,resize=224x224,color=BGR", kPhoto) ==
      "BGR, resize 224x224 (bilinear), value = (pixel * 1/255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], NCHW");
}

TEST_CASE("preprocess: spelling errors are answered") {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"resise=2x2", "unknown key 'resise', did you mean 'resize'?"},
      {"imagenett", "did you mean 'imagenet'?"},
      {"color=rgb", "not one of RGB, BGR, GRAY"},
      {"color=RBG", "did you mean 'RGB'?"},
      {"layout=NHCW", "did you mean"},
      {"filter=cubic", "did you mean 'bicubic'?"},
      {"resize=axb", "WxH or a short side"},
      {"resize=0x5", "WxH or a short side"},
      {"resize=5x", "WxH or a short side"},
      {"resize=99999x99999", "over the limit"},
      {"crop=5", "is not WxH"},
      {"scale=1/0", "scale=1/0"},
      {"scale=", "neither a number"},
      {"mean=[1,2", "is not a number"},
      {"mean=1:x:3", "is not a number"},
      {"mean=nan", "is not a number"},
      {"std=0", "must be above 0"},
      {"scale=1,scale=2", "twice"},
      {"scale=1,imagenet", "comes first"},
      {"scale=1,,mean=1", "has no value"}};
  for (const auto& [text, reason] : wrong) {
    INFO(text);
    require_error(parse_preprocess(text), Code::usage, reason);
  }
}

TEST_CASE("preprocess: contradictions with the model") {
  const auto error = [](std::string_view text, const ValueInfo& info, Code code, std::string_view part) {
    auto preprocess = parse_preprocess(text);
    REQUIRE(preprocess);
    require_error(resolve_preprocess(*preprocess, info), code, part);
  };
  error("resize=200x224", kPhoto, Code::usage, "224x224 is wanted");
  error("color=GRAY", kPhoto, Code::usage, "1 channels do not fit");
  error("layout=NHWC", kPhoto, Code::usage, "channels do not fit");
  error("mean=1:2", kPhoto, Code::usage, "mean has 2 numbers for 3 channels");
  error("", input("ids", DType::i64, {-1, 128}), Code::bad_input, "takes no images");
  error("", input("flag", DType::boolean, {1, 3, 8, 8}), Code::bad_input, "takes no images");
}

TEST_CASE("preprocess: short side, crop and letterbox place the pixels") {
  const Image wide = geometry(ramp(100, 40), "resize=20");
  CHECK(wide.width == 50);
  CHECK(wide.height == 20);
  const Image tall = geometry(ramp(33, 100), "resize=20");
  CHECK(tall.width == 20);
  CHECK(tall.height == 60);
  const Image crop = geometry(ramp(11, 8), "crop=4x4");
  CHECK(crop.pixels[0] == 4);  // 3.5 to the even 4, as torchvision
  CHECK(crop.pixels[1] == 2);
  CHECK(crop.pixels[(3 * 4 + 3) * 3] == 7);
  const Image box = geometry(Image::blank(20, 10, 3, 9), "letterbox=8x8");
  CHECK(box.pixels[0] == 114);
  CHECK(box.pixels[(1 * 8 + 7) * 3] == 114);
  CHECK(box.pixels[(2 * 8 + 0) * 3] == 9);
  CHECK(box.pixels[(5 * 8 + 7) * 3] == 9);
  CHECK(box.pixels[(6 * 8 + 0) * 3] == 114);
  require_error(apply_geometry(ramp(11, 8), parse_preprocess("crop=12x8").value()), Code::bad_input, "exceeds");
}

TEST_CASE("preprocess: geometry happens in the order written") {
  const Image first = geometry(ramp(64, 64), "crop=32x32,resize=16x16");
  const Image second = geometry(ramp(64, 64), "resize=32x32,crop=16x16");
  CHECK(first.width == second.width);
  CHECK(first.pixels == geometry(geometry(ramp(64, 64), "crop=32x32"), "resize=16x16").pixels);
  CHECK(second.pixels == geometry(geometry(ramp(64, 64), "resize=32x32"), "crop=16x16").pixels);
}

TEST_CASE("preprocess: values in both layouts and colour orders") {
  Image image = Image::blank(2, 1, 3);
  image.pixels = {10, 20, 30, 40, 50, 60};
  std::vector<float> out(6);
  Preprocess preprocess = parse_preprocess("layout=NCHW").value();
  write_values(image, preprocess, out);
  CHECK(out == std::vector<float>{10, 40, 20, 50, 30, 60});
  preprocess = parse_preprocess("layout=NHWC,color=BGR,scale=0.5,mean=[1,2,3],std=[1,2,4]").value();
  write_values(image, preprocess, out);
  CHECK(out == std::vector<float>{14, 4, 0.5F, 29, 11.5F, 4.25F});
  preprocess = parse_preprocess("layout=NHWC,scale=1/127.5,mean=1").value();
  write_values(image, preprocess, out);
  CHECK(out[0] == Catch::Approx(10 / 127.5 - 1));
}
