#include "report/stats.h"

#include <catch2/catch_test_macros.hpp>

#include "ir/rewriter.h"
#include "support/models.h"

using namespace onnxpress;
using testing::filled;
using testing::parse;

namespace {

ModelStats stats_of(const std::string& text, unsigned jobs = 2) {
  const Model model = parse(text);
  auto stats = model_stats(model, {.jobs = jobs});
  INFO((stats ? "" : stats.error().text()));
  REQUIRE(stats);
  return std::move(*stats);
}

}  // namespace

TEST_CASE("Nodes whose MACs are unknown are listed by operator") {
  const auto stats = stats_of(HEAD "g (float[1,3,H,8] x, int64[4] s) => (float[1,4,A,B] y) <" +
                              filled("float[4,3,3,3]", "w", 108) + "> { r = Reshape(x, s)  y = Conv(r, w) }");
  CHECK(stats.macs == 0);
  CHECK(stats.macs_unknown == std::map<std::string, std::size_t>{{"Conv", 1}});
}

TEST_CASE("Free dimensions count as one and are named") {
  const auto stats = stats_of(HEAD "g (float[batch, seq, 3] x) => (float[batch, seq, 2] y) <" +
                              filled("float[3,2]", "w", 6) + "> { y = MatMul(x, w) }");
  CHECK(stats.macs == 6);
  CHECK(stats.free_dims == std::vector<std::string>{"batch", "seq"});
  const auto fixed =
      stats_of(HEAD "g (float[1, 3] x) => (float[1, 2] y) <" + filled("float[3,2]", "w", 6) + "> { y = MatMul(x, w) }");
  CHECK(fixed.free_dims.empty());
}

TEST_CASE("Parameters, bytes, operators and layers of a small network") {
  const std::string text = HEAD
      "g (float[N,2] x) => (float[N,3] y, float[N,3] z)"
      " <float[2,3] w = {1, 0, 2, 0, 0, 3}, float[3] b = {1, 1, 0}, int64[2] shape = {-1, 3}, float[2] spare = {1, 1}>"
      " { h = Gemm(x, w, b)  y = Reshape(h, shape)  g2 = Gemm(x, w)  c = Constant<value = float[1] {4.0}>()"
      "   z = Add(g2, c) }";
  const auto stats = stats_of(text);
  CHECK(stats.parameters == 6 + 3 + 2 + 1);  // the shape is none
  CHECK(stats.nonzeros == 3 + 2 + 2 + 1);
  CHECK(stats.weight_bytes == 12 * 4 + 2 * 8);
  CHECK(stats.weights.at("float") == WeightBytes{4, 12, 48});
  CHECK(stats.weights.at("int64") == WeightBytes{1, 2, 16});
  CHECK(stats.nodes == 5);
  CHECK(stats.ops == std::map<std::string, std::size_t>{{"Add", 1}, {"Constant", 1}, {"Gemm", 2}, {"Reshape", 1}});
  CHECK(stats.opsets == std::map<std::string, std::int64_t>{{"", 17}});
  CHECK(stats.ir_version == 8);
  REQUIRE(stats.inputs.size() == 1);
  CHECK(stats.outputs.size() == 2);
  REQUIRE(stats.layers.size() == 3);
  CHECK(stats.layers[0].op == "Gemm");
  CHECK(stats.layers[0].parameters == 9);
  CHECK(stats.layers[0].nonzeros == 5);
  CHECK(stats.layers[0].bytes == 36);
  CHECK(stats.layers[0].macs == 6U);
  CHECK(stats.layers[1].parameters == 0);  // w belongs to its first reader
  CHECK(stats.layers[1].macs == 6U);
  CHECK(stats.layers[2].op == "Add");
  CHECK(stats.layers[2].parameters == 1);
  CHECK_FALSE(stats.layers[2].macs);
  const auto serial = stats_of(text, 1);
  CHECK(serial.nonzeros == stats.nonzeros);
}

TEST_CASE("A quantized weight counts as it did before: scales are no parameters, the zero point is zero") {
  const auto stats =
      stats_of(HEAD
               "g (float[1,2] x) => (float[1,3] y) <uint8[3,2] q = {128, 1, 7, 7, 128, 7}, float[3] s = {1, 1, 1},"
               " uint8[3] z = {128, 7, 128}, float xs = {0.5}, uint8 xz = {0}>"
               " { xq = QuantizeLinear(x, xs, xz)  xd = DequantizeLinear(xq, xs, xz)"
               "   w = DequantizeLinear<axis = 0>(q, s, z)  y = Gemm<transB = 1>(xd, w) }");
  CHECK(stats.parameters == 6);
  CHECK(stats.nonzeros == 2);
  REQUIRE(stats.layers.size() == 1);
  CHECK(stats.layers[0].op == "Gemm");
  CHECK(stats.layers[0].parameters == 6);
  CHECK(stats.layers[0].bytes == 6 + 12 + 3);
}

TEST_CASE("The scale of a dynamically quantized weight is no parameter") {
  const auto stats = stats_of(
      HEAD
      "g (float[1,2] x) => (float[1,3] y) <uint8[2,3] q = {1, 2, 3, 4, 5, 6}, float ws = {0.5}, uint8 wz = {3}>"
      " { xq, xs, xz = DynamicQuantizeLinear(x)  i = MatMulInteger(xq, q, xz, wz)"
      "   f = Cast<to = 1>(i)  s = Mul(xs, ws)  y = Mul(f, s) }");
  CHECK(stats.parameters == 6);
  CHECK(stats.nonzeros == 5);
  CHECK(stats.macs == 6);
}

