#include "quant/static_numbers.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

ValueRange range(float min, float max) { return {.min = min, .max = max, .finite = 1}; }

float lowest(const CodeParams& params) {
  return static_cast<float>(code_range(params.dtype, false).min - params.affine.zero_point) * params.affine.scale;
}
float highest(const CodeParams& params) {
  return static_cast<float>(code_range(params.dtype, false).max - params.affine.zero_point) * params.affine.scale;
}

TEST_CASE("static numbers: plain ranges are as everywhere") {
  const CodeRules rules = {Target::ort_x86_vnni, ActivationFormat::uint8};
  CHECK(choose_params(range(-1, 3), {}, rules).affine == choose_affine(-1, 3, DType::u8, false));
  CHECK(choose_params(range(1, 3), {}, rules).affine == choose_affine(0, 3, DType::u8, false));
  CHECK(unit_params(rules).affine == AffineParams{1.0F / 256, 0});
  CHECK(unit_params({Target::ort_arm64, ActivationFormat::int8}).affine == AffineParams{1.0F / 256, -128});
}

TEST_CASE("static numbers: behind a Relu or Clip no code stands for a value outside its bounds, and little is lost") {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> pick(0, 1);
  for (const ActivationFormat format : {ActivationFormat::uint8, ActivationFormat::int8, ActivationFormat::uint16}) {
    const CodeRules rules = {Target::ort_x86_vnni, format};
    for (int i = 0; i < 2000; ++i) {
      Absorbed clip{.low = i % 3 == 0 ? 0.0F : -pick(random) * 10};
      if (i % 2 == 0) clip.high = 0.01F + pick(random) * 10;
      const float high = clip.high.value_or(20);
      const ValueRange seen = range(clip.low * pick(random), high * (0.3F + 0.7F * pick(random)));
      const CodeParams params = choose_params(seen, clip, rules);
      INFO("clip " << clip.low << ".." << high << ", seen " << seen.min << ".." << seen.max);
      CHECK(lowest(params) >= clip.low);
      CHECK(highest(params) <= clip.high.value_or(std::numeric_limits<float>::max()));
      // At most about one step is cut off.
      const float step = std::max(params.affine.scale, (seen.max - seen.min) / 255);
      CHECK(lowest(params) <= seen.min + 1.5F * step);
      CHECK(highest(params) >= seen.max - 1.5F * step);
    }
  }
}

TEST_CASE("static numbers: symmetric codes; unsigned ones start at 0 where nothing is negative") {
  const CodeRules rules = {Target::generic, ActivationFormat::uint8_symmetric};
  CHECK(choose_params(range(-1, 3), {}, rules).affine.zero_point == 128);
  CHECK(choose_params(range(0, 3), {}, rules).affine == choose_affine(0, 3, DType::u8, false));
  const CodeRules rt = {Target::tensorrt, ActivationFormat::int8_symmetric};
  CHECK(choose_params(range(0, 3), {}, rt).affine == AffineParams{3.0F / 127, 0});
  // A Relu that ONNX Runtime is to drop needs codes that start at 0.
  const CodeRules ort = {Target::ort_arm64, ActivationFormat::int8_symmetric};
  CHECK(choose_params(range(0, 3), Absorbed{}, ort).affine.zero_point == -128);
  CHECK(choose_params(range(0, 3), Absorbed{}, {Target::generic, ActivationFormat::int8_symmetric}).affine.zero_point ==
        0);
}

TEST_CASE("static numbers: which joins one scale cannot serve") {
  const Model model =
      parse(HEAD
            "g (float[2] a, float[2] b) => (float[4] y, float[2] z, float[2] m) { y = Concat <axis = 0> "
            "(a, b) z = Add(a, b) m = Mul(a, b) }");
  const Node concat = model.main().nodes()[0], add = model.main().nodes()[1], mul = model.main().nodes()[2];
  const auto bad = bad_join(concat, {{"boxes", range(0, 640)}, {"scores", range(0, 1)}});
  REQUIRE(bad);
  CHECK(bad->warning.find("'boxes' (0 to 640) with 'scores' (0 to 1)") != std::string::npos);
  CHECK_FALSE(bad_join(concat, {{"a", range(0, 49)}, {"b", range(0, 1)}}));
  CHECK_FALSE(bad_join(concat, {{"a", range(0, 640)}, {"b", range(0, 0)}}));  // nothing to lose
  CHECK_FALSE(bad_join(mul, {{"a", range(0, 640)}, {"b", range(0, 1)}}));
  CHECK_FALSE(bad_join(add, {{"a", range(0, 640)}, {"b", range(0, 1)}}));
  CHECK(bad_join(add, {{"scores", range(-5, 5)}, {"mask", range(-1e9F, 0)}}));
  CHECK(unfit_range({.min = 0, .max = 1, .finite = 3, .infinite = 1}) == "it holds infinities (a mask?)");
  CHECK(unfit_range(range(0, 1)).empty());
}

}  // namespace
}  // namespace onnxpress::testing
