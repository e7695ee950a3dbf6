#include "quant/saturation.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

#define SATURATION_HEAD "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> "

Saturation of(const std::string& text) {
  const Model model = parse(text);
  const auto found = saturation_of(model.main().nodes().back());
  REQUIRE(found);
  REQUIRE(*found);
  return **found;
}

bool none(const std::string& text) {
  const Model model = parse(text);
  const auto found = saturation_of(model.main().nodes().back());
  REQUIRE(found);
  return !*found;
}

std::string matmul(const std::string& codes) {
  return SATURATION_HEAD "g (float[2, 4] x) => (float[2, 2] y) <float s = {0.1}, int8 z = {0}, int8[4, 2] w = {" +
         codes + "}> { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }";
}

}  // namespace

TEST_CASE("saturation: pairs of rows of a matrix, of one sign, above 128") {
  CHECK(of(matmul("64, 64, 64, 65, 0, 0, 0, 0")).saturating == 1);     // 128 is safe, 129 is not
  CHECK(of(matmul("127, 64, -127, 64, 1, 1, 1, 1")).saturating == 0);  // opposite signs cancel
  CHECK(of(matmul("-100, 0, -100, 0, 0, 100, 0, 100")).saturating == 2);
  CHECK(of(matmul("0, 0, 100, 0, 100, 0, 0, 0")).saturating == 0);  // rows 1 and 2 are no pair
  CHECK(of(matmul("0, 0, 0, 0, 0, 0, 0, 0")).channels == 2);
}

TEST_CASE("saturation: convolutions pair input channels, then positions") {
  const auto conv = [](const std::string& codes, const std::string& group = "") {
    return SATURATION_HEAD
           "g (float[1, 2, 4, 4] x) => (float[N, C, H, W] y) <float s = {0.1}, int8 z = {0}, "
           "int8[1, 2, 1, 2] w = {" +
           codes + "}> { d = DequantizeLinear(w, s, z) y = Conv" + group + "(x, d) }";
  };
  CHECK(of(conv("100, 0, 100, 0")).saturating == 1);  // channel 0 and 1 at one position
  CHECK(of(conv("100, 100, 0, 0")).saturating == 0);  // two positions of one channel
  CHECK(none(SATURATION_HEAD "g (float[1, 2, 4, 4] x) => (float[N, C, H, W] y) <float s = {0.1}, int8 z = {0}, "
                             "int8[2, 1, 1, 2] w = {100, 100, 100, 100}> "
                             "{ d = DequantizeLinear(w, s, z) y = Conv<group = 2>(x, d) }"));  // depthwise
}

TEST_CASE("saturation: a Gemm of transposed weights, and integer operators") {
  CHECK(of(SATURATION_HEAD "g (float[2, 2] x) => (float[2, 2] y) <float s = {0.1}, int8 z = {0}, int8[2, 2] w = {100, "
                           "100, 1, 1}> { d = DequantizeLinear(w, s, z) y = Gemm<transB = 1>(x, d) }")
            .saturating == 1);
  CHECK(of(SATURATION_HEAD "g (uint8[2, 2] x) => (int32[2, 2] y) <int8[2, 2] w = {100, 1, 100, 1}> "
                           "{ y = MatMulInteger(x, w) }")
            .saturating == 1);
}

TEST_CASE("saturation: nothing to say of unsigned, float and variable weights") {
  CHECK(none(SATURATION_HEAD "g (uint8[2, 2] x) => (int32[2, 2] y) <uint8[2, 2] w = {100, 1, 100, 1}> "
                             "{ y = MatMulInteger(x, w) }"));
  CHECK(
      none(SATURATION_HEAD "g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"));
  CHECK(none(SATURATION_HEAD "g (uint8[2, 2] x, int8[2, 2] w) => (int32[2, 2] y) { y = MatMulInteger(x, w) }"));
  CHECK(none(SATURATION_HEAD "g (float[2] x) => (float[2] y) { y = Relu(x) }"));
}

}  // namespace onnxpress::testing
