#include "quant/static_cost.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

CostModel::Times times_of(const std::string& text, Target target = Target::ort_x86_vnni) {
  const Model model = parse(text);
  const Node node = model.main().nodes().front();
  PassContext context;
  const std::vector<SeenTypes::Read> reads = {{&model.main(), std::string(node.input(0))},
                                              {&model.main(), std::string(node.output(0))}};
  const SeenTypes types = SeenTypes::look(model, reads, context).value();
  return CostModel::of(target)->node(node, types).value();
}

std::string conv(const Dims& x, const Dims& w, const std::string& attributes) {
  const auto dims = [](const Dims& values) {
    std::string text;
    for (const std::int64_t value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
    return text;
  };
  return HEAD "g (float[" + dims(x) + "] x) => (float[N, C, H, W] y) <" + float_tensor("w", w, 1) + "> { y = Conv " +
         attributes + " (x, w) }";
}

TEST_CASE("cost model: tables for ONNX Runtime on x86, none for what was not measured") {
  CHECK(CostModel::of(Target::ort_x86_vnni));
  CHECK(CostModel::of(Target::ort_x86));
  for (const Target target : {Target::ort_arm64, Target::tensorrt, Target::openvino, Target::generic})
    CHECK_FALSE(CostModel::of(target));
}

TEST_CASE("cost model: large convolutions are faster in integers, depthwise ones of few channels slower") {
  const auto dense = times_of(conv({1, 64, 28, 28}, {64, 64, 3, 3}, "<pads = [1, 1, 1, 1]>"));
  CHECK(dense.integer < dense.real / 2);
  const auto depthwise = times_of(conv({1, 8, 64, 64}, {8, 1, 3, 3}, "<group = 8, pads = [1, 1, 1, 1]>"));
  CHECK(depthwise.integer > depthwise.real);
  const auto old = times_of(conv({1, 64, 28, 28}, {64, 64, 3, 3}, "<pads = [1, 1, 1, 1]>"), Target::ort_x86);
  CHECK(old.integer > dense.integer);
  CHECK(old.real == dense.real);
}

TEST_CASE("cost model: a free dimension counts as 1 without samples, and time grows with the shape") {
  const auto matmul = [](const std::string& rows) {
    return times_of(HEAD "g (float[" + rows + ", 64] x) => (float[M, 64] y) <" + float_tensor("w", {64, 64}, 1) +
                    "> { y = MatMul(x, w) }");
  };
  CHECK(matmul("n").real == matmul("1").real);
  CHECK(matmul("64").real > matmul("8").real);
  CHECK(matmul("256").integer < matmul("256").real);
}

TEST_CASE("cost model: conversions grow with the value; images change their layout too") {
  const auto model = *CostModel::of(Target::ort_x86_vnni);
  const SeenType small{DType::f32, {1, 8, 8, 8}}, large{DType::f32, {1, 64, 56, 56}}, matrix{DType::f32, {64, 3136}};
  CHECK(model.quantize(small, false, false) < model.quantize(large, false, false));
  CHECK(model.dequantize(large, true, false) > model.dequantize(large, false, false));
  CHECK(model.dequantize(matrix, true, true) == model.dequantize(matrix, false, false));
}

}  // namespace
}  // namespace onnxpress::testing
