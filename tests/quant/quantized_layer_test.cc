#include "quant/quantized_layer.h"

#include <catch2/catch_test_macros.hpp>

#include "ir/rewriter.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

#define IO "(float[1,2,3,3] x) => (float[1,2,3,3] y) "
const std::string kReference =
    HEAD "g " IO "<float[2,2,1,1] w = {0.5, -1, 2, 4}, float[2] b = {1, 2}> { y = Conv(x, w, b) }";
const std::string kInput =
    "float sx = {0.5}, uint8 zx = {0}, int8[2,2,1,1] q = {1, -2, 3, 5}, float[2] s = {0.5, 0.75}, "
    "int8[2] z = {0, 0}, int32[2] bq = {4, 6}, float[2] bs = {0.25, 0.375}";
const std::string kBody =
    "xq = QuantizeLinear(x, sx, zx) xd = DequantizeLinear(xq, sx, zx) "
    "wd = DequantizeLinear<axis = 0>(q, s, z) bd = DequantizeLinear<axis = 0>(bq, bs) ";

Model quantized(const std::string& body = kBody + "y = Conv(xd, wd, bd)", const std::string& constants = kInput) {
  return parse(HEAD "g " IO "<" + constants + "> { " + body + " }");
}

std::expected<QuantizedLayer, std::string> find(const Model& model, const Model& reference) {
  return find_quantized_layer(model.main().nodes().back(), reference);
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  REQUIRE(text.find(from) != std::string::npos);
  return text.replace(text.find(from), from.size(), to);
}

// The reason why the Conv is no layer; "none" when it is one.
std::string reason(const Model& model, const std::string& reference = kReference) {
  const Model from = parse(reference);
  const auto layer = find(model, from);
  return layer ? "none" : layer.error();
}

LayerNumbers read(const QuantizedLayer& layer) {
  auto numbers = read_layer(layer);
  INFO((numbers ? "" : numbers.error().text()));
  REQUIRE(numbers);
  return std::move(*numbers);
}

}  // namespace

TEST_CASE("a quantized Conv and its float counterpart") {
  Model model = quantized();
  const Model reference = parse(kReference);
  const auto layer = find(model, reference);
  REQUIRE(layer);
  CHECK(layer->input() == "xd");
  CHECK(layer->target() == "y");
  CHECK(layer->per_channel);
  CHECK(layer->bias_kind == BiasKind::integer);
  CHECK(layer->input_scale == 0.5F);
  LayerNumbers numbers = read(*layer);
  CHECK(numbers.weight == std::vector<double>{0.5, -1, 2, 4});
  CHECK(numbers.codes == std::vector<std::int32_t>{1, -2, 3, 5});
  CHECK(numbers.bias == std::vector<double>{1, 2.25});
  CHECK(numbers.range == CodeRange{-127, 127});
  CHECK(numbers.pairs == std::vector<std::size_t>{1, 0});

  Rewriter rewriter(model.main());
  CHECK_FALSE(write_bias(*layer, numbers, rewriter));  // it is what it was
  numbers.codes = {7, 8, -9, 100};
  numbers.scales = {0.25, 1};
  numbers.bias = {2, 3};
  write_weight(*layer, numbers, rewriter);
  CHECK(write_bias(*layer, numbers, rewriter));
  REQUIRE(rewriter.commit());
  CHECK(dump(model) ==
        dump(quantized(kBody + "y = Conv(xd, wd, bd)",
                       "float sx = {0.5}, uint8 zx = {0}, int8[2,2,1,1] q = {7, 8, -9, 100}, float[2] s "
                       "= {0.25, 1}, int8[2] z = {0, 0}, int32[2] bq = {16, 6}, float[2] bs = {0.125, 0.5}")));
}

