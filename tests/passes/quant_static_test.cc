#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <map>

#include "engine/activations.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// Ranges given in the test itself.
class FixedActivations : public Activations {
 public:
  explicit FixedActivations(std::map<std::string, std::vector<float>> values) : values_(std::move(values)) {}
  Status collect(const Model&, std::span<const Tap> taps) override {
    for (const Tap& tap : taps) {
      const std::vector<float>& values = values_.at(tap.value);
      const Tensor tensor = Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values);
      tap.accumulator->merge(tap.accumulator->reduce(tensor.view()));
    }
    return {};
  }
  std::string description() const override { return "fixed"; }

 private:
  std::map<std::string, std::vector<float>> values_;
};

std::vector<Batch> samples_of(const Dims& dims) {
  std::vector<Batch> samples;
  for (unsigned seed = 100; seed < 104; ++seed) samples.push_back(random_batch("x", dims, seed));
  return samples;
}

// A model quantized on random samples of its input "x".
struct Quantized {
  Model model = {};
  PassContext context = {};
  OpCounts runtime = {};  // what the runtime makes of it
  double sqnr = 0;        // against the float model, on the calibration samples, the worst of them
  bool changed = false;
};

Quantized quantize(const std::string& source, const Dims& input,
                   const std::string& pipeline = "quant-static{placement=all}", unsigned jobs = 1) {
  INFO(source.substr(0, 400) << "...");
  const Model before = parse(source);
  Quantized out{.model = parse(source)};
  MemorySource samples(samples_of(input));
  EngineActivations activations(samples, jobs, 0);
  out.context.activations = &activations;
  out.context.jobs = jobs;
  out.changed = run_pipeline(out.model, pipeline, &out.context).changed;
  out.runtime = runtime_ops(out.model);
  out.sqnr = std::numeric_limits<double>::infinity();
  for (const Batch& batch : samples_of(input))
    out.sqnr = std::min(out.sqnr, sqnr_db(run_on(before, batch), run_on(out.model, batch)));
  CHECK(out.model.main().outputs() == before.main().outputs());
  const std::string once = out.model.fingerprint().value();
  PassContext again;
  again.activations = &activations;
  CHECK_FALSE(run_pipeline(out.model, pipeline, &again).changed);
  CHECK(out.model.fingerprint().value() == once);
  out.context.activations = nullptr;
  return out;
}

// The runtime executes exactly these ops, input and output conversion aside.
void check_runtime(const Quantized& result, OpCounts expected) {
  OpCounts got = result.runtime;
  INFO(text(got));
  got.erase("QuantizeLinear");
  got.erase("DequantizeLinear");
  CHECK(got == expected);
}

// One conversion to codes and one back.
void check_codes_throughout(const Quantized& result) {
  INFO(text(result.runtime));
  CHECK(count(result.runtime, "QuantizeLinear") == 1);
  CHECK(count(result.runtime, "DequantizeLinear") == 1);
}

void require_skipped(const std::string& source, const Dims& input, std::string_view label, std::string_view reason,
                     const std::string& pipeline = "quant-static{placement=all}") {
  const Quantized result = quantize(source, input, pipeline);
  INFO(label << ": " << skip_reason(result.context, label));
  CHECK_FALSE(result.changed);
  CHECK(dump(result.model) == dump(parse(source)));
  CHECK(skip_reason(result.context, label).find(reason) != std::string::npos);
}

#define X8 "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y) <"
const Dims kX8 = {1, 8, 12, 12};

std::string conv_weights(std::string_view w, std::string_view b, unsigned seed, const Dims& dims = {8, 8, 3, 3}) {
  return float_tensor(w, dims, seed, 0.3F) + ", " + float_tensor(b, {dims[0]}, seed + 50, 0.3F);
}
#define PADS "<pads = [1, 1, 1, 1]>"

