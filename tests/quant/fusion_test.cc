// Every rule of the prediction on a model where it applies and one where it does not, each held against the graph that
// the runtime really executes.
#include "quant/fusion.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>

#include "engine/activations.h"
#include "engine/optimized_graph.h"
#include "flow/fusion_check.h"
#include "fusion_models.h"
#include "io/load.h"
#include "support/memory_source.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// The fate of the only node of this op, after checking all nodes against the runtime.
NodeFate fate_in(const Model& model, std::string_view op, bool int8_activations = false) {
  const auto fates = predict_fusion(model, {.int8_activations = int8_activations});
  const auto runtime = optimized_nodes(model, {.int8_activations = int8_activations});
  INFO((runtime ? "" : runtime.error().text()));
  REQUIRE(runtime);
  const FusionCheck check = check_fusion(fates, *runtime);
  for (const FusionMiss& miss : check.misses)
    UNSCOPED_INFO(miss.node << " (" << miss.op << "): predicted " << miss.predicted << ", runtime " << miss.actual);
  CHECK(check.right == check.nodes);
  const auto found = std::ranges::find(fates, op, [](const NodeFate& fate) { return fate.node.op(); });
  REQUIRE(found != fates.end());
  return *found;
}

void fuses(std::string_view interface, std::string_view body, std::string_view op, std::string_view kernel,
           bool int8_activations = false, int opset = 17) {
  INFO(body);
  const Model model = parse(qdq_model(interface, body, opset));
  const NodeFate fate = fate_in(model, op, int8_activations);
  CHECK(fate.fate == Fate::integer);
  CHECK(fate.kernel == kernel);
}

void stays(std::string_view interface, std::string_view body, std::string_view op, std::string_view why,
           bool int8_activations = false, int opset = 17) {
  INFO(body);
  const Model model = parse(qdq_model(interface, body, opset));
  const NodeFate fate = fate_in(model, op, int8_activations);
  CHECK(fate.fate == Fate::floating);
  INFO(fate.why);
  CHECK(fate.why.find(why) != std::string::npos);
}

}  // namespace

TEST_CASE("fusion: Conv needs codes on all sides") {
  fuses(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "r = Conv(d, e, g)" QDQ_Y, "Conv", "QLinearConv");
  fuses(QDQ_IMAGE, QDQ_X QDQ_CW "r = Conv(d, e)" QDQ_Y, "Conv", "QLinearConv");
  fuses(QDQ_IMAGE, QDQ_X "e = DequantizeLinear<axis = 0>(cq, ws4, wz4) r = Conv(d, e)" QDQ_Y, "Conv", "QLinearConv");
  stays(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "y = Conv(d, e, g)", "Conv", "no QuantizeLinear behind it");
  stays(QDQ_IMAGE, QDQ_CW QDQ_B "r = Conv(x, e, g)" QDQ_Y, "Conv", "its input 'x' is float");
  stays("(float[1, 4, 3, 3] x) => (float[N, C, H, W] y, float[N, C, H, W] r)",
        QDQ_X QDQ_CW QDQ_B "r = Conv(d, e, g)" QDQ_Y, "Conv", "graph output");
  stays(QDQ_IMAGE,
        QDQ_X QDQ_CW QDQ_B
        "r = Conv(d, e, g) f = QuantizeLinear(r, ys, yz) h = DequantizeLinear(f, ys, yz) "
        "y = Sub(r, h)",
        "Conv", "read by a QuantizeLinear and by other nodes");
}

TEST_CASE("fusion: weights and biases the runtime quantizes by itself") {
  fuses(QDQ_IMAGE, QDQ_X QDQ_CW "r = Conv(d, e, b)" QDQ_Y, "Conv", "QLinearConv");
  fuses(QDQ_IMAGE, QDQ_X "r = Conv(d, cw, b)" QDQ_Y, "Conv", "QLinearConv");
  fuses(QDQ_IMAGE, QDQ_X "e = DequantizeLinear<axis = 0>(cq, ws4, wz4) r = Conv(d, e, b)" QDQ_Y, "Conv", "QLinearConv");
  fuses(QDQ_MATRIX, QDQ_X QDQ_W "y = Gemm(d, e, b)", "Gemm", "com.microsoft.QGemm");
  fuses(QDQ_MATRIX, QDQ_X "y = Gemm(d, w, b)", "Gemm", "com.microsoft.QGemm");
  stays(QDQ_MATRIX, QDQ_X QDQ_W "y = Gemm(d, e, b2)", "Gemm", "its bias 'b2' is float");
  stays(QDQ_MATRIX, QDQ_X "r = MatMul(d, w)" QDQ_Y, "MatMul", "its constant input 'w' is float");
  stays("(float[2, 4] x, float[4] c) => (float[2, 4] y)", QDQ_X QDQ_W "y = Gemm(d, e, c)", "Gemm", "bias 'c' is float");
}