TEST_CASE("a matrix with its channels in columns, one scale, a zero point, alpha in the reference") {
  Model model = parse(HEAD
                      "g (float[n,3] x) => (float[n,2] y) <float sx = {0.5}, uint8 zx = {0}, uint8[3,2] q = {129, 128, "
                      "127, 0, 130, 131}, float s = {0.5}, uint8 z = {128}> { xq = QuantizeLinear(x, sx, zx) "
                      "xd = DequantizeLinear(xq, sx, zx) wd = DequantizeLinear(q, s, z) y = Gemm(xd, wd) }");
  const Model reference = parse(HEAD
                                "g (float[n,3] x) => (float[n,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> "
                                "{ y = Gemm<alpha = 2.0>(x, w) }");
  const auto layer = find(model, reference);
  REQUIRE(layer);
  CHECK_FALSE(layer->per_channel);
  CHECK(layer->bias_kind == BiasKind::absent);
  LayerNumbers numbers = read(*layer);
  CHECK(numbers.weight == std::vector<double>{2, 6, 10, 4, 8, 12});
  CHECK(numbers.codes == std::vector<std::int32_t>{1, -1, 2, 0, -128, 3});
  CHECK(numbers.range.min == -128);
  numbers.codes[1] = 5;
  numbers.bias = {1, -0.5};
  Rewriter rewriter(model.main());
  write_weight(*layer, numbers, rewriter);
  CHECK(write_bias(*layer, numbers, rewriter));
  REQUIRE(rewriter.commit());
  const auto codes = model.main().initializer("q").read();
  REQUIRE(codes);
  CHECK(codes->as<std::uint8_t>()[2] == 133);
  // An int32 bias, since the input has a scale.
  const Node bias = model.main().producer(model.main().nodes().back().input(2));
  REQUIRE(bias.is("DequantizeLinear"));
  const auto bias_codes = model.main().constant(bias.input(0));
  REQUIRE((bias_codes && *bias_codes));
  CHECK((*bias_codes)->as<std::int32_t>()[0] == 4);
  CHECK((*bias_codes)->as<std::int32_t>()[1] == -2);
}

TEST_CASE("weights only: float biases, added biases, codes behind Cast and Mul, packed codes") {
  const std::string reference = HEAD
      "g (float[n,3] x) => (float[n,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, 2}> "
      "{ m = MatMul(x, w) y = Add(m, b) }";
  const Model from = parse(reference);
  Model model = parse(HEAD
                      "g (float[n,3] x) => (float[n,2] y) <int8[3,2] q = {1, 2, 3, 4, 5, 6}, float[1,2] s = {1, 0.5}, "
                      "float[2] b = {1, 2}> { c = Cast<to = 1>(q) w = Mul(c, s) m = MatMul(x, w) y = Add(b, m) }");
  const auto layer = find_quantized_layer(model.main().producer("m"), from);
  REQUIRE(layer);
  CHECK(layer->per_channel);
  CHECK(layer->bias_kind == BiasKind::added);
  LayerNumbers numbers = read(*layer);
  CHECK(numbers.codes == std::vector<std::int32_t>{1, 3, 5, 2, 4, 6});
  CHECK(numbers.scales == std::vector<float>{1, 0.5});
  CHECK(numbers.bias == std::vector<double>{0, 0});
  numbers.bias = {0.5, 0};
  Rewriter rewriter(model.main());
  CHECK(write_bias(*layer, numbers, rewriter));
  REQUIRE(rewriter.commit());
  CHECK(model.main().initializer("b").read()->as<float>()[0] == 1.5F);

  const std::string table = [] {
    std::string values;
    for (int byte = 0; byte < 256; ++byte)
      for (const int code : {byte & 15, byte >> 4})
        values += (values.empty() ? "" : ", ") + std::to_string(code > 7 ? code - 16 : code);
    return "int8[256,2] t = {" + values + "}";
  }();
  const auto packed_model = [&](const std::string& bytes) {
    return parse(
        HEAD "g (float[n,3] x) => (float[n,2] y) <uint8[3] p = {" + bytes + "}, " + table +
        ", int64[2] d = {3, 2}, float[2] s = {1, 2}, float[2] b = {1, 2}> { i = Cast<to = 6>(p) "
        "f = Gather(t, i) q = Reshape(f, d) w = DequantizeLinear<axis = 1>(q, s) m = MatMul(x, w) y = Add(m, b) }");
  };
  Model packed = packed_model("33, 246, 71");  // 1 2, 6 -1, 7 4
  const auto small = find_quantized_layer(packed.main().producer("m"), from);
  REQUIRE(small);
  LayerNumbers codes = read(*small);
  CHECK(codes.codes == std::vector<std::int32_t>{1, 6, 7, 2, -1, 4});
  CHECK(codes.range == CodeRange{-7, 7});
  codes.codes = {-7, 6, 7, 2, 0, 4};
  Rewriter other(packed.main());
  write_weight(*small, codes, other);
  REQUIRE(other.commit());
  CHECK(dump(packed) == dump(packed_model("41, 6, 71")));
}

