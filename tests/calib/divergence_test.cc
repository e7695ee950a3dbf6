#include "calib/divergence.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>

#include "engine/activations.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

double softmax(std::span<const float> row, std::size_t i) {
  double sum = 0;
  for (const float value : row) sum += std::exp(static_cast<double>(value));
  return std::exp(static_cast<double>(row[i])) / sum;
}

// The oracle: the definition.
double mean_kl(std::span<const float> a, std::span<const float> b, std::size_t classes) {
  double sum = 0;
  for (std::size_t row = 0; row < a.size(); row += classes)
    for (std::size_t i = 0; i < classes; ++i) {
      const double p = softmax(a.subspan(row, classes), i);
      sum += p * std::log(p / softmax(b.subspan(row, classes), i));
    }
  return sum * static_cast<double>(classes) / static_cast<double>(a.size());
}

double divergence(const Dims& dims, const std::vector<float>& a, const std::vector<float>& b, bool scores = true,
                  bool probabilities = false) {
  OutputDivergence accumulator(scores, probabilities);
  accumulator.merge(accumulator.reduce(Tensor::of_floats(dims, a).view(), Tensor::of_floats(dims, b).view()));
  return accumulator.value();
}

OutputKind kind(const std::string& signature) {
  const Model model = parse(HEAD "g " + signature);
  return output_kind(model.main(), "y");
}

}  // namespace

TEST_CASE("divergence of scores is the mean KL of their softmax") {
  const auto a = random_floats(60, 1), b = random_floats(60, 2);
  for (const Dims& dims : {Dims{12, 5}, Dims{2, 6, 5}, Dims{12, 5, 1, 1}}) {
    CHECK_THAT(divergence(dims, a, b), WithinRel(mean_kl(a, b, 5), 1e-9));
    CHECK(divergence(dims, a, a) == 0);
  }
  // One class says nothing as a softmax: the error counts.
  CHECK_THAT(divergence({2, 1}, {1, 2}, {1, 1}), WithinRel(0.2, 1e-12));
  CHECK_THAT(divergence({1, 2}, {0.5F, 0.5F}, {0.25F, 0.75F}, true, true),
             WithinRel(0.5 * std::log(2) + 0.5 * std::log(0.5 / 0.75), 1e-9));
}

TEST_CASE("divergence of plain values is their relative squared error") {
  CHECK_THAT(divergence({3}, {1, 2, 3}, {1, 2, 4}, false), WithinRel(1.0 / 14, 1e-12));
  CHECK(divergence({3}, {0, 0, 0}, {0, 0, 0}, false) == 0);
  CHECK(std::isinf(divergence({3}, {0, 0, 0}, {0, 1, 0}, false)));
}

TEST_CASE("divergence of what is not finite") {
  CHECK(std::isinf(divergence({1, 3}, {1, 2, 3}, {1, kNan, 3})));
  CHECK(std::isinf(divergence({3}, {1, 2, 3}, {1, kInf, 3}, false)));
  CHECK(divergence({3}, {1, kNan, 3}, {1, 7, 3}, false) == 0);
  CHECK(divergence({1, 3}, {1, -kInf, 3}, {1, -kInf, 3}) == 0);  // a masked class
  CHECK_THAT(divergence({2, 2}, {kNan, 2, 0, 0}, {7, 2, 0, 0}), WithinAbs(0, 1e-12));
  OutputDivergence shapes(true);
  shapes.merge(shapes.reduce(Tensor::of_floats({1, 2}, random_floats(2, 1)).view(),
                             Tensor::of_floats({1, 3}, random_floats(3, 1)).view()));
  CHECK(std::isinf(shapes.value()));
  CHECK(OutputDivergence(true).value() == 0);
}

TEST_CASE("every fifth sample is held out, however samples are batched") {
  const auto a = random_floats(40, 3), b = random_floats(40, 4);
  OutputDivergence batch(true), single(true);
  batch.merge(batch.reduce(Tensor::of_floats({10, 4}, a).view(), Tensor::of_floats({10, 4}, b).view()));
  std::vector<float> held_a, held_b;
  for (std::size_t n = 0; n < 10; ++n) {
    const auto row_a = std::span(a).subspan(n * 4, 4), row_b = std::span(b).subspan(n * 4, 4);
    single.merge(single.reduce(Tensor::of_floats({1, 4}, row_a).view(), Tensor::of_floats({1, 4}, row_b).view()));
    if (n % 5 != 4) continue;
    held_a.insert(held_a.end(), row_a.begin(), row_a.end());
    held_b.insert(held_b.end(), row_b.begin(), row_b.end());
  }
  CHECK(single.value() == batch.value());
  CHECK(single.held_out() == batch.held_out());
  CHECK(batch.rows() == 10);
  CHECK_THAT(batch.held_out(), WithinRel(mean_kl(held_a, held_b, 4), 1e-9));
}

TEST_CASE("what outputs are") {
  CHECK(kind("(float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }") == OutputKind::logits);
  CHECK(kind("(float[N, 8] x) => (float[N, 8] y) { s = Softmax(x) y = Identity(s) }") == OutputKind::probabilities);
  CHECK(kind("(float[N, 8, 1, 1] x) => (float[N, 8, 1, 1] y) { y = Relu(x) }") == OutputKind::logits);
  CHECK(kind("(float[N, 8, 2, 2] x) => (float[N, 8, 2, 2] y) { y = Relu(x) }") == OutputKind::values);
  CHECK(kind("(float[N, 1] x) => (float[N, 1] y) { y = Relu(x) }") == OutputKind::values);
  CHECK(kind("(float[N, 4, 8] x) => (float[N, 4, 8] y) { y = Relu(x) }") == OutputKind::values);
  CHECK(kind("(int64[N, S] i) => (float[N, S, 3] y) <float[2, 3] t = {1, 2, 3, 4, 5, 6}> { y = Gather(t, i) }") ==
        OutputKind::logits);
  CHECK(kind("(float[N, 8] x) => (int64[N, 1] y) { y = ArgMax<axis = 1>(x) }") == OutputKind::values);
}

TEST_CASE("output divergence of models: scores count, else all floats") {
  const std::string start = HEAD
      "g (float[N, 4] x) => (float[N, 4] y, float[N, 4, 2] z) <float[1, 1, 2] o = {1, 1}, "
      "int64[1] a = {2}, ";
  const auto model = [&](const std::string& factor, const std::string& other) {
    return parse(start + "float f = {" + factor + "}, float h = {" + other +
                 "}> { y = Mul(x, f) u = Unsqueeze(x, a) v = Mul(u, o) z = Mul(v, h) }");
  };
  std::vector<Batch> batches;
  std::vector<float> twice, once;
  for (unsigned n = 0; n < 7; ++n) {
    batches.push_back(random_batch("x", {1, 4}, 10 + n));
    for (const float value : batches.back().inputs[0].tensor.as<float>()) {
      once.push_back(value);
      twice.push_back(2 * value);
    }
  }
  MemorySource source(batches);
  EngineActivations activations(source, 1, 0);
  const Model original = model("1", "1");
  const auto of = [&](const Model& changed) { return output_divergence(original, changed, activations).value(); };
  CHECK(of(original) == 0);
  CHECK(of(model("1", "3")) == 0);
  CHECK_THAT(of(model("2", "1")), WithinRel(mean_kl(once, twice, 4), 1e-6));
  CHECK(output_divergence(parse(HEAD "g (float[N, 4] x) => (int64[N, 1] y) { y = ArgMax<axis = 1>(x) }"), original,
                          activations)
            .error()
            .code == Code::unsupported);
}

}  // namespace onnxpress::testing
