#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "../quant/fusion_models.h"
#include "engine/activations.h"
#include "quant/fusion.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

const char* kRepair = "quant-repair{target=ort-x86-vnni}";
const Dims kMatrix = {2, 4}, kImage = {1, 4, 3, 3};

NodeFate fate_of(const Model& model, std::string_view op) {
  for (const NodeFate& fate : predict_fusion(model))
    if (fate.node.op() == op) return fate;
  FAIL("no node " << op);
  return {};
}

// Before: `op` is blocked for this reason. After: it runs in the runtime as `kernel`, and outputs stay within 1/`sqnr`.
Model repairs(const std::string& source, const Dims& input, std::string_view op, std::string_view blocker,
              const std::string& kernel, double sqnr) {
  INFO(source.substr(source.find("add_q =")));
  const Model before = parse(source);
  const NodeFate was = fate_of(before, op);
  INFO(was.why);
  if (!blocker.empty()) {
    CHECK(was.fate == Fate::floating);
    CHECK(was.why.find(blocker) != std::string::npos);
    if (kernel != op) CHECK(count(runtime_ops(before), kernel) < count(ops_of(before), std::string(op)));
  }
  Model after = parse(source);
  CHECK(run_pipeline(after, kRepair).changed);
  CHECK_FALSE(run_pipeline(after, kRepair).changed);
  INFO(text(runtime_ops(after)));
  CHECK(count(runtime_ops(after), kernel) == count(ops_of(before), std::string(op)));
  CHECK(after.main().outputs() == before.main().outputs());
  const Batch batch = random_batch("x", input, 3);
  CHECK(sqnr_db(run_on(before, batch), run_on(after, batch)) >= sqnr);
  return after;
}

}  // namespace

TEST_CASE("quant-repair writes zero points that were left out") {
  repairs(qdq_model(QDQ_IMAGE,
                    "a = QuantizeLinear(x, xs) d = DequantizeLinear(a, xs) r = MaxPool<kernel_shape = [2, 2]>(d) "
                    "f = QuantizeLinear(r, xs) y = DequantizeLinear(f, xs)"),
          kImage, "MaxPool", "a zero point is left out", "MaxPool", 200);
  const Model model = repairs(qdq_model(QDQ_IMAGE,
                                        "a = QuantizeLinear(x, xs) d = DequantizeLinear(a, xs) "
                                        "e = DequantizeLinear(cq, ws) r = Conv(d, e) "
                                        "f = QuantizeLinear(r, ys) y = DequantizeLinear(f, ys)"),
                              kImage, "Conv", "", "QLinearConv", 200);
  for (const Node& node : nodes_of(model, "DequantizeLinear")) CHECK_FALSE(node.input(2).empty());
}

TEST_CASE("quant-repair leaves int32 biases without zero point alone") {
  require_untouched(qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "r = Conv(d, e, g)" QDQ_Y), kRepair);
}

TEST_CASE("quant-repair turns int8 activations into uint8 on x86") {
  const std::string source = qdq_model(
      QDQ_IMAGE, "a = QuantizeLinear(x, ss, sz) d = DequantizeLinear(a, ss, sz) " QDQ_CW
                 "r = Conv(d, e) f = QuantizeLinear(r, ss, s0) h = DequantizeLinear(f, ss, s0) y = Add(h, d)");
  const Model model = repairs(source, kImage, "Conv", "int8 activation with 2 readers on x86", "QLinearConv", 45);
  for (const Node& node : nodes_of(model, "QuantizeLinear"))
    CHECK(model.main().constant_type(node.input(2))->first == DType::u8);
  CHECK(model.main().constant_type("cq")->first == DType::i8);  // weights stay
  Model arm = parse(source);
  CHECK_FALSE(run_pipeline(arm, "quant-repair{target=ort-arm64}").changed);
}