TEST_CASE("Packed weights count their elements, not their bytes") {
  const auto stats = stats_of(
      "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>"
      "g (float[1,32] x) => (float[1,2] y) <" +
      filled("uint8[2,1,16]", "w", 32, "7") + ", float[2] s = {1, 1}>" +
      " { y = com.microsoft.MatMulNBits<K = 32, N = 2, bits = 4, block_size = 32>(x, w, s) }");
  CHECK(stats.parameters == 64);
  CHECK(stats.nonzeros == 64);
  CHECK(stats.weights.at("uint8") == WeightBytes{1, 32, 32});
  CHECK(stats.opsets == std::map<std::string, std::int64_t>{{"", 17}, {"com.microsoft", 1}});
  CHECK(stats.ops == std::map<std::string, std::size_t>{{"com.microsoft.MatMulNBits", 1}});
}

TEST_CASE("Fused integer ops: their scales and zero points are no parameters") {
  const auto stats = stats_of(
      "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>"
      "g (uint8[1,2] x) => (uint8[1,2] y) <int8[2,2] w = {1, 5, 4, 2}, float s = {0.5}, uint8 z = {3},"
      " float[2] ws = {0.5, 0.5}, int8[2] wz = {1, 2}, int32[2] b = {0, 9}>"
      " { q = com.microsoft.QGemm<transB = 1>(x, s, z, w, ws, wz, b, s, z)"
      "   y = com.microsoft.QLinearConcat<axis = 1>(s, z, q, s, z) }");
  CHECK(stats.parameters == 6);
  CHECK(stats.nonzeros == 2 + 1);  // rows of w have the zero points 1 and 2
  CHECK(stats.macs == 4);
}

TEST_CASE("Bodies of If count once each; their weights and ops are seen") {
  const auto stats = stats_of(
      HEAD
      "g (bool c, float[2,2] x) => (float[2,2] y) <float[2,2] w = {1, 2, 3, 4}>"
      " { y = If (c) <then_branch = t () => (float[2,2] a) { a = MatMul(x, w) },"
      "   else_branch = e () => (float[2,2] b) { k = Constant<value = float[2] {1.0, 0.0}>()  b = Add(x, k) }> }");
  CHECK(stats.ops.at("MatMul") == 1);
  CHECK(stats.ops.at("Add") == 1);
  CHECK(stats.parameters == 6);
  CHECK(stats.nonzeros == 5);
  CHECK(stats.macs == 8);
  REQUIRE(stats.notes.size() == 1);
  CHECK(stats.notes[0].contains("body"));
}

TEST_CASE("Weights stored sparse count as the dense ones") {
  // Zero points of two channels: codes 3 and 0 are zero in the first and in the second.
  const std::string text = HEAD "g (float[1,300] x) => (float[1,2] y) <" + filled("float[300,2]", "w", 600, "0") +
                           ", " + filled("int8[300,2]", "q", 600, "3") +
                           ", float[2] qs = {1, 1}, int8[2] qz = {3, 0}> { h = MatMul(x, w) "
                           "d = DequantizeLinear<axis = 1>(q, qs, qz) k = MatMul(x, d) y = Add(h, k) }";
  Model dense = parse(text);
  Rewriter rewriter(dense.main());
  Tensor weight = *dense.main().initializer("w").read(), codes = *dense.main().initializer("q").read();
  weight.as_mutable<float>()[599] = 5;
  weight.as_mutable<float>()[3] = -0.0F;
  for (const std::size_t i : {10U, 12U, 13U}) codes.as_mutable<std::int8_t>()[i] = 0;
  rewriter.set_initializer(dense.main().initializer("w"), weight);
  rewriter.set_initializer(dense.main().initializer("q"), codes);
  REQUIRE(rewriter.commit());
  const auto before = model_stats(dense);
  REQUIRE(before);
  CHECK(before->nonzeros == 1 + 2 + 299);  // of w; of q in its first channel, in its second
  for (const char* pipeline : {"store-sparse", "store-sparse{form=sparse_initializer}"}) {
    Model stored = dense.clone();
    REQUIRE(testing::run_pipeline(stored, pipeline).changed);
    const auto after = model_stats(stored);
    REQUIRE(after);
    CHECK(after->parameters == before->parameters);
    CHECK(after->nonzeros == before->nonzeros);
    CHECK(after->macs == before->macs);
    CHECK(after->macs_unknown.empty());
    CHECK(after->weight_bytes < before->weight_bytes);
    CHECK(after->weights.at("float").elements == before->weights.at("float").elements);
    REQUIRE(after->layers.size() == before->layers.size());
    for (std::size_t i = 0; i < after->layers.size(); ++i) {
      CHECK(after->layers[i].node == before->layers[i].node);
      CHECK(after->layers[i].parameters == before->layers[i].parameters);
      CHECK(after->layers[i].nonzeros == before->layers[i].nonzeros);
    }
    CHECK(after->notes.empty());
  }
}