TEST_CASE("fusion: Relu and Clip behind a kernel") {
  fuses(QDQ_IMAGE,
        QDQ_X QDQ_CW QDQ_B
        "c = Conv(d, e, g) r = Relu(c) f = QuantizeLinear(r, ys, z0) y = DequantizeLinear(f, ys, z0)",
        "Conv", "QLinearConv");
  const Model relu =
      parse(qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW
                      "c = Conv(d, e) r = Relu(c) f = QuantizeLinear(r, ys, z0) y = DequantizeLinear(f, ys, z0)"));
  CHECK(fate_in(relu, "Relu").fate == Fate::absorbed);
  stays(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "c = Conv(d, e, g) r = Relu(c)" QDQ_Y, "Conv", "Relu behind it is not absorbed");
  stays(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "c = Conv(d, e, g) r = Relu(c)" QDQ_Y, "Relu", "");
  const std::string clip = QDQ_X QDQ_CW QDQ_B "c = Conv(d, e, g) r = Clip(c, zero, six) ";
  fuses(QDQ_IMAGE, clip + "f = QuantizeLinear(r, cs, z0) y = DequantizeLinear(f, cs, z0)", "Conv", "QLinearConv");
  stays(QDQ_IMAGE, clip + "f = QuantizeLinear(r, cs_wide, z0) y = DequantizeLinear(f, cs_wide, z0)", "Conv",
        "Clip range: codes reach 6.05 > 6");
}

TEST_CASE("fusion: a float Relu behind Gemm or MatMul hides them when it is not the last node") {
  fuses(QDQ_MATRIX, QDQ_X QDQ_W QDQ_B "r = Gemm(d, e, g) y = Neg(r)", "Gemm", "com.microsoft.QGemm");
  fuses(QDQ_MATRIX, QDQ_X QDQ_W QDQ_B "r = Gemm(d, e, g) y = Relu(r)", "Gemm", "com.microsoft.QGemm");
  stays(QDQ_MATRIX, QDQ_X QDQ_W QDQ_B "r = Gemm(d, e, g) q = Relu(r) y = Neg(q)", "Gemm", "a float Relu reads");
  stays(QDQ_MATRIX, QDQ_X QDQ_W "r = MatMul(d, e) q = Relu(r) y = Neg(q)", "MatMul", "a float Relu reads");
}

TEST_CASE("fusion: MatMul with and without codes behind it") {
  fuses(QDQ_MATRIX, QDQ_X QDQ_W "r = MatMul(d, e)" QDQ_Y, "MatMul", "QLinearMatMul");
  fuses(QDQ_MATRIX, QDQ_X QDQ_W "y = MatMul(d, e)", "MatMul", "com.microsoft.MatMulIntegerToFloat");
  fuses(QDQ_MATRIX, QDQ_X QDQ_W "r = MatMul(d, e) y = Add(r, b)", "MatMul", "com.microsoft.QGemm");
  fuses("(float[3, 2, 4] x) => (float[3, 2, 4] y)", QDQ_X QDQ_W "r = MatMul(d, e) y = Add(r, b)", "MatMul",
        "com.microsoft.QGemm");
  fuses("(float[N, 2, 4] x) => (float[N, 2, 4] y)", QDQ_X QDQ_W "r = MatMul(d, e) y = Add(r, b)", "MatMul",
        "com.microsoft.MatMulIntegerToFloat");
  stays(QDQ_MATRIX, QDQ_W "y = MatMul(x, e)", "MatMul", "its input 'x' is float");
}

