#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "support/journal.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

#define DYNAMIC "quant-dynamic{min_elements=0}"

struct Quantized {
  Model model = {};
  PassContext context = {};
  OpCounts runtime = {};  // what the runtime makes of it
  double sqnr = 0;        // against the float model on random values of input "x"
  bool changed = false;
};

Quantized quantize(const std::string& source, const Dims& input, const std::string& pipeline = DYNAMIC,
                   unsigned jobs = 1) {
  INFO(source.substr(0, 400) << "...");
  const Model before = parse(source);
  Quantized out{.model = parse(source)};
  out.context.jobs = jobs;
  out.changed = run_pipeline(out.model, pipeline, &out.context).changed;
  out.runtime = runtime_ops(out.model);
  const Batch batch = random_batch("x", input, 7);
  out.sqnr = sqnr_db(run_on(before, batch), run_on(out.model, batch));
  CHECK(out.model.main().outputs() == before.main().outputs());
  const std::string once = out.model.fingerprint().value();
  CHECK_FALSE(run_pipeline(out.model, pipeline).changed);
  CHECK(out.model.fingerprint().value() == once);
  return out;
}

// The float ops are gone, and the runtime executes `op` that often.
void check_runtime(const Quantized& result, const std::string& op, std::size_t times) {
  INFO(text(result.runtime));
  CHECK(result.changed);
  for (const char* gone : {"MatMul", "Gemm", "Conv", "LSTM", "com.microsoft.FusedConv", "com.microsoft.FusedGemm"})
    CHECK(count(result.runtime, gone) == 0);
  CHECK(count(result.runtime, op) == times);
}

void require_skipped(const std::string& source, std::string_view label, std::string_view reason,
                     const std::string& pipeline = DYNAMIC) {
  INFO(source.substr(0, 400) << "...");
  Model model = parse(source);
  const std::string before = model.fingerprint().value();
  PassContext context = {};
  CHECK_FALSE(run_pipeline(model, pipeline, &context).changed);
  CHECK(model.fingerprint().value() == before);
  INFO(label << ": " << skip_reason(context, label));
  CHECK(skip_reason(context, label).find(reason) != std::string::npos);
}

#define X632 "g (float[6, 32] x) => (float[A, B] y) <"

TEST_CASE("quant-dynamic by hand: MatMul") {
  require_rewrite(
      HEAD "g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {127, -1, -127, 127}> { y = MatMul(x, w) }", DYNAMIC,
      HEAD
      "g (float[2, 2] x) => (float[2, 2] y) <int8[2, 2] w_quantized = {127, -1, -127, 127}, "
      "float[2] w_scale = {1, 1}, int8[2] w_zero_point = {0, 0}> {"
      "x_quantized, x_scale, x_zero_point = DynamicQuantizeLinear(x) "
      "y_int32 = MatMulInteger(x_quantized, w_quantized, x_zero_point, w_zero_point) "
      "y_cast = Cast <to = 1> (y_int32) y_scale = Mul(x_scale, w_scale) y = Mul(y_cast, y_scale) }");
}

TEST_CASE("quant-dynamic by hand: Gemm with transB, alpha and beta") {
  require_rewrite(HEAD
                  "g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {254, -2, -4, 508}, float[2] b = {1, 2}> "
                  "{ y = Gemm <transB = 1, alpha = 0.5, beta = 3.0> (x, w, b) }",
                  DYNAMIC,
                  HEAD
                  "g (float[1, 2] x) => (float[1, 2] y) <int8[2, 2] w_quantized = {127, -1, -1, 127}, "
                  "float[2] w_scale = {1, 2}, int8[2] w_zero_point = {0, 0}, float[2] b_times_beta = {3, 6}> {"
                  "x_quantized, x_scale, x_zero_point = DynamicQuantizeLinear(x) "
                  "y_int32 = MatMulInteger(x_quantized, w_quantized, x_zero_point, w_zero_point) "
                  "y_cast = Cast <to = 1> (y_int32) y_scale = Mul(x_scale, w_scale) y_scaled = Mul(y_cast, y_scale) "
                  "y = Add(y_scaled, b_times_beta) }");
}

