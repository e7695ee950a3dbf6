#include "calib/channel_mean.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <numbers>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::WithinAbs;
constexpr double kInf = std::numeric_limits<double>::infinity();

// The oracle: a sum over a fine grid.
double integrated(double mean, double deviation, double low, double high) {
  double sum = 0, weight = 0;
  for (int i = -80000; i <= 80000; ++i) {
    const double z = i / 10000.0, density = std::exp(-z * z / 2);
    sum += density * std::clamp(mean + deviation * z, low, high);
    weight += density;
  }
  return sum / weight;
}

}  // namespace

TEST_CASE("the mean of a clipped normal") {
  for (const double mean : {-3.0, -0.5, 0.0, 0.7, 5.0})
    for (const double deviation : {0.1, 1.0, 4.0}) {
      INFO(mean << " +- " << deviation);
      CHECK_THAT(clipped_normal_mean(mean, deviation, 0, kInf), WithinAbs(integrated(mean, deviation, 0, kInf), 1e-6));
      CHECK_THAT(clipped_normal_mean(mean, deviation, 0, 6), WithinAbs(integrated(mean, deviation, 0, 6), 1e-6));
      CHECK_THAT(clipped_normal_mean(mean, deviation, -kInf, kInf), WithinAbs(mean, 1e-12));
    }
  CHECK(clipped_normal_mean(-1, 0, 0, 6) == 0);
  CHECK(clipped_normal_mean(2, 0, 0, 6) == 2);
}

TEST_CASE("the mean behind a BatchNormalization") {
  const auto model = [](const std::string& body) {
    return parse(HEAD
                 "g (float[1,2,3,3] x) => (y) <float[2] s = {1, -2}, float[2] b = {0.5, -1}, float[2] m = {0, 0}, "
                 "float[2] v = {1, 1}, float low = {0}, float high = {6}> { n = BatchNormalization(x, s, b, m, v) " +
                 body + " }");
  };
  const auto means = [&](const std::string& body) { return mean_from_batchnorm(model(body).main(), "y"); };
  REQUIRE(means("y = Identity(n)"));
  CHECK(*means("y = Identity(n)") == std::vector<double>{0.5, -1});
  REQUIRE(means("y = Relu(n)"));
  CHECK_THAT((*means("y = Relu(n)"))[1], WithinAbs(clipped_normal_mean(-1, 2, 0, kInf), 1e-12));
  CHECK_THAT((*means("y = Clip(n, low, high)"))[0], WithinAbs(clipped_normal_mean(0.5, 1, 0, 6), 1e-12));
  REQUIRE(means("r = Relu(n) p = GlobalAveragePool(r) y = Flatten(p)"));
  CHECK_FALSE(means("y = Sigmoid(n)"));
  CHECK_FALSE(means("y = Add(n, n)"));
  CHECK_FALSE(means("y = Clip(n, low, n)"));
  CHECK_FALSE(mean_from_batchnorm(model("y = Neg(n)").main(), "x"));
}

TEST_CASE("mean differences per channel") {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6, 7, 8}, b = {0, 0, 3, 3, 5, 5, 5, 5};
  const Tensor first = Tensor::of_floats({2, 2, 2}, a), second = Tensor::of_floats({2, 2, 2}, b);
  MeanDifference conv(1, 2), matrix(-1, 2);
  CHECK_FALSE(conv.mean());
  conv.merge(conv.reduce(first.view(), second.view()));
  matrix.merge(matrix.reduce(first.view(), second.view()));
  REQUIRE((conv.mean() && matrix.mean()));
  CHECK(*conv.mean() == std::vector<double>{1, 1.5});
  CHECK(*matrix.mean() == std::vector<double>{0.75, 1.75});
  // A batch of two is two batches of one.
  MeanDifference split(1, 2);
  for (std::size_t n = 0; n < 2; ++n) {
    const Tensor one = Tensor::of_floats({1, 2, 2}, std::span(a).subspan(n * 4, 4)),
                 other = Tensor::of_floats({1, 2, 2}, std::span(b).subspan(n * 4, 4));
    split.merge(split.reduce(one.view(), other.view()));
  }
  CHECK(split.mean() == conv.mean());
  MeanDifference wrong(1, 3);
  wrong.merge(wrong.reduce(first.view(), second.view()));
  CHECK_FALSE(wrong.mean());
}

}  // namespace onnxpress::testing