TEST_CASE("fusion: types of codes") {
  const char* int8_chain = "a = QuantizeLinear(x, xs, sz) d = DequantizeLinear(a, xs, sz) " QDQ_CW
                           "r = Conv(d, e) f = QuantizeLinear(r, ss, s0) y = DequantizeLinear(f, ss, s0)";
  fuses(QDQ_IMAGE, int8_chain, "Conv", "QLinearConv");
  fuses(QDQ_IMAGE, int8_chain, "Conv", "QLinearConv", true);
  const char* branches = "a = QuantizeLinear(x, xs, sz) d = DequantizeLinear(a, xs, sz) " QDQ_CW
                         "r = Conv(d, e) f = QuantizeLinear(r, ss, s0) h = DequantizeLinear(f, ss, s0) y = Sub(h, d)";
  stays(QDQ_IMAGE, branches, "Conv", "int8 activation with 2 readers on x86");
  fuses(QDQ_IMAGE, branches, "Conv", "QLinearConv", true);
  stays(QDQ_IMAGE,
        "a = QuantizeLinear(x, xs, xz) d = DequantizeLinear(a, xs, xz) " QDQ_CW
        "r = Conv(d, e) f = QuantizeLinear(r, ss, s0) h = DequantizeLinear(f, ss, s0) y = Sub(h, h)",
        "Conv", "its input is uint8, its output int8", true);
  stays(QDQ_IMAGE,
        "a = com.microsoft.QuantizeLinear(x, xs, hz) d = com.microsoft.DequantizeLinear(a, xs, hz) " QDQ_CW
        "r = Conv(d, e) f = com.microsoft.QuantizeLinear(r, ys, hz) y = com.microsoft.DequantizeLinear(f, ys, hz)",
        "Conv", "16-bit");
}

TEST_CASE("fusion: elementwise ops and pools") {
  const std::string two = QDQ_X "e = DequantizeLinear(a, xs, xz) ";
  fuses(QDQ_MATRIX, two + "r = Add(d, e)" QDQ_Y, "Add", "com.microsoft.QLinearAdd");
  fuses(QDQ_MATRIX, two + "r = Mul(d, e)" QDQ_Y, "Mul", "com.microsoft.QLinearMul");
  fuses("(float[2, 4] x) => (float[4, 4] y)", two + "r = Concat<axis = 0>(d, e)" QDQ_Y, "Concat",
        "com.microsoft.QLinearConcat");
  stays(QDQ_MATRIX, QDQ_X "r = Add(d, b)" QDQ_Y, "Add", "its constant input 'b' is float");
  stays(QDQ_MATRIX, QDQ_X "e = DequantizeLinear(add_q, ws, wz) r = Add(d, e)" QDQ_Y, "Add",
        "its inputs are uint8 and int8");
  for (const char* op : {"Sigmoid", "LeakyRelu", "Softmax"})
    fuses(QDQ_MATRIX, QDQ_X "r = " + std::string(op) + "(d)" QDQ_Y, op, "com.microsoft.QLinear" + std::string(op));
  for (const char* op : {"Tanh", "Relu", "Exp"})
    stays(QDQ_MATRIX, QDQ_X "r = " + std::string(op) + "(d)" QDQ_Y, op, "");
  fuses(QDQ_IMAGE, QDQ_X "r = GlobalAveragePool(d)" QDQ_Y, "GlobalAveragePool",
        "com.microsoft.QLinearGlobalAveragePool");
  fuses(QDQ_IMAGE, QDQ_X "r = AveragePool<kernel_shape = [2, 2]>(d)" QDQ_Y, "AveragePool",
        "com.microsoft.QLinearAveragePool");
  fuses("(float[2, 4] x, bool[2, 4] c) => (float[2, 4] y)", two + "r = Where(c, d, e)" QDQ_Y, "Where",
        "com.microsoft.QLinearWhere");
  stays(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "r = ConvTranspose(d, e, g)" QDQ_Y, "ConvTranspose", "no int8 kernel");
}

TEST_CASE("fusion: data movement drops its conversions when parameters agree") {
  const std::string same = " f = QuantizeLinear(r, xs, xz) y = DequantizeLinear(f, xs, xz)";
  const std::string pool = QDQ_X "r = MaxPool<kernel_shape = [2, 2]>(d)";
  fuses(QDQ_IMAGE, pool + same, "MaxPool", "MaxPool");
  fuses("(float[1, 4, 3, 3] x) => (float[1, 36] y)", QDQ_X "r = Reshape(d, flat)" + same, "Reshape", "Reshape");
  fuses(QDQ_IMAGE, QDQ_X "r = DepthToSpace<blocksize = 2>(d)" + same, "DepthToSpace", "DepthToSpace");
  stays(QDQ_IMAGE, pool + QDQ_Y, "MaxPool", "the scale differs across it: 0.1 before, 0.2 behind");
  stays(QDQ_IMAGE, pool + " f = QuantizeLinear(r, xs, yz) y = DequantizeLinear(f, xs, yz)", "MaxPool",
        "the zero point differs across it");
  stays(QDQ_IMAGE,
        "a = QuantizeLinear(x, xs) d = DequantizeLinear(a, xs) r = MaxPool<kernel_shape = [2, 2]>(d) "
        "f = QuantizeLinear(r, xs) y = DequantizeLinear(f, xs)",
        "MaxPool", "a zero point is left out");
  stays(QDQ_IMAGE, pool + same, "MaxPool", "needs opset 12", false, 11);
}

