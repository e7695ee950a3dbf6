#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <cmath>

#include "../quant/fusion_models.h"
#include "engine/activations.h"
#include "engine/session.h"
#include "io/load.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

const char* kPass = "quant-qoperator{target=ort-x86-vnni}";
const Dims kMatrix = {2, 4}, kImage = {1, 4, 3, 3};

std::vector<Tensor> run_as_is(const Model& model, const Batch& batch) {
  const auto session = Session::open(model, {.optimize = false});
  INFO((session ? "" : session.error().text()));
  REQUIRE(session);
  auto out = (*session)->run(batch.inputs);
  REQUIRE(out);
  return std::move(*out);
}

double largest_difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double largest = 0;
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = to_floats(a[i].view()), y = to_floats(b[i].view());
    REQUIRE(x->size() == y->size());
    for (std::size_t k = 0; k < x->size(); ++k)
      largest = std::max(largest, static_cast<double>(std::abs((*x)[k] - (*y)[k])));
  }
  return largest;
}

// After: `kernel` stands in the file; outputs are those of the QDQ model as the runtime executes it, also without the
// runtime's optimizer.
Model converts(const std::string& body, std::string_view interface, const Dims& input, const std::string& kernel,
               double tolerance = 0, int opset = 17) {
  INFO(body);
  const Model before = parse(qdq_model(interface, body, opset));
  Model after = parse(qdq_model(interface, body, opset));
  CHECK(run_pipeline(after, kPass).changed);
  CHECK_FALSE(run_pipeline(after, kPass).changed);
  INFO(text(ops_of(after)));
  CHECK(count(ops_of(after), kernel) == 1);
  CHECK(after.main().outputs() == before.main().outputs());
  const Batch batch = random_batch("x", input, 3);
  const auto expected = run_on(before, batch);
  CHECK(largest_difference(expected, run_on(after, batch)) <= tolerance);
  CHECK(largest_difference(expected, run_as_is(after, batch)) <= tolerance);
  return after;
}

}  // namespace

TEST_CASE("quant-qoperator writes down integer kernels") {
  const Model conv =
      converts(QDQ_X QDQ_CW QDQ_B "r = Conv<pads = [1, 1, 1, 1]>(d, e, g)" QDQ_Y, QDQ_IMAGE, kImage, "QLinearConv");
  CHECK(ops_of(conv) == OpCounts{{"DequantizeLinear", 1}, {"QLinearConv", 1}, {"QuantizeLinear", 1}});
  CHECK(nodes_of(conv, "QLinearConv")[0].attr_ints("pads").size() == 4);
  converts(QDQ_X
           "e = DequantizeLinear<axis = 0>(cq, ws4, wz4) c = Conv(d, e) r = Relu(c) f = QuantizeLinear(r, ys, z0) "
           "y = DequantizeLinear(f, ys, z0)",
           QDQ_IMAGE, kImage, "QLinearConv");
  converts(QDQ_X QDQ_W "r = MatMul(d, e)" QDQ_Y, QDQ_MATRIX, kMatrix, "QLinearMatMul");
  converts(QDQ_X QDQ_W "y = MatMul(d, e)", QDQ_MATRIX, kMatrix, "com.microsoft.MatMulIntegerToFloat", 1e-5);
  converts(QDQ_X QDQ_W QDQ_B "y = Gemm(d, e, g)", QDQ_MATRIX, kMatrix, "com.microsoft.QGemm", 1e-5);
  converts(QDQ_X QDQ_W QDQ_B "r = Gemm<transB = 1>(d, e, g)" QDQ_Y, QDQ_MATRIX, kMatrix, "com.microsoft.QGemm");
  converts(QDQ_X QDQ_W "r = Gemm(d, e)" QDQ_Y, QDQ_MATRIX, kMatrix, "com.microsoft.QGemm");
}

