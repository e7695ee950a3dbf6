#include "calib/gram.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Layer {
  std::string attributes;
  Dims input, weight;
};

std::string model_text(const Layer& layer, const std::string& op) {
  return fmt::format("{}g (float[N] x) => (float[M] y) <{}> {{ y = {}{}(x, w) }}",
                     "<ir_version: 8, opset_import: [\"\": 17]> ", float_tensor("w", layer.weight, 1), op,
                     layer.attributes.empty() ? "" : " <" + layer.attributes + "> ");
}

// Feeds `samples` inputs, `batch` at a time, and the outputs that the runtime computes from them.
GramAccumulator accumulate(const Model& model, const Layer& layer, std::int64_t samples, std::int64_t batch,
                           std::size_t positions = 1000) {
  const Node node = model.main().nodes().front();
  GramAccumulator sums(patch_shape(node, layer.weight), positions, 7);
  const std::size_t each = element_count(layer.input).value();
  for (std::int64_t first = 0; first < samples; first += batch) {
    std::vector<float> values;
    for (std::int64_t n = first; n < std::min(first + batch, samples); ++n) {
      const auto sample = random_floats(each, 100 + static_cast<unsigned>(n));
      values.insert(values.end(), sample.begin(), sample.end());
    }
    Dims dims = layer.input;
    dims[0] = static_cast<std::int64_t>(values.size() / each);
    const Tensor x = Tensor::of_floats(dims, values);
    const Tensor y = run_on(model, Batch{.inputs = {{"x", x}}, .labels = {}, .samples = 1})[0];
    sums.merge(sums.reduce(y.view(), x.view()));
  }
  CHECK(sums.finish() == "");
  return sums;
}

// sum (y - w x)^2 from the sums: 0 when rows are what the runtime multiplies with.
double unexplained(const Gram& gram, const std::vector<float>& weight, bool columns) {
  const std::size_t k = gram.shape.length;
  double error = 0;
  for (std::size_t c = 0; c < gram.shape.outputs; ++c) {
    const auto w = [&](std::size_t i) {
      return double{columns ? weight[i * gram.shape.outputs + c] : weight[c * k + i]};
    };
    const auto xx = gram.xx_of(c / gram.shape.outputs_per_group());
    double sum = gram.yy[c];
    for (std::size_t i = 0; i < k; ++i) {
      sum -= 2 * w(i) * gram.yx_of(c)[i];
      for (std::size_t j = 0; j < k; ++j) sum += w(i) * w(j) * xx[i * k + j];
    }
    error += std::abs(sum);
    // First moments: the mean of y follows from the mean of x.
    double mean = 0;
    for (std::size_t i = 0; i < k; ++i) mean += w(i) * gram.x_of(c / gram.shape.outputs_per_group())[i];
    error += std::abs(mean - gram.y[c]);
  }
  return error;
}

void check_layer(const Layer& layer, const std::string& op, std::size_t positions) {
  INFO(op << " " << layer.attributes << " " << dims_text(layer.input) << " " << dims_text(layer.weight));
  std::string text = model_text(layer, op);
  // Ranks only: the batch varies.
  const auto rank = [](std::size_t axes, char name) {
    std::string dims;
    for (std::size_t i = 0; i < axes; ++i) dims += fmt::format("{}{}{}", i == 0 ? "" : ", ", name, i);
    return dims;
  };
  text.replace(text.find("float[N]"), 8, "float[" + rank(layer.input.size(), 'n') + "]");
  text.replace(text.find("float[M]"), 8, "float[" + rank(layer.input.size(), 'm') + "]");
  const Model model = parse(text);
  const auto weight = model.main().initializer("w").read();
  REQUIRE(weight);
  const std::vector<float> values(weight->as<float>().begin(), weight->as<float>().end());
  const bool columns = op != "Conv" && layer.attributes.find("transB") == std::string::npos;
  const GramAccumulator one = accumulate(model, layer, 7, 1, positions),
                        all = accumulate(model, layer, 7, 7, positions);
  CHECK(one.fitted().rows > 0);
  CHECK(one.held_out().rows * 6 == one.fitted().rows);  // sample 4 of 0..6
  for (const Gram* gram : {&one.fitted(), &one.held_out()}) CHECK(unexplained(*gram, values, columns) < 1e-3);
  CHECK(one.fitted().xx == all.fitted().xx);
  CHECK(one.fitted().yx == all.fitted().yx);
  CHECK(one.held_out().y == all.held_out().y);
}

}  // namespace