TEST_CASE("quant-dynamic: MatMul and Gemm become one fused kernel each") {
  const std::string weights =
      float_tensor("w", {32, 16}, 1) + ", " + float_tensor("v", {16, 32}, 2) + ", " + float_tensor("b", {16}, 3);
  for (const std::string node : {"MatMul(x, w)", "Gemm(x, w)", "Gemm(x, w, b)", "Gemm <transB = 1> (x, v, b)",
                                 "Gemm <alpha = 0.5, beta = 2.0> (x, w, b)"}) {
    INFO(node);
    const Quantized result = quantize(HEAD X632 + weights + "> { y = " + node + " }", {6, 32});
    check_runtime(result, "com.microsoft.DynamicQuantizeMatMul", 1);
    CHECK(result.sqnr >= 30);
  }
  const Quantized added =
      quantize(HEAD "g (float[2, 6, 32] x) => (float[2, 6, 16] y) <" + weights + "> { m = MatMul(x, w) y = Add(m, b) }",
               {2, 6, 32});
  check_runtime(added, "com.microsoft.DynamicQuantizeMatMul", 1);
  CHECK(count(added.runtime, "Add") == 0);
  CHECK(added.sqnr >= 30);
}

TEST_CASE("quant-dynamic: the C of a Gemm may be computed when beta is 1") {
  const std::string weights = float_tensor("w", {32, 16}, 1) + ", " + float_tensor("v", {32, 16}, 2);
  const Quantized result =
      quantize(HEAD X632 + weights + "> { c = MatMul(x, v) t = Tanh(c) y = Gemm(x, w, t) }", {6, 32});
  check_runtime(result, "DynamicQuantizeLinear", 1);
  CHECK(result.sqnr >= 30);
  require_skipped(HEAD X632 + float_tensor("w", {32, 16}, 1) + "> { c = ReduceSum(x) y = Gemm <beta = 2.0> (x, w, c) }",
                  "Gemm->y", "beta is not 1");
}

TEST_CASE("quant-dynamic: readers of one value share its quantization") {
  const Quantized result =
      quantize(HEAD "g (float[6, 32] x) => (float[6, 32] y) <" + float_tensor("wq", {32, 32}, 1) + ", " +
                   float_tensor("wk", {32, 32}, 2) + ", " + float_tensor("wv", {32, 32}, 3) +
                   "> { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) s = Mul(q, k) y = Add(s, v) }",
               {6, 32});
  CHECK(nodes_of(result.model, "DynamicQuantizeLinear").size() == 1);
  check_runtime(result, "com.microsoft.MatMulIntegerToFloat", 3);
  CHECK(count(result.runtime, "DynamicQuantizeLinear") == 1);
  CHECK(result.sqnr >= 30);
}

TEST_CASE("quant-dynamic: a weight read twice is stored once per form") {
  const std::string start = HEAD X632 + float_tensor("w", {32, 32}, 1) + "> ";
  const Quantized same = quantize(start + "{ h = MatMul(x, w) y = Gemm(h, w) }", {6, 32});
  CHECK(same.model.main().initializers().size() == 3);
  CHECK(same.sqnr >= 25);
  const Quantized both = quantize(start + "{ h = MatMul(x, w) y = Gemm <transB = 1> (h, w) }", {6, 32});
  CHECK(both.model.main().initializers().size() == 6);
  CHECK(both.sqnr >= 25);
  const Quantized kept =
      quantize(start + "{ h = MatMul(x, w) s = ReduceSum <keepdims = 0> (w) y = Add(h, s) }", {6, 32});
  CHECK(kept.model.main().initializer("w"));
}