TEST_CASE("quant-qoperator writes down elementwise ops and pools") {
  for (const char* op : {"Add", "Mul"})
    converts(QDQ_X "r = " + std::string(op) + "(d, d)" QDQ_Y, QDQ_MATRIX, kMatrix,
             "com.microsoft.QLinear" + std::string(op));
  for (const char* op : {"Sigmoid", "LeakyRelu", "Softmax"})
    converts(QDQ_X "r = " + std::string(op) + "(d)" QDQ_Y, QDQ_MATRIX, kMatrix,
             "com.microsoft.QLinear" + std::string(op));
  converts(QDQ_X "r = Softmax(d)" QDQ_Y, QDQ_MATRIX, kMatrix, "com.microsoft.QLinearSoftmax", 0, 12);
  converts(QDQ_X "r = Concat<axis = 1>(d, d)" QDQ_Y, "(float[2, 4] x) => (float[2, 8] y)", kMatrix,
           "com.microsoft.QLinearConcat");
  converts(QDQ_X "r = GlobalAveragePool(d)" QDQ_Y, QDQ_IMAGE, kImage, "com.microsoft.QLinearGlobalAveragePool");
  converts(QDQ_X "r = AveragePool<kernel_shape = [2, 2]>(d)" QDQ_Y, QDQ_IMAGE, kImage,
           "com.microsoft.QLinearAveragePool");
  converts(QDQ_X "h = Sign(x) c = Cast<to = 9>(h) r = Where(c, d, d)" QDQ_Y, QDQ_MATRIX, kMatrix,
           "com.microsoft.QLinearWhere");
}

TEST_CASE("quant-qoperator runs data movement on codes") {
  const Model model =
      converts(QDQ_X "r = Reshape(d, flat) f = QuantizeLinear(r, xs, xz) y = DequantizeLinear(f, xs, xz)",
               "(float[1, 4, 3, 3] x) => (float[1, 36] y)", kImage, "Reshape");
  CHECK(count(ops_of(model), "QuantizeLinear") == 1);
  converts(
      "a = QuantizeLinear(x, xs, xz) d = DequantizeLinear(a, xs, xz) r = MaxPool<kernel_shape = [2, 2]>(d) "
      "f = QuantizeLinear(r, xs, xz) y = DequantizeLinear(f, xs, xz)",
      QDQ_IMAGE, kImage, "MaxPool");
}

TEST_CASE("quant-qoperator leaves what the runtime leaves in float") {
  for (const char* body : {QDQ_X QDQ_CW "y = Conv(d, e)", QDQ_X "r = Tanh(d)" QDQ_Y, QDQ_CW "r = Conv(x, e)" QDQ_Y,
                           QDQ_X QDQ_CW "c = Conv(d, e) r = Relu(c)" QDQ_Y})
    require_untouched(qdq_model(QDQ_IMAGE, body), kPass);
  require_untouched(HEAD "g (float[2, 4] x) => (float[2, 4] y) { r = Relu(x) y = Neg(r) }", kPass);
}

TEST_CASE("quant-qoperator says what quant-repair has to do first") {
  Model model = parse(qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW "r = Conv(d, e, b)" QDQ_Y));
  PassContext context;
  CHECK_FALSE(run_pipeline(model, kPass, &context).changed);
  CHECK(skip_reason(context, "Conv->r").find("quant-repair") != std::string::npos);
  CHECK(run_pipeline(model, "quant-repair," + std::string(kPass)).changed);
  CHECK(count(ops_of(model), "QLinearConv") == 1);
}

TEST_CASE("quant-qoperator: conversions that float nodes also read stay") {
  const Model model = converts(QDQ_X QDQ_W
                               "n = Neg(d) r = MatMul(d, e) f = QuantizeLinear(r, ys, yz) "
                               "h = DequantizeLinear(f, ys, yz) y = Sub(h, n)",
                               QDQ_MATRIX, kMatrix, "QLinearMatMul");
  CHECK(count(ops_of(model), "DequantizeLinear") == 2);
}

TEST_CASE("quant-qoperator keeps the results of trained models") {
  const std::string name = GENERATE(as<std::string>(), "digits_cnn", "digits_transformer");
  auto loaded = load_model(std::string(ONNXPRESS_SOURCE_DIR) + "/testdata/models/" + name + ".onnx");
  REQUIRE(loaded);
  const ValueType input = loaded->main().type(loaded->main().inputs()[0]);
  Dims dims;
  for (const Dim& dim : *input.shape) dims.push_back(dim.value.value_or(1));
  std::vector<Batch> batches;
  for (unsigned seed = 1; seed < 5; ++seed) batches.push_back(random_batch(loaded->main().inputs()[0], dims, seed));
  MemorySource samples(batches);
  EngineActivations activations(samples, 1, 0);
  PassContext context;
  context.activations = &activations;
  run_pipeline(*loaded, "fold-batchnorm,quant-static{placement=all}", &context);
  Model written = loaded->clone();
  CHECK(run_pipeline(written, "quant-repair{target=ort-x86-vnni}," + std::string(kPass)).changed);
  for (const Batch& batch : batches) {
    const auto expected = run_on(*loaded, batch);
    CHECK(sqnr_db(expected, run_on(written, batch)) > 40);
    CHECK(sqnr_db(expected, run_as_is(written, batch)) > 40);
  }
}

}  // namespace onnxpress::testing