TEST_CASE("rows of a Gram matrix are what the runtime multiplies with") {
  const std::vector<Layer> convs = {
      {"", {1, 3, 6, 7}, {4, 3, 1, 1}},
      {"pads = [1, 1, 1, 1]", {1, 2, 6, 6}, {3, 2, 3, 3}},
      {"pads = [0, 1, 2, 1], strides = [2, 3]", {1, 2, 9, 8}, {3, 2, 3, 2}},
      {"dilations = [2, 1], pads = [2, 0, 1, 0]", {1, 2, 9, 8}, {3, 2, 3, 2}},
      {"group = 4, pads = [1, 1, 1, 1]", {1, 4, 5, 5}, {4, 1, 3, 3}},
      {"group = 2", {1, 6, 5, 5}, {4, 3, 3, 3}},
      {"auto_pad = \"SAME_UPPER\", strides = [2, 2]", {1, 2, 6, 7}, {3, 2, 3, 3}},
      {"auto_pad = \"SAME_LOWER\", strides = [2, 2]", {1, 2, 6, 7}, {3, 2, 3, 3}},
      {"auto_pad = \"VALID\"", {1, 2, 6, 7}, {3, 2, 3, 3}},
      {"pads = [2, 1], strides = [2]", {1, 3, 11}, {2, 3, 4}},
      {"pads = [1, 0, 1, 0, 1, 0]", {1, 2, 4, 5, 3}, {3, 2, 2, 2, 2}},
  };
  for (const Layer& layer : convs)
    for (const std::size_t positions : {1000UZ, 3UZ}) check_layer(layer, "Conv", positions);
  check_layer({"", {1, 5}, {5, 3}}, "MatMul", 10);
  check_layer({"", {1, 6, 5}, {5, 3}}, "MatMul", 10);
  check_layer({"", {1, 2, 6, 5}, {5, 3}}, "MatMul", 4);
  check_layer({"", {1, 5}, {5, 3}}, "Gemm", 10);
  check_layer({"transB = 1", {1, 5}, {3, 5}}, "Gemm", 10);
}

TEST_CASE("rows that are not finite are left out, and sums without rows say why") {
  const Model model = parse(HEAD "g (float[n,2] x) => (float[n,1] y) <float[2,1] w = {1, 1}> { y = MatMul(x, w) }");
  const PatchShape shape = patch_shape(model.main().nodes().front(), Dims{2, 1});
  constexpr float inf = std::numeric_limits<float>::infinity();
  GramAccumulator sums(shape, 10, 0);
  const std::vector<float> x = {1, 2, inf, 1, 3, 4}, y = {3, 1, 7};
  const Tensor tx = Tensor::of_floats({3, 2}, x), ty = Tensor::of_floats({3, 1}, y);
  sums.merge(sums.reduce(ty.view(), tx.view()));
  CHECK(sums.finish() == "");
  CHECK(sums.fitted().rows == 2);
  CHECK(sums.fitted().xx == std::vector<double>{10, 14, 14, 20});
  CHECK(sums.fitted().yx == std::vector<double>{24, 34});

  GramAccumulator none(shape, 10, 0);
  const std::vector<float> bad = {inf, inf};
  const Tensor tb = Tensor::of_floats({1, 2}, bad), to = Tensor::of_floats({1, 1}, std::span(y).first(1));
  none.merge(none.reduce(to.view(), tb.view()));
  CHECK(none.finish().find("NaN or infinite") != std::string::npos);
  CHECK(GramAccumulator(shape, 10, 0).finish() == "the samples gave it no input");

  GramAccumulator wrong(shape, 10, 0);
  wrong.merge(wrong.reduce(tx.view(), tx.view()));
  CHECK(wrong.finish().find("other shapes") != std::string::npos);
}

}  // namespace onnxpress::testing
