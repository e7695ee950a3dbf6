#include "prune/depth_scores.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>

#include "engine/activations.h"
#include "eval/metrics.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

double influence(const Dims& dims, const std::vector<float>& a, const std::vector<float>& b, bool channels_first) {
  Influence accumulator(channels_first);
  accumulator.merge(accumulator.reduce(Tensor::of_floats(dims, a).view(), Tensor::of_floats(dims, b).view()));
  CHECK(accumulator.same_shape());
  return accumulator.value();
}

double cosine(const std::vector<float>& a, const std::vector<float>& b, std::size_t start, std::size_t step,
              std::size_t count) {
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const double x = a[start + k * step], y = b[start + k * step];
    xy += x * y;
    xx += x * x;
    yy += y * y;
  }
  return xy / std::sqrt(xx * yy);
}

}  // namespace

TEST_CASE("influence is one minus the cosine, row by row") {
  const auto a = random_floats(24, 1), b = random_floats(24, 2);
  double rows = 0, columns = 0;
  for (std::size_t r = 0; r < 6; ++r) rows += (1 - cosine(a, b, r * 4, 1, 4)) / 6;
  for (std::size_t n = 0; n < 2; ++n)
    for (std::size_t i = 0; i < 4; ++i) columns += (1 - cosine(a, b, n * 12 + i, 4, 3)) / 8;
  CHECK_THAT(influence({2, 3, 4}, a, b, false), WithinRel(rows, 1e-9));
  CHECK_THAT(influence({2, 3, 2, 2}, a, b, true), WithinRel(columns, 1e-9));
  CHECK_THAT(influence({2, 3, 4}, a, a, false), WithinAbs(0, 1e-9));
  // Rows of zeros have no direction.
  CHECK_THAT(influence({2, 2}, {0, 0, 1, 0}, {1, 1, 0, 1}, false), WithinAbs(1, 1e-12));
  Influence other(false);
  other.merge(other.reduce(Tensor::of_floats({2, 3}, random_floats(6, 1)).view(),
                           Tensor::of_floats({1, 3}, random_floats(3, 1)).view()));
  CHECK_FALSE(other.same_shape());
}

TEST_CASE("the loss of the next token is the logarithm of perplexity") {
  const std::vector<std::int64_t> ids = {0, 2, 1, 1, 0, 2};
  const auto logits = random_floats(2UL * 3 * 4, 5);
  NextTokenLoss loss;
  loss.merge(loss.reduce(Tensor::of_int64s({2, 3}, ids).view(), Tensor::of_floats({2, 3, 4}, logits).view()));
  Perplexity perplexity;
  REQUIRE(perplexity.add(logits, 2, 3, 4, ids, {}));
  CHECK_THAT(loss.value(), WithinRel(std::log(perplexity.value()), 1e-6));

  const auto loss_of = [&](const Dims& tokens, const std::vector<std::int64_t>& values) {
    NextTokenLoss out;
    out.merge(out.reduce(Tensor::of_int64s(tokens, values).view(), Tensor::of_floats({2, 3, 4}, logits).view()));
    return out.value();
  };
  CHECK(std::isinf(loss_of({3, 2}, ids)));
  CHECK(std::isinf(loss_of({2, 3}, {0, 4, 1, 1, 0, 2})));
  CHECK(std::isinf(loss_of({2, 3}, {0, -1, 1, 1, 0, 2})));
  CHECK(std::isinf(NextTokenLoss().value()));
}

TEST_CASE("the loss of the next token needs tokens and logits") {
  const Model model = parse(HEAD "g (float[1, 4] x) => (float[1, 4] y) { y = Neg(x) }");
  MemorySource source({random_batch("x", {1, 4}, 1)});
  EngineActivations activations(source, 1, 0);
  CHECK(next_token_loss(model, model, activations).error().code == Code::unsupported);
}

}  // namespace onnxpress::testing