TEST_CASE("quant-static by hand: Conv and Relu between QuantizeLinear and DequantizeLinear") {
  FixedActivations activations({{"x", {0, 127.5}}, {"y", {0, 255}}});
  PassContext context = {};
  context.activations = &activations;
  Model model = parse(HEAD
                      "g (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y) <float[2, 1, 1, 1] w = {127, -254}, "
                      "float[2] b = {1, -3}> { c = Conv(x, w, b) y = Relu(c) }");
  CHECK(run_pipeline(model, "quant-static{placement=all}", &context).changed);
  CHECK(
      dump(model) ==
      dump(parse(HEAD "g (float[1, 1, 2, 2] x) => (float[1, 2, 2, 2] y) <"
                      "float x_scale = {0.5}, uint8 x_zero_point = {0}, float y_scale = {1}, uint8 y_zero_point = {0}, "
                      "float[2] w_scale = {1, 2}, int8[2] w_zero_point = {0, 0}, "
                      "int8[2, 1, 1, 1] w_quantized = {127, -127}, float[2] b_scale = {0.5, 1}, "
                      "int32[2] b_quantized = {2, -3}> {"
                      "x_quantized = QuantizeLinear(x, x_scale, x_zero_point) "
                      "x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point) "
                      "w_dequantized = DequantizeLinear <axis = 0> (w_quantized, w_scale, w_zero_point) "
                      "b_dequantized = DequantizeLinear <axis = 0> (b_quantized, b_scale) "
                      "c = Conv(x_dequantized, w_dequantized, b_dequantized) "
                      "y_float = Relu(c) "
                      "y_quantized = QuantizeLinear(y_float, y_scale, y_zero_point) "
                      "y = DequantizeLinear(y_quantized, y_scale, y_zero_point) }")));
}

TEST_CASE("quant-static: a chain of convolutions runs as QLinearConv") {
  for (const std::string head :
       {"<ir_version: 6, opset_import: [\"\": 11]> ", "<ir_version: 7, opset_import: [\"\": 13]> ", HEAD,
        "<ir_version: 10, opset_import: [\"\": 21]> ", "<ir_version: 10, opset_import: [\"\": 22]> "}) {
    const Quantized result = quantize(head + X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) +
                                          ", " + conv_weights("w3", "b3", 3) +
                                          "> { c1 = Conv " PADS "(x, w1, b1) r1 = Relu(c1) c2 = Conv " PADS
                                          "(r1, w2, b2) r2 = Relu(c2) "
                                          "y = Conv " PADS "(r2, w3, b3) }",
                                      kX8);
    CHECK(result.changed);
    check_runtime(result, {{"QLinearConv", 3}});
    check_codes_throughout(result);
    CHECK(result.sqnr >= 25);
  }
}

TEST_CASE("quant-static: the QOperator form is what the runtime makes of the QDQ form") {
  const std::string source = HEAD X8 + conv_weights("w", "b", 1) + ", " + conv_weights("v", "c", 2) +
                             "> { t = Conv " PADS "(x, w, b) u = Relu(t) y = Conv " PADS "(u, v, c) }";
  const Quantized pairs = quantize(source, kX8),
                  operators = quantize(source, kX8, "quant-static{placement=all format=qoperator}");
  CHECK(count(ops_of(operators.model), "QLinearConv") == 2);
  CHECK(count(ops_of(operators.model), "Conv") == 0);
  CHECK(count(ops_of(pairs.model), "QLinearConv") == 0);
  CHECK(operators.runtime == pairs.runtime);
  CHECK(operators.sqnr == pairs.sqnr);
}

TEST_CASE("quant-static: a channel of zeros keeps a fine bias") {
  // Only the biases reach the result.
  const Quantized result = quantize(HEAD X8
                                    "float[2, 8, 1, 1] w = {0, 0, 0, 0, 0, 0, 0, 0, 0.01, 0, 0, 0, 0, 0, 0, 0}, "
                                    "float[2] b = {0.0037, 0.001}> { y = Conv(x, w, b) }",
                                    kX8);
  CHECK(result.sqnr >= 35);
}