TEST_CASE("fusion: Gathers of every index of an axis become a Split") {
  const auto gathers = [](const char* second) {
    return parse(qdq_model("(float[1, 2, 4] x) => (float[1, 4] y)",
                           std::string(QDQ_X "i = Constant<value_int = 0>() j = Constant<value_int = ") + second +
                               ">() p = Gather<axis = 1>(d, i) pq = QuantizeLinear(p, xs, xz) "
                               "pd = DequantizeLinear(pq, xs, xz) q = Gather<axis = 1>(d, j) "
                               "qq = QuantizeLinear(q, xs, xz) qd = DequantizeLinear(qq, xs, xz) "
                               "r = Add(pd, qd)" QDQ_Y));
  };
  const NodeFate whole = fate_in(gathers("1"), "Gather");
  CHECK(whole.fate == Fate::absorbed);
  CHECK(whole.why.find("Split") != std::string::npos);
  CHECK(fate_in(gathers("-1"), "Gather").fate == Fate::absorbed);
  const Model three = parse(qdq_model("(float[1, 3, 4] x) => (float[1, 4] y)",
                                      QDQ_X "i = Constant<value_int = 0>() j = Constant<value_int = 1>() "
                                            "p = Gather<axis = 1>(d, i) pq = QuantizeLinear(p, xs, xz) "
                                            "pd = DequantizeLinear(pq, xs, xz) q = Gather<axis = 1>(d, j) "
                                            "qq = QuantizeLinear(q, xs, xz) qd = DequantizeLinear(qq, xs, xz) "
                                            "r = Add(pd, qd)" QDQ_Y));
  CHECK(fate_in(three, "Gather").fate == Fate::integer);  // the third index is left out
}

TEST_CASE("fusion: conversions cross Reshape and Transpose to reach an integer node") {
  // The runtime moves the QuantizeLinear in front of the Transpose, which then runs on codes.
  const Model model =
      parse(qdq_model("(float[4, 2] x) => (float[2, 4] y)",
                      "t = Transpose(x) a = QuantizeLinear(t, xs, xz) d = DequantizeLinear(a, xs, xz) " QDQ_W
                      "r = MatMul(d, e)" QDQ_Y));
  CHECK(fate_in(model, "Transpose").fate == Fate::integer);
  const Model plain = parse(qdq_model("(float[4, 2] x) => (float[2, 4] y)", "t = Transpose(x) y = Neg(t)"));
  CHECK(fate_in(plain, "Transpose").fate == Fate::floating);
}

TEST_CASE("fusion: products on dynamically quantized activations") {
  const std::string product =
      "xq, q_s, q_z = DynamicQuantizeLinear(x) p = MatMulInteger(xq, wq, q_z, wz) c = Cast<to = 1>(p) s = Mul(q_s, "
      "ws) ";
  fuses(QDQ_MATRIX, product + "y = Mul(c, s)", "MatMulInteger", "com.microsoft.DynamicQuantizeMatMul");
  // Equal products are computed once; the Cast behind then has two readers and nothing fuses.
  const Model twins =
      parse(qdq_model(QDQ_MATRIX, product + "m = Mul(c, s) p2 = MatMulInteger(xq, wq, q_z, wz) c2 = Cast<to = 1>(p2) "
                                            "s2 = Mul(q_s, bs) n = Mul(c2, s2) y = Sub(m, n)"));
  CHECK(fate_in(twins, "MatMulInteger").fate == Fate::absorbed);
  CHECK(predict_fusion(twins)[5].kernel == "MatMulInteger");
  fuses("(float[2, 4] x) => (float[2, 4] y, float[2, 4] c)", product + "y = Mul(c, s)", "MatMulInteger",
        "MatMulInteger");
}

