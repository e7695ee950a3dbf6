// The files of testdata/ort are what onnxruntime.quantization 1.21 writes (testdata/scripts/make_ort_tables.py).
#include "calib/ort_tables.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "base/file.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinRel;

std::string peer_file(const std::string& name) {
  const auto text = read_text_file(ONNXPRESS_SOURCE_DIR "/testdata/ort/" + name, 1 << 20);
  REQUIRE(text);
  return *text;
}

RangeTable parsed(std::string_view text) {
  auto ranges = parse_ort_ranges(text, "f");
  if (!ranges) INFO(ranges.error().text());
  REQUIRE(ranges);
  return *ranges;
}

}  // namespace

TEST_CASE("calibration tables of the peer") {
  const RangeTable ranges = parsed(peer_file("calibration_minmax.json"));
  CHECK(ranges.size() == 36);
  CHECK(ranges.at("/down1/Relu_1_output_0").min == 0);
  CHECK(ranges.at("/down1/Relu_1_output_0").max == 6.289128303527832F);
  CHECK(ranges.at("/down2/bn2/BatchNormalization_output_0").min == -5.871479511260986F);
  CHECK(parsed(peer_file("calibration_inner.json")) == ranges);
  const RangeTable entropy = parsed(peer_file("calibration_entropy.json"));
  CHECK(entropy.size() == 36);
  CHECK(entropy.at("logits").max == 4.748020648956299F);
}

TEST_CASE("overrides of the peer, numbers as text") {
  const RangeTable measured = parsed(peer_file("calibration_minmax.json"));
  const RangeTable ranges = parsed(peer_file("overrides.json"));
  CHECK(ranges.size() == 36);
  CHECK_FALSE(ranges.contains("some_weight"));
  CHECK_FALSE(ranges.contains("other"));
  // As uint8, within a step: the peer rounds the zero point.
  const ValueRange& coded = ranges.at("/down1/Relu_1_output_0");
  CHECK(coded.min == 0);
  CHECK_THAT(coded.max, WithinRel(measured.at("/down1/Relu_1_output_0").max, 1e-6F));
  CHECK(choose_affine(coded.min, coded.max, DType::u8, false).zero_point == 0);
  CHECK(ranges.at("/down1/depthwise/Conv_output_0").min == -4.361441F);
  CHECK(ranges.at("/block2/conv1/Conv_output_0").min == -13.235591F);
  CHECK(ranges.at("/block2/conv1/Conv_output_0").max == 13.235591F);
}

TEST_CASE("forms go out and come back") {
  const RangeTable ranges = {{"a", {-1, 2, 1, 0, 0}}, {"b", {0, 0.1F, 1, 0, 0}}, {"none", {}}};
  const RangeTable calibration = parsed(ort_ranges_text(ranges, OrtForm::calibration, DType::u8, false));
  CHECK(calibration.size() == 2);
  CHECK(calibration.at("a") == ranges.at("a"));
  CHECK(calibration.at("b") == ranges.at("b"));
  for (const auto& [dtype, symmetric] :
       {std::pair(DType::u8, false), std::pair(DType::i8, true), std::pair(DType::u16, false)}) {
    const std::string text = ort_ranges_text(ranges, OrtForm::overrides, dtype, symmetric);
    CHECK(text.contains("quant_type") == (dtype != DType::u8));
    for (const auto& [name, range] : parsed(text)) {
      const AffineParams wanted = choose_affine(ranges.at(name).min, ranges.at(name).max, dtype, symmetric);
      const AffineParams got = choose_affine(range.min, range.max, dtype, symmetric);
      CHECK_THAT(got.scale, WithinRel(wanted.scale, 1e-2F));
      CHECK(got.zero_point == wanted.zero_point);
    }
  }
}

TEST_CASE("older and hand-written forms") {
  CHECK(parsed(R"({"x": [-1.5, 2]})").at("x").min == -1.5F);
  CHECK(parsed(R"({"x": [0.5, 2]})").at("x").min == 0);
  CHECK(parsed(R"({"x": [{"rmin": "-1", "rmax": [3]}]})").at("x").max == 3);
  CHECK(parsed(R"({"x": [{"scale": [0.5], "zero_point": 0, "quant_type": "QuantType.QInt8"}]})").at("x").min == -64);
  CHECK(parsed("{}").empty());
  CHECK(parsed(R"({"x": []})").empty());
}

TEST_CASE("what is neither form is refused by name") {
  for (const char* text :
       {"", "[]", "{", "7", R"({"x": 3})", R"({"x": [2, 1]})", R"({"x": [1]})", R"({"x": ["nan", "1"]})",
        R"({"x": [{"scale": 1}]})", R"({"x": [{"scale": -1, "zero_point": 0}]})", R"({"x": [{"rmin": 0}]})",
        R"({"x": [{"scale": 1, "zero_point": 300}]})", R"({"x": [{"scale": 1, "zero_point": "z"}]})",
        R"({"x": [{"scale": 1, "zero_point": 0, "quant_type": "QFloat"}]})", R"({"CLS": "TensorsData"})",
        R"({"x": [{"rmin": -1e300, "rmax": 1}]})", R"({"x": {"lowest": 1}})"}) {
    INFO(text);
    const auto ranges = parse_ort_ranges(text, "file");
    REQUIRE_FALSE(ranges);
    CHECK(ranges.error().code == Code::bad_input);
    CHECK(ranges.error().text().starts_with("file: "));
  }
}

}  // namespace onnxpress::testing