TEST_CASE("quant-static: convolutions with groups, strides, one dimension and without bias") {
  const auto weight = [](const Dims& dims) { return float_tensor("w", dims, 1, 0.3F); };
  for (const std::string attributes : {"<group = 2, pads = [1, 1, 1, 1]>", "<group = 2, strides = [2, 2]>",
                                       "<group = 2, auto_pad = \"SAME_UPPER\">", "<group = 2, dilations = [2, 2]>"}) {
    const Quantized result = quantize(HEAD X8 + weight({6, 4, 3, 3}) + "> { y = Conv " + attributes + "(x, w) }", kX8);
    check_runtime(result, {{"QLinearConv", 1}});
    CHECK(result.sqnr >= 25);
  }
  const Quantized depthwise = quantize(HEAD X8 + weight({8, 1, 3, 3}) + "> { y = Conv <group = 8> (x, w) }", kX8);
  check_runtime(depthwise, {{"QLinearConv", 1}});
  CHECK(depthwise.sqnr >= 25);
  const Quantized line = quantize(
      HEAD "g (float[1, 8, 20] x) => (float[N, C, L] y) <" + weight({6, 8, 3}) + "> { y = Conv (x, w) }", {1, 8, 20});
  check_runtime(line, {{"QLinearConv", 1}});
  CHECK(line.sqnr >= 25);
}

TEST_CASE("quant-static: Relu and Clip from 0 are absorbed, other activations stay behind the integer node") {
  const std::string start =
      X8 + conv_weights("w", "b", 1) + ", float zero = {0}, float six = {6}, float low = {-0.5}, float tiny = {0.1}> ";
  const auto with = [&](const std::string& act) {
    return quantize(HEAD + start + "{ c = Conv " PADS "(x, w, b) y = " + act + " }", kX8);
  };
  for (const std::string act : {"Relu(c)", "Clip(c, zero, six)", "Clip(c, zero)"}) {
    INFO(act);
    const Quantized result = with(act);
    check_runtime(result, {{"QLinearConv", 1}});
    CHECK(result.sqnr >= 25);
  }
  // Codes that stand for nothing outside [-0.5, 6]: the zero point is no whole number of steps above the bound.
  const Quantized low = with("Clip(c, low, six)");
  check_runtime(low, {{"QLinearConv", 1}});
  CHECK(low.sqnr >= 25);
  check_runtime(with("Clip(c, tiny, six)"), {{"QLinearConv", 1}, {"Clip", 1}});  // 0 is no value of it
  check_runtime(with("Tanh(c)"), {{"QLinearConv", 1}, {"Tanh", 1}});
  // Values beyond 6 are cut off by the codes themselves.
  const std::string large = HEAD X8 + float_tensor("w", {8, 8, 3, 3}, 1, 5) +
                            ", float zero = {0}, float six = {6}> { c = Conv(x, w) y = Clip(c, zero, six) }";
  const Quantized cut = quantize(large, kX8);
  check_runtime(cut, {{"QLinearConv", 1}});
  CHECK(cut.sqnr >= 25);
}