TEST_CASE("quant-repair moves int8 constants that meet activations") {
  const Model model =
      repairs(qdq_model(QDQ_MATRIX,
                        "a = QuantizeLinear(x, ss, sz) d = DequantizeLinear(a, ss, sz) i = DequantizeLinear(add_q, "
                        "ss, sz) r = Add(d, i) f = QuantizeLinear(r, ss, s0) y = DequantizeLinear(f, ss, s0)"),
              kMatrix, "Add", "", "com.microsoft.QLinearAdd", 40);
  CHECK(nodes_of(model, "DequantizeLinear")[1].input(0) != "add_q");
}

TEST_CASE("quant-repair does not touch int8 codes that others read") {
  Model model = parse(qdq_model("(float[2, 4] x) => (float[2, 4] y, int8[2, 4] a)",
                                "a = QuantizeLinear(x, xs, sz) d = DequantizeLinear(a, xs, sz) " QDQ_W
                                "r = MatMul(d, e) f = QuantizeLinear(r, ys, yz) y = DequantizeLinear(f, ys, yz)"));
  PassContext context;
  run_pipeline(model, kRepair, &context);
  CHECK(skip_reason(context, "QuantizeLinear->a").find("read by other nodes") != std::string::npos);
  CHECK(model.main().producer("a").input(2) == "sz");
}

TEST_CASE("quant-repair adds an int32 bias") {
  const Model model = repairs(qdq_model(QDQ_MATRIX, QDQ_X QDQ_W "y = Gemm(d, e, b2)"), kMatrix, "Gemm",
                              "its bias 'b2' is float", "com.microsoft.QGemm", 40);
  const Node bias = model.main().producer(nodes_of(model, "Gemm")[0].input(2));
  const auto codes = model.main().constant(bias.input(0));
  REQUIRE(codes);
  const auto values = (*codes)->as<std::int32_t>();
  CHECK(std::vector<std::int32_t>(values.begin(), values.end()) == std::vector<std::int32_t>{200, 400, 600, 800});
  // Also where the runtime of today does so by itself: older ones do not.
  const Model conv =
      repairs(qdq_model(QDQ_IMAGE, QDQ_X "e = DequantizeLinear<axis = 0>(cq, ws4, wz4) r = Conv(d, e, b)" QDQ_Y),
              kImage, "Conv", "", "QLinearConv", 40);
  CHECK(conv.main().producer(nodes_of(conv, "Conv")[0].input(2)).attr_int("axis", 1) == 0);
}

TEST_CASE("quant-repair brings a bias to the scale that the kernel assumes") {
  const std::string source =
      qdq_model(QDQ_MATRIX, QDQ_X QDQ_W "g = DequantizeLinear(bq, ys) y = Gemm(d, e, g)");  // ys = 0.2, not 0.005
  Model model = parse(source);
  CHECK(run_pipeline(model, kRepair).changed);
  const Node bias = model.main().producer(nodes_of(model, "Gemm")[0].input(2));
  const auto codes = model.main().constant(bias.input(0));
  CHECK((*codes)->as<std::int32_t>()[0] == 4000);  // 100 * 0.2 / 0.005
}

TEST_CASE("quant-repair leaves biases it cannot write") {
  PassContext context;
  Model input = parse(qdq_model("(float[2, 4] x, float[4] c) => (float[2, 4] y)", QDQ_X QDQ_W "y = Gemm(d, e, c)"));
  run_pipeline(input, kRepair, &context);
  CHECK(skip_reason(context, "Gemm->y").find("not a constant") != std::string::npos);
  Model beta = parse(qdq_model(QDQ_MATRIX, QDQ_X QDQ_W "y = Gemm<beta = 0.5>(d, e, b)"));
  run_pipeline(beta, kRepair, &context);
  CHECK(skip_reason(context, "Gemm->y").find("beta") != std::string::npos);
  require_untouched(qdq_model(QDQ_MATRIX, "y = Gemm(x, w, b)"), kRepair);
}

