#include "pass/channel_graph.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// w1 [4, 2, 1, 1] makes four channels, w2 [3, 4, 1, 1] reads them.
const std::string kWeights = float_tensor("w1", {4, 2, 1, 1}, 1) + ", " + float_tensor("w2", {3, 4, 1, 1}, 2);
const std::string kStart = HEAD "g (float[1, 2, 4, 4] x) => (float[N, C, H, W] y) <" + kWeights;

struct Built {
  explicit Built(const std::string& source, ChannelGraph::Options options = {})
      : model(parse(source)), graph(model.main(), context, options) {}
  // Whether the channels that layer k makes can be scaled.
  bool free(std::size_t k) const { return !graph.fixed(graph.layers().at(k).out.front()); }
  const std::string& why(std::size_t k) const { return graph.reason(graph.layers().at(k).out.front()); }

  Model model;
  PassContext context;
  ChannelGraph graph;
};

TEST_CASE("channels pass through what is homogeneous and what moves data") {
  for (const std::string between :
       {"m = Relu(c)", "m = LeakyRelu(c)", "m = PRelu(c, slope)", "m = Identity(c)",
        "m = MaxPool <kernel_shape = [2, 2]> (c)", "m = AveragePool <kernel_shape = [2, 2]> (c)",
        "m = GlobalAveragePool(c)", "m = Pad(c, zeros)",
        "t = Transpose <perm = [0, 2, 3, 1]> (c) m = Transpose <perm = [0, 3, 1, 2]> (t)",
        "t = Reshape(c, flat) m = Reshape(t, square)", "m = Clip(c, zero)", "m = ReduceMean <axes = [2, 3]> (c)",
        "m = Concat <axis = 2> (c, c)", "m = Add(c, c)"}) {
    INFO(between);
    const Built built(
        kStart +
        ", float[4, 1, 1] slope = {1, 2, 3, 4}, int64[8] zeros = {0, 0, 1, 1, 0, 0, 1, 1}, float zero = {0}, "
        "int64[3] flat = {1, 4, 16}, int64[4] square = {1, 4, 2, 8}> { c = Conv(x, w1) " +
        between + " y = Conv(m, w2) }");
    REQUIRE(built.graph.layers().size() == 2);
    CHECK(built.free(0));
    for (std::size_t i = 0; i < 4; ++i)
      CHECK(built.graph.root(built.graph.layers()[0].out[i]) == built.graph.root(built.graph.layers()[1].in[i]));
  }
}

TEST_CASE("channels stop at what is not homogeneous, and the reason is told") {
  for (const std::string between :
       {"m = Sigmoid(c)", "m = Clip(c, one)", "m = Add(c, one)", "m = Softmax <axis = 1> (c)", "m = Pad(c, zeros, one)",
        "t = Reshape(c, mixed) m = Reshape(t, square)"}) {
    INFO(between);
    const Built built(kStart +
                      ", float one = {1}, int64[8] zeros = {0, 0, 1, 1, 0, 0, 1, 1}, int64[3] mixed = {1, 8, 8}, "
                      "int64[4] square = {1, 4, 4, 4}> { c = Conv(x, w1) " +
                      between + " y = Conv(m, w2) }");
    REQUIRE(built.graph.layers().size() == 2);
    CHECK_FALSE(built.free(0));
    CHECK(built.why(0).find("no scale can be moved") != std::string::npos);
  }
  const Built output(HEAD "g (float[1, 2, 4, 4] x) => (float[N, C, H, W] y, float[A, B, D, E] c) <" + kWeights +
                     "> { c = Conv(x, w1) y = Conv(c, w2) }");
  CHECK(output.why(0) == "it is an output of the graph");
}