TEST_CASE("quant-static at opset 10: Clip with attributes") {
  const Quantized result = quantize("<ir_version: 5, opset_import: [\"\": 10]> " X8 + conv_weights("w", "b", 1) +
                                        "> { c = Conv " PADS "(x, w, b) y = Clip <min = 0.0, max = 6.0> (c) }",
                                    kX8);
  CHECK(result.changed);
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: a residual block") {
  const Quantized result =
      quantize(HEAD X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) + ", " +
                   conv_weights("w3", "b3", 3) + ", " + conv_weights("w4", "b4", 4) +
                   "> { c1 = Conv " PADS "(x, w1, b1) r1 = Relu(c1) c2 = Conv " PADS
                   "(r1, w2, b2) r2 = Relu(c2) "
                   "c3 = Conv " PADS "(r2, w3, b3) sum = Add(c3, r1) r3 = Relu(sum) y = Conv " PADS "(r3, w4, b4) }",
               kX8);
  check_runtime(result, {{"QLinearConv", 4}, {"com.microsoft.QLinearAdd", 1}});
  check_codes_throughout(result);
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: a convolution read by an integer and a float node keeps its kernel") {
  const Quantized result = quantize(HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y, float[N, C, H, W] t) <" +
                                        conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) +
                                        "> { c = Conv " PADS "(x, w1, b1) y = Conv " PADS "(c, w2, b2) t = Tanh(c) }",
                                    kX8);
  check_runtime(result, {{"QLinearConv", 2}, {"Tanh", 1}});
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: a value that is also a graph output keeps its name and its kernels") {
  const Quantized result = quantize(HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y, float[N, C, H, W] c) <" +
                                        conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) +
                                        "> { c = Conv " PADS "(x, w1, b1) y = Conv " PADS "(c, w2, b2) }",
                                    kX8);
  CHECK(result.model.main().producer("c").is("DequantizeLinear"));
  check_runtime(result, {{"QLinearConv", 2}});
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: data movement and pools between convolutions stay on codes") {
  struct Case {
    std::string ops, declarations;
    OpCounts expected;
  };
  const Case cases[] = {
      {"m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)", "", {{"MaxPool", 1}}},
      {"m = Transpose <perm = [0, 1, 3, 2]> (c)", "", {{"Transpose", 1}}},
      {"m = Reshape(c, s)", "int64[4] s = {1, 8, 24, 6}, ", {{"Reshape", 1}}},
      {"m = Slice(c, s, e)", "int64[4] s = {0, 0, 1, 1}, int64[4] e = {1, 8, 9, 9}, ", {{"Slice", 1}}},
      {"f = Flatten(c) m = Reshape(f, s)", "int64[4] s = {1, 8, 12, 12}, ", {{"Flatten", 1}, {"Reshape", 1}}},
      {"m = Gather <axis = 1> (c, s)", "int64[8] s = {7, 6, 5, 4, 3, 2, 1, 0}, ", {{"Gather", 1}}},
      {"u = Unsqueeze(c, s) m = Squeeze(u, s)", "int64[1] s = {0}, ", {{"Unsqueeze", 1}, {"Squeeze", 1}}},
      {"m = Expand(c, s)", "int64[4] s = {2, 8, 12, 12}, ", {{"Expand", 1}}},
      {"m = Tile(c, s)", "int64[4] s = {2, 1, 1, 1}, ", {{"Tile", 1}}},
      {"d = DepthToSpace <blocksize = 2> (c) m = Concat <axis = 1> (d, d, d, d)",
       "",
       {{"DepthToSpace", 1}, {"com.microsoft.QLinearConcat", 1}}},
      {"m = AveragePool <kernel_shape = [2, 2]> (c)", "", {{"com.microsoft.QLinearAveragePool", 1}}},
      {"m = GlobalAveragePool(c)", "", {{"com.microsoft.QLinearGlobalAveragePool", 1}}},
      {"m = LeakyRelu <alpha = 0.1> (c)", "", {{"com.microsoft.QLinearLeakyRelu", 1}}},
      {"q = Sigmoid(c) m = Mul(c, q)", "", {{"com.microsoft.QLinearSigmoid", 1}, {"com.microsoft.QLinearMul", 1}}},
      {"m = Concat <axis = 2> (c, c)", "", {{"com.microsoft.QLinearConcat", 1}}},
  };
  for (const Case& one : cases) {
    INFO(one.ops);
    const Quantized result = quantize(HEAD X8 + one.declarations + conv_weights("w1", "b1", 1) + ", " +
                                          conv_weights("w2", "b2", 2, {4, 8, 1, 1}) +
                                          "> { c = Conv " PADS "(x, w1, b1) " + one.ops + " y = Conv(m, w2, b2) }",
                                      kX8);
    OpCounts expected = one.expected;
    expected["QLinearConv"] = 2;
    check_runtime(result, expected);
    check_codes_throughout(result);
    CHECK(result.sqnr >= 25);
  }
}

TEST_CASE("quant-static: values joined by data movement share scale and zero point") {
  const Quantized result =
      quantize(HEAD X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2, {4, 8, 1, 1}) +
                   "> { c = Conv " PADS
                   "(x, w1, b1) p = MaxPool <kernel_shape = [2, 2]> (c) "
                   "t = Transpose <perm = [0, 1, 3, 2]> (p) y = Conv(t, w2, b2) }",
               kX8);
  std::map<std::string, int> readers;
  for (const Node& node : nodes_of(result.model, "QuantizeLinear")) ++readers[std::string(node.input(1))];
  CHECK(readers == std::map<std::string, int>{{"x_scale", 1}, {"c_scale", 3}, {"y_scale", 1}});
  check_runtime(result, {{"QLinearConv", 2}, {"MaxPool", 1}, {"Transpose", 1}});
  check_codes_throughout(result);
}