TEST_CASE("fusion: bodies are judged in their own scope") {
  const std::string body = QDQ_X QDQ_CW "r = Conv(d, e)" QDQ_Y;
  const Model model = parse(qdq_model("(float[1, 4, 3, 3] x, bool c) => (float[N, C, H, W] z)",
                                      "z = If(c) <then_branch = t () => (float[N, C, H, W] y) { " + body +
                                          " }, else_branch = o () => (float[N, C, H, W] n) { n = Neg(x) }>"));
  CHECK(fate_in(model, "Conv").kernel == "QLinearConv");
  // Codes made outside are no DequantizeLinear of the body.
  const Model outside =
      parse(qdq_model("(float[1, 4, 3, 3] x, bool c) => (float[N, C, H, W] z)",
                      QDQ_X "z = If(c) <then_branch = t () => (float[N, C, H, W] y) { " QDQ_CW "r = Conv(d, e)" QDQ_Y
                            " }, else_branch = o () => (float[N, C, H, W] n) { n = Neg(d) }>"));
  CHECK(fate_in(outside, "Conv").fate == Fate::floating);
}

TEST_CASE("fusion: QOperator models stay what they are") {
  fuses(QDQ_IMAGE,
        "a = QuantizeLinear(x, xs, xz) q = QLinearConv(a, xs, xz, cq, ws, wz, ys, yz) "
        "y = DequantizeLinear(q, ys, yz)",
        "QLinearConv", "QLinearConv");
  const Model pair =
      parse(qdq_model(QDQ_MATRIX,
                      "a = QuantizeLinear(x, xs, xz) d = DequantizeLinear(a, xs, xz) f = QuantizeLinear(d, xs, xz) "
                      "q = QLinearMatMul(f, xs, xz, wq, ws, wz, ys, yz) y = DequantizeLinear(q, ys, yz)"));
  CHECK(fate_in(pair, "DequantizeLinear").fate == Fate::absorbed);  // back to the same codes
}

TEST_CASE("fusion: what a float model becomes") {
  const Model model = parse(HEAD
                            "g (float[2, 4] x) => (float[2, 3] y) <float[4, 3] w = {1,2,3,4,5,6,7,8,9,1,2,3}> "
                            "{ m = MatMul(x, w) i = Identity(m) y = Relu(i) }");
  CHECK(fate_in(model, "MatMul").fate == Fate::floating);
  CHECK(fate_in(model, "Identity").fate == Fate::absorbed);
}

namespace {

Model digits(const std::string& name) {
  auto model = load_model(std::string(ONNXPRESS_SOURCE_DIR) + "/testdata/models/" + name + ".onnx");
  REQUIRE(model);
  return std::move(*model);
}

void at_least_99_percent(const Model& model, bool int8_activations = false) {
  const auto fates = predict_fusion(model, {.int8_activations = int8_activations});
  const auto runtime = optimized_nodes(model, {.int8_activations = int8_activations});
  REQUIRE(runtime);
  const FusionCheck check = check_fusion(fates, *runtime);
  for (const FusionMiss& miss : check.misses)
    UNSCOPED_INFO(miss.node << " (" << miss.op << "): predicted " << miss.predicted << ", runtime " << miss.actual);
  CHECK(check.share() >= 0.99);
  CHECK(check.quantized_right * 100 >= check.quantized * 99);
}

}  // namespace

TEST_CASE("fusion: the trained models in every form") {
  const std::string name = GENERATE(as<std::string>(), "digits_cnn", "digits_transformer", "digits_lstm");
  const std::string pipeline =
      GENERATE(as<std::string>(), "clean-dead", "fold-batchnorm,quant-static",
               "fold-batchnorm,quant-static{per_channel=false}", "quant-dynamic",
               "fold-batchnorm,on{op:Conv}(quant-static)", "fold-batchnorm,quant-static{skip=op:MatMul},quant-dynamic");
  INFO(name << ": " << pipeline);
  Model model = digits(name);
  const ValueType input = model.main().type(model.main().inputs()[0]);
  Dims fed;
  for (const Dim& dim : *input.shape) fed.push_back(dim.value.value_or(1));
  MemorySource samples(
      {random_batch(model.main().inputs()[0], fed, 1), random_batch(model.main().inputs()[0], fed, 2)});
  EngineActivations activations(samples, 1, 0);
  PassContext context;
  context.activations = &activations;
  run_pipeline(model, pipeline, &context);
  at_least_99_percent(model);
  at_least_99_percent(model, true);
}

}  // namespace onnxpress::testing