TEST_CASE("quant-repair makes Relu and Clip superfluous") {
  const std::string relu = QDQ_X QDQ_CW QDQ_B "c = Conv(d, e, g) r = Relu(c)" QDQ_Y;
  repairs(qdq_model(QDQ_IMAGE, relu), kImage, "Conv", "Relu behind it is not absorbed", "QLinearConv", 25);
  const std::string clip = QDQ_X QDQ_CW QDQ_B
      "c = Conv(d, e, g) r = Clip(c, zero, six) "
      "f = QuantizeLinear(r, cs_wide, z0) y = DequantizeLinear(f, cs_wide, z0)";
  repairs(qdq_model(QDQ_IMAGE, clip), kImage, "Conv", "Clip range", "QLinearConv", 35);
  require_untouched(
      qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B
                "c = Conv(d, e, g) r = Relu(c) f = QuantizeLinear(r, ys, z0) y = DequantizeLinear(f, ys, z0)"),
      kRepair);
}

TEST_CASE("quant-repair corrects the bias of who reads a rescaled value") {
  // ys becomes the scale of 155 codes over 255: the second bias was written for ys.
  const std::string source =
      qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B
                "c = Conv(d, e, g) r = Relu(c) f = QuantizeLinear(r, ys, yz) h = DequantizeLinear(f, ys, yz) "
                "k = DequantizeLinear(bq, bs_h) c2 = Conv(h, e, k) f2 = QuantizeLinear(c2, ys, yz) y = "
                "DequantizeLinear(f2, ys, yz)");
  std::string with_scale = source;
  with_scale.replace(with_scale.find("float bs = "), 0, "float bs_h = {0.01}, ");
  repairs(with_scale, kImage, "Conv", "", "QLinearConv", 30);
}

TEST_CASE("quant-repair gives data movement one scale") {
  repairs(qdq_model(QDQ_IMAGE, QDQ_X "r = MaxPool<kernel_shape = [2, 2]>(d)" QDQ_Y), kImage, "MaxPool",
          "the scale differs across it", "MaxPool", 12);
  // Two movements in a row take it on.
  const Model model = repairs(
      qdq_model("(float[1, 4, 3, 3] x) => (float[1, 36] y)", QDQ_X
                "r = Transpose<perm = [0, 2, 3, 1]>(d) f = QuantizeLinear(r, ys, yz) h = DequantizeLinear(f, ys, yz) "
                "r2 = Reshape(h, flat) f2 = QuantizeLinear(r2, ys, xz) y = DequantizeLinear(f2, ys, xz)"),
      kImage, "Reshape", "", "Reshape", 12);
  for (const Node& node : nodes_of(model, "QuantizeLinear")) CHECK(node.input(1) == "xs");
  CHECK(count(runtime_ops(model), "QuantizeLinear") == 1);
}

TEST_CASE("quant-repair lets all readers take the codes") {
  repairs(qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "r = Conv(d, e, g) f = QuantizeLinear(r, ys, yz) "
                                                  "h = DequantizeLinear(f, ys, yz) n = Neg(r) y = Sub(h, n)"),
          kImage, "Conv", "read by a QuantizeLinear and by other nodes", "QLinearConv", 25);
  repairs(qdq_model("(float[1, 4, 3, 3] x) => (float[N, C, H, W] y, float[N, C, H, W] r)",
                    QDQ_X QDQ_CW QDQ_B "r = Conv(d, e, g)" QDQ_Y),
          kImage, "Conv", "graph output", "QLinearConv", 25);
  repairs(qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B
                    "r = Conv(d, e, g) f = QuantizeLinear(r, ys, yz) h = DequantizeLinear(f, ys, yz) "
                    "f2 = QuantizeLinear(r, xs, xz) i = DequantizeLinear(f2, xs, xz) n = Neg(i) y = Sub(h, n)"),
          kImage, "Conv", "quantized more than once", "QLinearConv", 25);
}