TEST_CASE("quant-static: Pad between convolutions shares their parameters; a Pad with another value stays float") {
  const auto padded = [](const std::string& value) {
    return HEAD X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2, {4, 8, 3, 3}) +
           ", int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}, float v = {" + value +
           "}> { c = Conv(x, w1, b1) m = Pad(c, p, v) y = Conv(m, w2, b2) }";
  };
  const Quantized zero = quantize(padded("0"), kX8);
  check_runtime(zero, {{"QLinearConv", 2}, {"Pad", 1}});
  CHECK(zero.sqnr >= 25);
  CHECK(zero.model.main().producer("m_dequantized").input(1) == "c_scale");
  const Quantized other = quantize(padded("-100"), kX8);
  CHECK(skip_reason(other.context, "Pad->m").find("value that is not 0") != std::string::npos);
  CHECK(other.model.main().producer("m_dequantized").input(1) == "m_scale");
}

TEST_CASE("quant-static: MaxPool stays float before opset 12 and when its indices are used") {
  const std::string pool =
      "> { c = Conv " PADS "(x, w1, b1) m = MaxPool <kernel_shape = [2, 2]> (c) y = Conv(m, w2, b2) }";
  const std::string weights = conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2, {4, 8, 1, 1});
  const Quantized old = quantize("<ir_version: 6, opset_import: [\"\": 11]> " X8 + weights + pool, kX8,
                                 "quant-static{placement=all per_channel=false}");
  CHECK(skip_reason(old.context, "MaxPool->m").find("opset 12") != std::string::npos);
  CHECK(old.sqnr >= 25);
  const Quantized indices =
      quantize(HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y, float[N, C, H, W] i) <" + weights +
                   "> { c = Conv " PADS
                   "(x, w1, b1) m, at = MaxPool <kernel_shape = [2, 2]> (c) y = Conv(m, w2, b2) "
                   "i = Cast <to = 1> (at) }",
               kX8);
  CHECK(skip_reason(indices.context, "MaxPool->m").find("Indices") != std::string::npos);
}

TEST_CASE("quant-static: AveragePool with dilations stays float, with the node behind it") {
  const Quantized result = quantize("<ir_version: 9, opset_import: [\"\": 19]> " X8 + conv_weights("w1", "b1", 1) +
                                        ", " + conv_weights("w2", "b2", 2, {4, 8, 1, 1}) +
                                        "> { c = Conv(x, w1, b1) m = AveragePool <kernel_shape = [2, 2], dilations = "
                                        "[2, 2]> (c) y = Conv(m, w2, b2) }",
                                    kX8);
  CHECK(skip_reason(result.context, "AveragePool->m").find("dilations") != std::string::npos);
  CHECK(skip_reason(result.context, "Conv->y").find("dilations") != std::string::npos);
  check_runtime(result, {{"QLinearConv", 1}, {"AveragePool", 1}, {"Conv", 1}});
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: concatenation of branches with different ranges") {
  const Quantized result = quantize(
      HEAD X8 + conv_weights("w1", "b1", 1) + ", " + float_tensor("w2", {4, 8, 1, 1}, 2, 0.9F) + ", " +
          conv_weights("w3", "b3", 3, {6, 12, 1, 1}) +
          "> { c = Conv " PADS "(x, w1, b1) d = Conv(x, w2) m = Concat <axis = 1> (c, d) y = Conv(m, w3, b3) }",
      kX8);
  check_runtime(result, {{"QLinearConv", 3}, {"com.microsoft.QLinearConcat", 1}});
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: glue goes along where that saves conversions, else it stays float and says so") {
  const std::string conv = HEAD X8 + conv_weights("w", "b", 1) + "> { c = Conv " PADS "(x, w, b) ";
  // One small value is dequantized instead of a large one.
  const Quantized pooled = quantize(conv + "y = GlobalAveragePool(c) }", kX8);
  check_runtime(pooled, {{"QLinearConv", 1}, {"com.microsoft.QLinearGlobalAveragePool", 1}});
  const Quantized same = quantize(conv + "y = Sigmoid(c) }", kX8);
  CHECK(skip_reason(same.context, "Sigmoid->y").find("no integer node") != std::string::npos);
  check_runtime(same, {{"QLinearConv", 1}, {"Sigmoid", 1}});
}

