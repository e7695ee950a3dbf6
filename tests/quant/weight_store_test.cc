#include "quant/weight_store.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// A quantized convolution whose weight codes come from "codes", beside the float weight they are made of.
const std::string kConv =
    HEAD "g (float[1, 5, 8, 8] x) => (float[1, 7, 8, 8] y) <" + float_tensor("w", {7, 5, 3, 3}, 1) +
    ", int8[7, 5, 3, 3] codes = {}, float[7] ws = {0.15, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15}, "
    "int8[7] wz = {0, 0, 0, 0, 0, 0, 0}, float xs = {0.01}, uint8 xz = {128}, float ys = {0.1}, uint8 yz = {128}> { "
    "xq = QuantizeLinear (x, xs, xz) xd = DequantizeLinear (xq, xs, xz) "
    "wd = DequantizeLinear <axis = 0> (codes, ws, wz) c = Conv <pads = [1, 1, 1, 1]> (xd, wd) "
    "yq = QuantizeLinear (c, ys, yz) y = DequantizeLinear (yq, ys, yz) }";

Model conv() {
  std::string text = kConv;
  std::string zeros = "0";
  for (int i = 1; i < 315; ++i) zeros += ", 0";
  return parse(text.replace(text.find("{}"), 2, "{" + zeros + "}"));
}

TEST_CASE("WeightStore: unpacked 4-bit codes fuse like an initializer") {
  Model packed = conv(), plain = conv();
  const auto weight = quantize_weight({.reader = &packed.main(), .name = "w", .dtype = DType::i4});
  REQUIRE(weight);
  CHECK(weight->codes.dtype() == DType::i4);

  Rewriters rewriters(packed);
  WeightStore store(packed, rewriters);
  const auto value = store.unpack(packed.main(), "w", weight->codes, DType::i8);  // 315 codes: an odd number
  REQUIRE(value);
  rewriters.of(packed.main()).set_input(packed.main().producer("wd"), 0, *value);
  REQUIRE(rewriters.commit());

  Rewriter rewriter(plain.main());
  auto bytes = convert(weight->codes.view(), DType::i8);
  REQUIRE(bytes);
  rewriter.set_initializer(plain.main().initializer("codes"), std::move(*bytes));
  REQUIRE(rewriter.commit());

  INFO(text(runtime_ops(packed)));
  CHECK(runtime_ops(packed) == runtime_ops(plain));
  CHECK(count(runtime_ops(packed), "QLinearConv") == 1);
  const Batch batch = random_batch("x", {1, 5, 8, 8}, 2);
  const auto expected = run_on(plain, batch), got = run_on(packed, batch);
  CHECK(std::ranges::equal(expected[0].bytes(), got[0].bytes()));
  CHECK(packed.main().initializer("w_packed").bytes() == 158);
}

TEST_CASE("WeightStore: the table of pairs is made once and found again") {
  Model model = conv();
  const auto weight = quantize_weight({.reader = &model.main(), .name = "w", .dtype = DType::u4});
  REQUIRE(weight);
  for (int i = 0; i < 2; ++i) {
    Rewriters rewriters(model);
    WeightStore store(model, rewriters);
    REQUIRE(store.unpack(model.main(), "a", weight->codes, DType::u8));
    REQUIRE(store.unpack(model.main(), "b", weight->codes, DType::u8));
    REQUIRE(rewriters.commit());
  }
  std::size_t tables = 0;
  for (const Initializer& initializer : model.main().initializers())
    tables += initializer.dims() == Dims{256, 2} ? 1U : 0U;
  CHECK(tables == 1);
}

}  // namespace
}  // namespace onnxpress::testing