TEST_CASE("what is no quantized layer, and why") {
  CHECK(reason(quantized()) == "none");
  CHECK(reason(parse(kReference)) == "");
  const std::string conv = "y = Conv(xd, wd, bd)";
  CHECK(reason(quantized(kBody + conv, replaced(kInput, "float[2] s = {0.5, 0.75}",
                                                "float[2] s = {0.5, 0.75}, float[2] other = {1, 1}"))) == "none");
  CHECK(reason(quantized(kBody + "k = Identity(wd) " + conv)).find("also read by") != std::string::npos);
  CHECK(reason(quantized(kBody + "k = Identity(bd) " + conv)).find("bias is also read by") != std::string::npos);
  CHECK(reason(quantized(), replaced(kReference, "y = Conv", "v = Relu(x) y = Conv")) == "none");
  CHECK(reason(quantized(), replaced(kReference, "{ y = Conv(x, w, b) }", "{ c = Conv(x, w, b) y = Relu(c) }"))
            .find("no node that corresponds") != std::string::npos);
  CHECK(reason(quantized(), replaced(kReference, "float[2,2,1,1] w = {0.5, -1, 2, 4}", "float[2,1,1,1] w = {0.5, -1}"))
            .find("another shape") != std::string::npos);
  CHECK(reason(quantized(replaced(kBody, "wd = DequantizeLinear<axis = 0>", "wd = DequantizeLinear<axis = 1>") + conv))
            .find("another axis") != std::string::npos);
  CHECK(reason(quantized(kBody + conv, replaced(kInput, "int8[2] z = {0, 0}", "int8[2] z = {0, 1}")))
            .find("zero points differ") != std::string::npos);
  CHECK(reason(
            quantized(
                "wd = DequantizeLinear<axis = 0>(q, s, z) bd = DequantizeLinear<axis = 0>(bq, bs) y = Conv(x, wd, bd)"))
            .find("its input has no scale") != std::string::npos);
  // A weight that callers can replace.
  const Model open = parse(HEAD
                           "g (float[1,2,3,3] x, float[2] s) => (float[1,2,3,3] y) <int8[2,2,1,1] q = {1, -2, 3, 5}> "
                           "{ wd = DequantizeLinear<axis = 0>(q, s) y = Conv(x, wd) }");
  CHECK(reason(open).find("not made of constants") != std::string::npos);
  // Activation times activation.
  const Model activations = parse(HEAD
                                  "g (float[2,2] x) => (float[2,2] y) <float s = {1}, uint8 z = {0}> "
                                  "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, d) }");
  CHECK(reason(activations) == "");
}

TEST_CASE("pairs are kept clear of saturation only where they are clear, and never in depthwise kernels") {
  const auto pairs = [](const std::string& codes) {
    const Model model = quantized(kBody + "y = Conv(xd, wd, bd)", replaced(kInput, "{1, -2, 3, 5}", codes));
    const Model reference = parse(kReference);
    return read(*find(model, reference)).pairs;
  };
  CHECK(pairs("{64, 64, 127, -127}") == std::vector<std::size_t>{1, 0});
  CHECK(pairs("{64, 65, 1, 1}").empty());
  const Model depthwise = quantized(kBody + "y = Conv<group = 2>(xd, wd, bd)",
                                    replaced(kInput, "int8[2,2,1,1] q = {1, -2, 3, 5}", "int8[2,1,1,1] q = {1, -2}"));
  const Model reference =
      parse(HEAD "g " IO "<float[2,1,1,1] w = {0.5, -1}, float[2] b = {1, 2}> { y = Conv<group = 2>(x, w, b) }");
  const auto layer = find(depthwise, reference);
  REQUIRE(layer);
  CHECK(read(*layer).pairs.empty());
}

TEST_CASE("the least scale of a weight leaves room for its bias") {
  const float least = least_weight_scale(1e6, 1e-6F);
  CHECK(1e6 / (double{least} * 1e-6) < 2147483647.0);
  CHECK(1e6 / (double{least} * 0.99 * 1e-6) > 2147483647.0 * 0.99);
  CHECK(least_weight_scale(0, 0.5F) < 1e-40F);
}

}  // namespace onnxpress::testing