TEST_CASE("quant-static: Gemm with every layout, alpha and beta") {
  for (const int trans : {0, 1})
    for (const std::string bias : {"", ", b", ", row", ", one"}) {
      INFO("transB " << trans << bias);
      const Quantized result = quantize(
          HEAD "g (float[6, 32] x) => (float[6, 16] y) <" +
              float_tensor("w", trans != 0 ? Dims{16, 32} : Dims{32, 16}, 1) + ", " + float_tensor("b", {16}, 2) +
              ", " + float_tensor("row", {1, 16}, 3) + ", " + float_tensor("one", {1}, 4) +
              fmt::format("> {{ y = Gemm <transB = {}, alpha = 0.5, beta = 2.0> (x, w{}) }}", trans, bias),
          {6, 32});
      CHECK(count(result.runtime, "com.microsoft.QGemm") == 1);
      CHECK(count(result.runtime, "Gemm") == 0);
      CHECK(result.sqnr >= 30);
    }
}

TEST_CASE("quant-static: MatMul and Gemm are quantized behind only where an integer node reads") {
  const std::string weights =
      float_tensor("w1", {32, 24}, 1) + ", " + float_tensor("w2", {24, 16}, 2) + ", " + float_tensor("b", {24}, 3);
  const Quantized gemm = quantize(HEAD "g (float[6, 32] x) => (float[6, 16] y) <" + weights +
                                      "> { h = Gemm(x, w1, b) r = Relu(h) y = Gemm(r, w2) }",
                                  {6, 32});
  check_runtime(gemm, {{"com.microsoft.QGemm", 2}});
  CHECK(gemm.sqnr >= 25);
  CHECK(nodes_of(gemm.model, "QuantizeLinear").size() == 2);
  const Quantized matmul = quantize(
      HEAD "g (float[2, 6, 32] x) => (float[2, 6, 16] y) <" + weights + "> { h = MatMul(x, w1) y = MatMul(h, w2) }",
      {2, 6, 32});
  check_runtime(matmul, {{"QLinearMatMul", 1}, {"com.microsoft.MatMulIntegerToFloat", 1}});
  CHECK(matmul.sqnr >= 25);
}

TEST_CASE("quant-static: from convolutions to a classifier") {
  const Quantized result =
      quantize(HEAD "g (float[1, 8, 12, 12] x) => (float[1, 10] y) <" + conv_weights("w1", "b1", 1) + ", " +
                   float_tensor("w2", {10, 8}, 2) + ", " + float_tensor("b2", {10}, 3) +
                   "> { c = Conv " PADS
                   "(x, w1, b1) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) "
                   "y = Gemm <transB = 1> (f, w2, b2) }",
               kX8);
  check_runtime(
      result,
      {{"QLinearConv", 1}, {"com.microsoft.QLinearGlobalAveragePool", 1}, {"Flatten", 1}, {"com.microsoft.QGemm", 1}});
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static: a weight shared by two nodes is stored once per layout") {
  const std::string start = HEAD "g (float[6, 16] x) => (float[6, 16] y) <" + float_tensor("w", {16, 16}, 1) + "> ";
  const Quantized same = quantize(start + "{ h = Gemm(x, w) y = MatMul(h, w) }", {6, 16});
  CHECK(same.model.main().initializer("w_quantized"));
  CHECK_FALSE(same.model.main().initializer("w_quantized_1"));
  CHECK_FALSE(same.model.main().initializer("w"));
  CHECK(same.sqnr >= 25);
  const Quantized both = quantize(start + "{ h = Gemm <transB = 1> (x, w) y = MatMul(h, w) }", {6, 16});
  CHECK(both.model.main().initializer("w_quantized_1"));
  CHECK(both.sqnr >= 25);
  // A float reader keeps the float weight.
  const Quantized kept =
      quantize(start + "{ h = MatMul(x, w) s = ReduceSum <keepdims = 0> (w) y = Add(h, s) }", {6, 16});
  CHECK(kept.model.main().initializer("w"));
  CHECK(kept.model.main().initializer("w_quantized"));
}