TEST_CASE("quant-repair quantizes the result of a Conv") {
  // As it is behind the Flatten; across MaxPool and Reshape the runtime does so itself.
  repairs(qdq_model("(float[1, 4, 3, 3] x) => (float[1, 36] y)",
                    QDQ_X QDQ_CW QDQ_B "c = Conv(d, e, g) r = Flatten(c)" QDQ_Y),
          kImage, "Conv", "no QuantizeLinear behind it", "QLinearConv", 45);
  const std::string open = qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW QDQ_B "c = Conv(d, e, g) y = Tanh(c)");
  PassContext context;
  Model without = parse(open);
  run_pipeline(without, kRepair, &context);
  CHECK(skip_reason(context, "Conv->c").find("--data") != std::string::npos);
  CHECK(ops_of(without) == OpCounts{{"Conv", 1}, {"DequantizeLinear", 2}, {"Tanh", 1}});  // x is no longer converted
  // Measured.
  Model with = parse(open);
  MemorySource samples({random_batch("x", kImage, 1), random_batch("x", kImage, 2)});
  EngineActivations activations(samples, 1, 0);
  context.activations = &activations;
  CHECK(run_pipeline(with, kRepair, &context).changed);
  CHECK(count(runtime_ops(with), "QLinearConv") == 1);
  const Batch batch = random_batch("x", kImage, 1);
  CHECK(sqnr_db(run_on(parse(open), batch), run_on(with, batch)) > 25);
}

TEST_CASE("quant-repair removes conversions between float nodes") {
  Model model = parse(qdq_model(QDQ_MATRIX,
                                "t = Tanh(x) f = QuantizeLinear(t, cs, xz) h = DequantizeLinear(f, cs, xz) "
                                "y = Exp(h)"));
  CHECK(run_pipeline(model, kRepair).changed);
  CHECK(ops_of(model) == OpCounts{{"Exp", 1}, {"Tanh", 1}});
  // Not where a kernel uses the codes on one side, nor where the runtime absorbs them by moving them.
  require_untouched(qdq_model(QDQ_MATRIX, QDQ_X QDQ_W "r = MatMul(d, e) f = QuantizeLinear(r, ys, yz) "
                                                      "h = DequantizeLinear(f, ys, yz) y = Exp(h)"),
                    kRepair);
}

TEST_CASE("quant-repair leaves models without conversions, custom neighbours and functions alone") {
  require_untouched(HEAD "g (float[2, 4] x) => (float[2, 4] y) { r = Relu(x) y = Neg(r) }", kRepair);
  const std::string function =
      "<ir_version: 8, opset_import: [\"\": 17, \"f\": 1]> g (float[2] x) => (float[2] y) { y = f.q(x) } "
      "<domain: \"f\", opset_import: [\"\": 17]> q (x) => (y) { s = Constant<value = float {0.1}>() "
      "a = QuantizeLinear(x, s) y = DequantizeLinear(a, s) }";
  require_untouched(function, kRepair);
}

TEST_CASE("quant-repair works inside bodies, with parameters captured from outside") {
  Model model = parse(qdq_model("(float[1, 4, 3, 3] x, bool c) => (float[N, C, H, W] z)",
                                "z = If(c) <then_branch = t () => (float[N, C, H, W] y) { " QDQ_X QDQ_CW QDQ_B
                                "k = Conv(d, e, g) r = Relu(k)" QDQ_Y
                                " }, else_branch = o () => (float[N, C, H, W] n) { n = Neg(x) }>"));
  CHECK(count(runtime_ops(model), "QLinearConv") == 0);
  CHECK(run_pipeline(model, kRepair).changed);
  CHECK(count(runtime_ops(model), "QLinearConv") == 1);
}

TEST_CASE("quant-repair touches only selected nodes") {
  Model model = parse(qdq_model(QDQ_MATRIX, QDQ_X QDQ_W "y = Gemm(d, e, b2)"));
  run_pipeline(model, "quant-repair{skip=op:Gemm}");
  CHECK(nodes_of(model, "Gemm")[0].input(2) == "b2");
  Model kept = parse(qdq_model(QDQ_MATRIX, QDQ_X "y = Exp(d)"));
  CHECK_FALSE(run_pipeline(kept, "quant-repair{skip=op:QuantizeLinear}").changed);
}

}  // namespace onnxpress::testing