TEST_CASE("quant-dynamic: Conv with groups, padding, strides, one and two dimensions") {
  const std::string plane = HEAD "g (float[2, 8, 10, 10] x) => (float[N, C, H, W] y) <" +
                            float_tensor("w", {8, 8, 3, 3}, 1) + ", " + float_tensor("v", {6, 4, 3, 3}, 2) + ", " +
                            float_tensor("d", {8, 1, 3, 3}, 3) + ", " + float_tensor("b", {8}, 4) + "> ";
  for (const std::string node :
       {"Conv(x, w)", "Conv(x, w, b)", "Conv <pads = [1, 1, 1, 1]> (x, w, b)", "Conv <pads = [0, 1, 2, 1]> (x, w, b)",
        "Conv <auto_pad = \"SAME_LOWER\", strides = [2, 2]> (x, w, b)", "Conv <dilations = [2, 2]> (x, w)",
        "Conv <group = 2, pads = [1, 1, 1, 1]> (x, v)", "Conv <group = 8, pads = [1, 1, 1, 1]> (x, d, b)"}) {
    INFO(node);
    // Not in [-1, 1): a zero point away from the middle would show wrong padding.
    const Quantized result = quantize(plane + "{ s = Softplus(x) y = " +
                                          [&] {
                                            std::string shifted = node;
                                            return shifted.replace(shifted.find("(x"), 2, "(s");
                                          }() +
                                          " }",
                                      {2, 8, 10, 10});
    check_runtime(result, "ConvInteger", 1);
    CHECK(result.sqnr >= 30);
  }
  const Quantized line =
      quantize(HEAD "g (float[1, 8, 20] x) => (float[N, C, L] y) <" + float_tensor("w", {6, 8, 3}, 1) + ", " +
                   float_tensor("b", {6}, 2) + "> { y = Conv <pads = [1, 1]> (x, w, b) }",
               {1, 8, 20});
  check_runtime(line, "ConvInteger", 1);
  CHECK(line.sqnr >= 30);
  CHECK(line.model.main().initializer("b_per_channel").dims() == Dims{6, 1});
  CHECK_FALSE(line.model.main().initializer("b"));
  const Quantized cube = quantize(HEAD "g (float[1, 4, 5, 5, 5] x) => (float[N, C, D, H, W] y) <" +
                                      float_tensor("w", {6, 4, 2, 2, 2}, 1) + "> { y = Conv(x, w) }",
                                  {1, 4, 5, 5, 5});
  check_runtime(cube, "ConvInteger", 1);
  CHECK(cube.sqnr >= 30);
}

// Directions, inputs 10, hidden 8.
std::string lstm(int directions, const std::string& attributes, const std::string& inputs) {
  return HEAD "g (float[5, 2, 10] x) => (float[S, D, B, H] y, float[D, B, H] yh, float[D, B, H] yc) <" +
         float_tensor("w", {directions, 32, 10}, 1) + ", " + float_tensor("r", {directions, 32, 8}, 2) + ", " +
         float_tensor("b", {directions, 64}, 3) + ", " + float_tensor("h0", {directions, 2, 8}, 4) + ", " +
         float_tensor("c0", {directions, 2, 8}, 5) + ", " + float_tensor("p", {directions, 24}, 6) +
         "> { y, yh, yc = LSTM <" + attributes + "hidden_size = 8> (" + inputs + ") }";
}

TEST_CASE("quant-dynamic: LSTM in one and both directions") {
  struct Case {
    int directions;
    std::string attributes, inputs;
  };
  for (const Case& one :
       {Case{1, "", "x, w, r"}, Case{1, "", "x, w, r, b"}, Case{1, "direction = \"reverse\", ", "x, w, r, b"},
        Case{2, "direction = \"bidirectional\", ", "x, w, r, b"},
        Case{2, "direction = \"bidirectional\", ", "x, w, r, b, , h0, c0, p"}}) {
    INFO(one.directions << " " << one.attributes << one.inputs);
    const Quantized result = quantize(lstm(one.directions, one.attributes, one.inputs), {5, 2, 10});
    check_runtime(result, "com.microsoft.DynamicQuantizeLSTM", 1);
    CHECK(result.model.opset("com.microsoft") == 1);
    CHECK(result.model.main().initializer("w_quantized").dims() == Dims{one.directions, 10, 32});
    CHECK(result.model.main().initializer("w_scale").dims() == Dims{one.directions, 32});
    CHECK_FALSE(result.model.main().initializer("w"));
    CHECK_FALSE(result.model.main().initializer("r"));
    CHECK(result.sqnr >= 30);  // 3 %
  }
  const Quantized skipped = quantize(lstm(1, "", "x, w, r"), {5, 2, 10}, "quant-dynamic{min_elements=0, skip=op:LSTM}");
  CHECK_FALSE(skipped.changed);
  CHECK(skipped.model.opset("com.microsoft") == 0);
}