TEST_CASE("quant-static: a large bias over tiny inputs fits its int32 code") {
  // Naively the scale of the bias is about 1e-7 / 255 / 127 and its code 5e3 / 3e-12 = 1.6e15.
  const Quantized result = quantize(
      HEAD X8 + float_tensor("w", {4, 8, 1, 1}, 1, 1e-3F) +
          ", float[4] b = {5000, -5000, 0.0001, 0}, float tiny = {0.0000001}> { t = Mul(x, tiny) y = Conv(t, w, b) }",
      kX8);
  CHECK(result.changed);
  CHECK(result.sqnr >= 40);
}

TEST_CASE("quant-static: weights that would saturate 16-bit pairs stay exact on this machine") {
  std::string ones;
  for (int i = 0; i < 64 * 4; ++i) ones += i == 0 ? "1" : ", 1";
  const Quantized result = quantize(HEAD "g (float[1, 64, 4, 4] x) => (float[N, C, H, W] y) <float[4, 64, 1, 1] w = {" +
                                        ones + "}, float one = {1}> { p = Add(x, one) y = Conv(p, w) }",
                                    {1, 64, 4, 4});
  CHECK(result.sqnr >= 35);
}

TEST_CASE("quant-static per tensor: on request, and below opset 13 with a warning") {
  const std::string body = X8 + conv_weights("w", "b", 1) + "> { y = Conv " PADS "(x, w, b) }";
  const Quantized asked = quantize(HEAD + body, kX8, "quant-static{placement=all per_channel=false}");
  CHECK(asked.model.main().initializer("w_scale").dims().empty());
  CHECK(asked.model.main().initializer("b_scale").dims().empty());
  CHECK(asked.sqnr >= 25);
  check_runtime(asked, {{"QLinearConv", 1}});
  CHECK_FALSE(has_note(asked.context, "opset 13"));
}

TEST_CASE("quant-static converts older opsets up, but not for nothing") {
  const std::string body = X8 + conv_weights("w", "b", 1) + "> { y = Conv " PADS "(x, w, b) }";
  for (const std::string head :
       {"<ir_version: 4, opset_import: [\"\": 9]> ", "<ir_version: 7, opset_import: [\"\": 12]> "}) {
    const Quantized old = quantize(head + body, kX8);
    CHECK(old.model.opset() == 13);
    CHECK(old.model.main().initializer("w_scale").dims() == Dims{8});
    CHECK(old.sqnr >= 25);
    check_runtime(old, {{"QLinearConv", 1}});
    const Quantized skipped = quantize(head + body, kX8, "quant-static{placement=all skip=op:Conv}");
    CHECK_FALSE(skipped.changed);
    CHECK(dump(skipped.model) == dump(parse(head + body)));
  }
}

TEST_CASE("quant-static does not: an opset that cannot be converted") {
  const Quantized result = quantize(
      "<ir_version: 3, opset_import: [\"\": 6]> " X8 + conv_weights("w", "b", 1) + "> { y = Conv " PADS "(x, w, b) }",
      kX8);
  CHECK_FALSE(result.changed);
  CHECK(has_note(result.context, "QuantizeLinear needs opset 13, the model has 6 and cannot be converted"));
}