TEST_CASE("additions tie channels together, concatenations put them behind each other") {
  const std::string more =
      kStart + ", " + float_tensor("w3", {4, 2, 1, 1}, 3) + ", " + float_tensor("w4", {3, 8, 1, 1}, 4);
  const Built sum(more + "> { a = Conv(x, w1) b = Conv(x, w3) m = Add(a, b) y = Conv(m, w2) }");
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(sum.graph.root(sum.graph.layers()[0].out[i]) == sum.graph.root(sum.graph.layers()[1].out[i]));
  CHECK(sum.free(0));
  const Built fixed(more + "> { a = Conv(x, w1) b = Sigmoid(a) m = Add(a, b) y = Conv(m, w2) }");
  CHECK_FALSE(fixed.free(0));
  const Built cat(more + "> { a = Conv(x, w1) b = Conv(x, w3) m = Concat <axis = 1> (a, b) y = Conv(m, w4) }");
  const ChannelLayer& reader = cat.graph.layers()[2];
  CHECK(cat.graph.root(reader.in[1]) == cat.graph.root(cat.graph.layers()[0].out[1]));
  CHECK(cat.graph.root(reader.in[5]) == cat.graph.root(cat.graph.layers()[1].out[1]));
}

TEST_CASE("Flatten repeats channels") {
  const Built built(HEAD "g (float[1, 2, 2, 2] x) => (float[1, 3] y) <" + float_tensor("w1", {4, 2, 1, 1}, 1) + ", " +
                    float_tensor("w2", {16, 3}, 2) + "> { c = Conv(x, w1) f = Flatten(c) y = Gemm(f, w2) }");
  CHECK(built.free(0));
  for (std::size_t i = 0; i < 16; ++i)
    CHECK(built.graph.root(built.graph.layers()[1].in[i]) == built.graph.root(built.graph.layers()[0].out[i / 4]));
}

TEST_CASE("norms and constant factors start channels on request") {
  const std::string text = HEAD "g (float[2, 3, 4] x) => (float[2, 3, 5] y) <float[4] s = {1, 2, 3, 4}, " +
                           float_tensor("w", {4, 5}, 1) + "> { ";
  for (const std::string norm : {"n = LayerNormalization(x, s)", "n = Mul(x, s)"}) {
    const Built with(text + norm + " y = MatMul(n, w) }", {.affine = true});
    REQUIRE(with.graph.affines().size() == 1);
    CHECK_FALSE(with.graph.fixed(with.graph.layers()[0].in[0]));
    const Built without(text + norm + " y = MatMul(n, w) }");
    CHECK(without.graph.affines().empty());
    CHECK(without.graph.fixed(without.graph.layers()[0].in[0]));
  }
}

TEST_CASE("weights that something else reads are no layers") {
  const Built built(kStart + "> { c = Conv(x, w1) d = Conv(x, w1) m = Add(c, d) y = Conv(m, w2) }");
  CHECK(built.graph.layers().size() == 1);
}

TEST_CASE("apply divides makers and multiplies readers") {
  Built built(HEAD
              "g (float[1, 1, 1, 1] x) => (float[1, 1, 1, 1] y) <float[2, 1, 1, 1] w1 = {2, 3}, float[2] b1 = {4, 6}, "
              "float[1, 2, 1, 1] w2 = {5, 7}> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2) }");
  std::vector<double> factors(built.graph.size(), 1.0);
  factors[built.graph.root(built.graph.layers()[0].out[0])] = 2;
  std::vector<Node> touched;
  const auto refusal = built.graph.apply(factors, &touched);
  REQUIRE(refusal);
  CHECK(refusal->empty());
  CHECK(touched.size() == 2);
  CHECK(
      dump(built.model) ==
      dump(parse(HEAD "g (float[1, 1, 1, 1] x) => (float[1, 1, 1, 1] y) <float[2, 1, 1, 1] w1 = {1, 3}, float[2] b1 = "
                      "{2, 6}, float[1, 2, 1, 1] w2 = {10, 7}> { c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2) }")));
}

}  // namespace
}  // namespace onnxpress::testing