TEST_CASE("quant-dynamic: one weight scale per tensor on request") {
  for (const std::string node : {"MatMul(x, w)", "Gemm <transB = 1> (x, v, b)"}) {
    const Quantized result =
        quantize(HEAD X632 + float_tensor("w", {32, 16}, 1) + ", " + float_tensor("v", {16, 32}, 2) + ", " +
                     float_tensor("b", {16}, 3) + "> { y = " + node + " }",
                 {6, 32}, "quant-dynamic{min_elements=0, per_channel=false}");
    check_runtime(result, "com.microsoft.DynamicQuantizeMatMul", 1);
    CHECK(result.sqnr >= 30);
    for (const Node& mul : nodes_of(result.model, "MatMulInteger"))
      CHECK(result.model.main().initializer(mul.input(3)).dims().empty());
  }
  const Quantized conv =
      quantize(HEAD "g (float[1, 8, 10, 10] x) => (float[N, C, H, W] y) <" + float_tensor("w", {8, 8, 3, 3}, 1) + ", " +
                   float_tensor("b", {8}, 2) + "> { y = Conv(x, w, b) }",
               {1, 8, 10, 10}, "quant-dynamic{min_elements=0, per_channel=false}");
  check_runtime(conv, "ConvInteger", 1);
  CHECK(conv.model.main().initializer("w_scale").dims().empty());
  CHECK(conv.sqnr >= 30);
}

TEST_CASE("quant-dynamic: weights that would saturate 16-bit pairs stay exact on this machine") {
  std::string ones;
  for (int i = 0; i < 64 * 4; ++i) ones += i == 0 ? "1" : ", 1";
  const Quantized result = quantize(HEAD "g (float[6, 64] x) => (float[6, 4] y) <float[64, 4] w = {" + ones +
                                        "}, float one = {1}> { p = Add(x, one) y = MatMul(p, w) }",
                                    {6, 64});
  check_runtime(result, "com.microsoft.DynamicQuantizeMatMul", 1);
  CHECK(result.sqnr >= 35);
}

TEST_CASE("quant-dynamic inside If, with weights of its own and captured ones") {
  const Quantized result =
      quantize(HEAD "g (float[6, 32] x) => (float[6, 16] y) <" + float_tensor("w", {32, 16}, 1) +
                   ", bool yes = {1}> { t = Tanh(x) y = If(yes) <then_branch = a () => (m) { m = MatMul(t, w) }, "
                   "else_branch = e () => (n) <" +
                   float_tensor("v", {32, 16}, 2) + "> { n = MatMul(t, v) }> }",
               {6, 32});
  CHECK(result.changed);
  CHECK(count(ops_of(result.model), "MatMul") == 0);
  CHECK(count(ops_of(result.model), "MatMulInteger") == 2);
  CHECK(result.model.main().initializer("w_quantized"));
  CHECK_FALSE(result.model.main().initializer("v_quantized"));
  CHECK_FALSE(result.model.main().initializer("w"));
  CHECK(result.sqnr >= 30);
}

TEST_CASE("quant-dynamic: Conv and LSTM inside Loop and If bodies") {
  const Quantized loop =
      quantize(HEAD "g (float[1, 4, 8, 8] x) => (float[N, C, H, W] y) <" + float_tensor("w", {4, 4, 3, 3}, 1, 0.3F) +
                   ", " + float_tensor("b", {4}, 2) +
                   ", int64 trips = {3}, bool yes = {1}> { y = Loop(trips, yes, x) <body = l (int64 i, bool c, "
                   "float[N, C, H, W] s) => "
                   "(bool d, float[N, C, H, W] t) { d = Identity(c) t = Conv <pads = [1, 1, 1, 1]> (s, w, b) }> }",
               {1, 4, 8, 8});
  CHECK(loop.changed);
  CHECK(count(ops_of(loop.model), "ConvInteger") == 1);
  CHECK(count(ops_of(loop.model), "Conv") == 0);
  CHECK(loop.model.main().initializer("w_quantized"));
  CHECK(loop.sqnr >= 25);
  const Quantized lstm_body = quantize(
      HEAD "g (float[5, 2, 10] x) => (float[S, D, B, H] y) <" + float_tensor("w", {1, 32, 10}, 1) + ", " +
          float_tensor("r", {1, 32, 8}, 2) +
          ", bool yes = {1}> { y = If(yes) <then_branch = a () => (t) { t = LSTM <hidden_size = 8> (x, w, r) }, "
          "else_branch = e () => (f) { f = LSTM <hidden_size = 8, direction = \"reverse\"> (x, w, r) }> }",
      {5, 2, 10});
  CHECK(count(ops_of(lstm_body.model), "com.microsoft.DynamicQuantizeLSTM") == 2);
  CHECK_FALSE(lstm_body.model.main().initializer("w"));
  CHECK(lstm_body.sqnr >= 30);
}