TEST_CASE("quant-static does not: weights and biases it cannot use") {
  const std::string weights = conv_weights("w", "b", 1);
  require_skipped(HEAD X8 + weights + "> { v = Identity(w) y = Conv(x, v, b) }", kX8, "Conv->y", "not a constant");
  require_skipped(HEAD X8 + weights + "> { v = Identity(b) y = Conv(x, w, v) }", kX8, "Conv->y",
                  "bias is not a constant");
  require_skipped(HEAD "g (float[6, 32] x) => (float[16, 6] y) <" + float_tensor("w", {6, 6}, 1) +
                      "> { t = Transpose(x) z = Transpose(t) u = Gemm <transA = 1> (z, w) y = Identity(u) }",
                  {6, 32}, "Gemm->u", "transA");
  require_skipped(HEAD "g (float[6, 4] x) => (float[6, 4] y) <" + float_tensor("w", {4, 4}, 1) + ", " +
                      float_tensor("b", {6, 1}, 2) + "> { y = Gemm(x, w, b) }",
                  {6, 4}, "Gemm->y", "not one value per output channel");
  require_skipped(
      HEAD "g (float[2, 6, 4] x) => (float[2, 6, 4] y) <" + float_tensor("w", {2, 4, 4}, 1) + "> { y = MatMul(x, w) }",
      {2, 6, 4}, "MatMul->y", "not a matrix");
  require_skipped(
      HEAD
      "g (float[6, 4] x) => (float[6, 4] y) { y0 = Cast <to = 11> (x) w = Constant <value = double[4, 4] {1, 0, "
      "0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> () y1 = MatMul(y0, w) y = Cast <to = 1> (y1) }",
      {6, 4}, "MatMul->y1", "double, not float");
}

TEST_CASE("quant-static does not: a weight that is also a graph input, an excluded node") {
  Model model =
      parse(HEAD "g (float[1, 1, 2, 2] x, float[1, 1, 1, 1] w = {1}) => (float[1, 1, 2, 2] y) { y = Conv(x, w) }");
  FixedActivations activations({});
  PassContext context = {};
  context.activations = &activations;
  CHECK_FALSE(run_pipeline(model, "quant-static{placement=all}", &context).changed);
  CHECK(skip_reason(context, "Conv->y").find("graph input") != std::string::npos);
  require_skipped(HEAD X8 + conv_weights("w", "b", 1) + "> { y = Conv(x, w, b) }", kX8, "Conv->y", "",
                  "quant-static{placement=all skip=op:Conv}");
}

TEST_CASE("quant-static next to an op of another domain") {
  const Quantized result =
      quantize("<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> " X8 + conv_weights("w1", "b1", 1) +
                   ", " + conv_weights("w2", "b2", 2) +
                   "> { c = Conv " PADS "(x, w1, b1) g0 = com.microsoft.Gelu(c) y = Conv " PADS "(g0, w2, b2) }",
               kX8);
  check_runtime(result, {{"QLinearConv", 2}, {"com.microsoft.Gelu", 1}});
  CHECK(result.sqnr >= 25);
}

TEST_CASE("quant-static warns of a BatchNormalization behind a convolution") {
  const std::string source = HEAD X8 + conv_weights("w", "b", 1) + ", " + float_tensor("s", {8}, 2) +
                             ", float[8] v = {1, 1, 1, 1, 1, 1, 1, 1}" +
                             "> { c = Conv " PADS "(x, w, b) y = BatchNormalization(c, s, s, s, v) }";
  CHECK(has_note(quantize(source, kX8).context, "fold-batchnorm"));
  const Quantized folded = quantize(source, kX8, "fold-batchnorm,quant-static{placement=all}");
  CHECK_FALSE(has_note(folded.context, "run fold-batchnorm"));
  check_runtime(folded, {{"QLinearConv", 1}});
}

TEST_CASE("quant-static: the same bytes at any thread count") {
  const std::string source =
      HEAD X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) + ", " + conv_weights("w3", "b3", 3) +
      "> { c1 = Conv " PADS "(x, w1, b1) c2 = Conv " PADS "(c1, w2, b2) s = Add(c1, c2) y = Conv " PADS "(s, w3, b3) }";
  CHECK(quantize(source, kX8, "quant-static{placement=all}", 1).model.fingerprint().value() ==
        quantize(source, kX8, "quant-static{placement=all}", 4).model.fingerprint().value());
}

}  // namespace
}  // namespace onnxpress::testing