TEST_CASE("quant-dynamic leaves functions alone, bodies inside them that read their constants too") {
  const std::string head = "<ir_version: 8, opset_import: [\"\": 17, \"f\": 1]> ";
  const std::string function_head = "<domain: \"f\", opset_import: [\"\": 17]> ";
  const std::string constant = "w = Constant <value = float[2, 2] {1, 2, 3, 4}> () ";
  require_skipped(head + "g (float[2, 2] x) => (float[2, 2] y) { y = f.lin(x) } " + function_head +
                      "lin (a) => (m) { " + constant + "m = MatMul(a, w) }",
                  "MatMul->m", "inside a function");
  require_skipped(head + "g (float[2, 2] x) => (float[2, 2] y) <bool yes = {1}> { y = f.lin(x, yes) } " +
                      function_head + "lin (a, yes) => (m) { " + constant +
                      "m = If(yes) <then_branch = t () => (p) { p = MatMul(a, w) }, else_branch = e () => (q) { q = "
                      "Identity(a) }> }",
                  "MatMul->p", "inside a function");
}

TEST_CASE("quant-dynamic next to an op of another domain") {
  const Quantized result =
      quantize("<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> " X632 +
                   float_tensor("w", {32, 16}, 1) + "> { h = com.microsoft.Gelu(x) y = MatMul(h, w) }",
               {6, 32});
  check_runtime(result, "com.microsoft.Gelu", 1);
  CHECK(result.sqnr >= 30);
}

TEST_CASE("quant-dynamic raises an opset below 11") {
  const std::string old = "<ir_version: 4, opset_import: [\"\": 9]> " X632 + float_tensor("w", {32, 16}, 1) + "> ";
  const Quantized result = quantize(old + "{ m = MatMul(x, w) y = Clip <min = -1.0> (m) }", {6, 32});
  CHECK(result.changed);
  CHECK(result.model.opset() == 11);
  CHECK(result.model.ir_version() == 6);
  CHECK(has_note(result.context, "opset 9 to 11"));
  CHECK(result.sqnr >= 30);
  // Not when nothing is quantized, nor when a node is in the way.
  require_untouched(old + "{ y = MatMul(x, w) }", "quant-dynamic");
  Model stuck =
      parse("<ir_version: 5, opset_import: [\"\": 10]> g (float[1, 1, 6, 32] x) => (float[A, B, C, D] y) <" +
            float_tensor("w", {32, 16}, 1) + ", float[4] s = {1, 1, 2, 0.5}> { m = MatMul(x, w) y = Resize(m, s) }");
  PassContext context = {};
  CHECK_FALSE(run_pipeline(stuck, DYNAMIC, &context).changed);
  CHECK(has_note(context, "enlarges one axis"));
}

TEST_CASE("quant-dynamic: GRU and RNN weights are stored and folded at load") {
  for (const auto& [op, gates] : {std::pair("GRU", 3), std::pair("RNN", 1)}) {
    INFO(op);
    for (const std::int64_t directions : {1, 2}) {
      const std::string source =
          HEAD "g (float[5, 2, 10] x) => (float[S, D, B, H] y) <" + float_tensor("w", {directions, gates * 8, 10}, 1) +
          ", " + float_tensor("r", {directions, gates * 8, 8}, 2) + "> { y = " + op + " <hidden_size = 8" +
          (directions == 2 ? ", direction = \"bidirectional\"" : "") + "> (x, w, r) }";
      const Quantized result = quantize(source, {5, 2, 10});
      INFO(text(result.runtime));
      CHECK(result.changed);
      CHECK(result.runtime == OpCounts{{op, 1}});  // the runtime sees a float weight
      CHECK(result.model.main().initializer("w_quantized").dtype() == DType::i8);
      CHECK(result.model.main().initializer("w_scale").dims() == Dims{directions, gates * 8, 1});
      CHECK_FALSE(result.model.main().initializer("w"));
      CHECK(result.sqnr >= 30);
    }
  }
}

TEST_CASE("quant-dynamic: LSTM without an integer form is stored too") {
  const std::string lstm = "g (float[5, 2, 10] x) => (float[S, D, B, H] y) <" + float_tensor("w", {1, 32, 10}, 1) +
                           ", " + float_tensor("r", {1, 32, 8}, 2) + "> ";
  const Quantized generic = quantize(HEAD + lstm + "{ y = LSTM <hidden_size = 8> (x, w, r) }", {5, 2, 10},
                                     "quant-dynamic{min_elements=0, target=generic}");
  CHECK(generic.runtime == OpCounts{{"LSTM", 1}});
  CHECK(generic.sqnr >= 30);
  Model layout = parse(HEAD + lstm + "{ y = LSTM <hidden_size = 8, layout = 1> (x, w, r) }");
  CHECK(run_pipeline(layout, DYNAMIC).changed);
  CHECK(count(ops_of(layout), "LSTM") == 1);
  CHECK(layout.main().initializer("r_quantized"));
  // Not when something else reads the weight.
  require_skipped(HEAD "g (float[5, 2, 10] x) => (float[S, D, B, H] y, float[1, 24, 10] z) <" +
                      float_tensor("w", {1, 24, 10}, 1) + ", " + float_tensor("r", {1, 24, 8}, 2) +
                      "> { y = GRU <hidden_size = 8> (x, w, r) z = Neg(w) }",
                  "GRU->y", "also read by Neg");
}

TEST_CASE("quant-dynamic: half precision") {
  const std::string cast = "h = Cast <to = 10> (x) w = Cast <to = 10> (v) ";
  Model source = parse(HEAD X632 + float_tensor("v", {32, 16}, 1) + ", " + float_tensor("c", {16}, 2) + "> { " + cast +
                       "b = Cast <to = 10> (c) m = Gemm(h, w, b) y = Cast <to = 1> (m) }");
  run_pipeline(source, "fold-constants");
  const Batch batch = random_batch("x", {6, 32}, 7);
  const auto expected = run_on(source, batch);
  REQUIRE(run_pipeline(source, DYNAMIC).changed);
  CHECK(count(ops_of(source), "MatMulInteger") == 1);
  CHECK(count(ops_of(source), "Gemm") == 0);
  CHECK(sqnr_db(expected, run_on(source, batch)) >= 30);
}

TEST_CASE("quant-dynamic does not: weights it cannot use") {
  const std::string w = float_tensor("w", {32, 16}, 1);
  require_skipped(HEAD X632 + w + "> { v = Identity(w) y = MatMul(x, v) }", "MatMul->y", "not a constant");
  require_skipped(HEAD "g (float[6, 2] x, float[2, 2] w = {1, 2, 3, 4}) => (float[6, 2] y) { y = MatMul(x, w) }",
                  "MatMul->y", "graph input");
  require_skipped(HEAD "g (double[6, 2] x) => (double[6, 2] y) <double[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }",
                  "MatMul->y", "double, not float");
  require_skipped(
      HEAD "g (float[2, 6, 4] x) => (float[2, 6, 4] y) <" + float_tensor("w", {2, 4, 4}, 1) + "> { y = MatMul(x, w) }",
      "MatMul->y", "not a matrix");
  require_skipped(HEAD "g (float[32, 6] x) => (float[6, 16] y) <" + w + "> { y = Gemm <transA = 1> (x, w) }", "Gemm->y",
                  "transA");
  require_skipped(HEAD "g (float[1, 8, 4, 4] x) => (float[N, C, H, W] y) <" + float_tensor("w", {8, 8, 1, 1}, 1) +
                      ", " + float_tensor("b", {8}, 2) + "> { v = Identity(b) y = Conv(x, w, v) }",
                  "Conv->y", "bias is not a constant");
  require_skipped(HEAD X632 + w + "> { y = MatMul(x, w) }", "MatMul->y", "",
                  "quant-dynamic{min_elements=0, skip=op:MatMul}");
}

TEST_CASE("quant-dynamic: min_elements") {
  const std::string source = HEAD X632 + float_tensor("w", {32, 16}, 1) + "> { y = MatMul(x, w) }";
  require_skipped(source, "MatMul->y", "512 elements, fewer than min_elements=1024", "quant-dynamic");
  require_skipped(source, "MatMul->y", "fewer than min_elements=513", "quant-dynamic{min_elements=513}");
  CHECK(quantize(source, {6, 32}, "quant-dynamic{min_elements=512}").changed);
}

TEST_CASE("quant-dynamic: the same bytes at any thread count") {
  const std::string source = HEAD X632 + float_tensor("w", {32, 32}, 1) + ", " + float_tensor("v", {32, 32}, 2) + ", " +
                             float_tensor("u", {32, 32}, 3) +
                             "> { a = MatMul(x, w) b = Gemm <transB = 1> (a, v) c = MatMul(b, u) y = Gemm(c, v) }";
  CHECK(quantize(source, {6, 32}, DYNAMIC, 1).model.fingerprint().value() ==
        quantize(source, {6, 32}, DYNAMIC, 4).model.fingerprint().value());
}

}  // namespace
}  // namespace onnxpress::testing
