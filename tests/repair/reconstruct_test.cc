#include "repair/reconstruct.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "repair/moments.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Doubles = std::vector<double>;

RowsAccumulator rows_of(const std::vector<std::vector<float>>& samples, std::size_t width) {
  RowsAccumulator rows([](const TensorView& value) { return channel_rows(-1, value, 1000, 0); });
  for (const auto& values : samples) {
    const auto count = static_cast<std::int64_t>(values.size() / width);
    const Tensor tensor = Tensor::of_floats({1, count, static_cast<std::int64_t>(width)}, values);
    rows.merge(rows.reduce(tensor.view()));
  }
  return rows;
}

// 20 samples of 10 rows.
std::vector<std::vector<float>> inputs(std::size_t width, unsigned seed = 0) {
  std::vector<std::vector<float>> samples;
  for (unsigned n = 0; n < 20; ++n) samples.push_back(random_floats(10 * width, seed + n));
  return samples;
}

// W x + b of every row, [rows, outputs] per sample.
std::vector<std::vector<float>> apply(const LinearWeights& w, const PatchShape& shape,
                                      const std::vector<std::vector<float>>& samples, float noise = 0) {
  const std::size_t k = shape.length, width = shape.groups * k;
  std::vector<std::vector<float>> out;
  for (std::size_t n = 0; n < samples.size(); ++n) {
    std::vector<float> rows;
    const auto extra = random_floats(samples[n].size() / width * shape.outputs, 900 + static_cast<unsigned>(n));
    for (std::size_t r = 0; r < samples[n].size() / width; ++r)
      for (std::size_t c = 0; c < shape.outputs; ++c) {
        double sum = w.bias[c] + static_cast<double>(noise * extra[r * shape.outputs + c]);
        for (std::size_t i = 0; i < k; ++i)
          sum +=
              w.weight[c * k + i] * static_cast<double>(samples[n][r * width + c / shape.outputs_per_group() * k + i]);
        rows.push_back(static_cast<float>(sum));
      }
    out.push_back(std::move(rows));
  }
  return out;
}

LinearWeights some_weights(const PatchShape& shape, unsigned seed) {
  const auto weight = random_floats(shape.outputs * shape.length, seed), bias = random_floats(shape.outputs, seed + 1);
  return {{weight.begin(), weight.end()}, {bias.begin(), bias.end()}};
}

// Gaussian elimination with pivots.
Doubles solve(std::vector<Doubles> a, Doubles b) {
  const std::size_t n = b.size();
  for (std::size_t i = 0; i < n; ++i) {
    std::size_t pivot = i;
    for (std::size_t r = i; r < n; ++r)
      if (std::abs(a[r][i]) > std::abs(a[pivot][i])) pivot = r;
    std::swap(a[i], a[pivot]);
    std::swap(b[i], b[pivot]);
    for (std::size_t r = i + 1; r < n; ++r) {
      const double f = a[r][i] / a[i][i];
      for (std::size_t c = i; c < n; ++c) a[r][c] -= f * a[i][c];
      b[r] -= f * b[i];
    }
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t c = i + 1; c < n; ++c) b[i] -= a[i][c] * b[c];
    b[i] /= a[i][i];
  }
  return b;
}

// One channel, from the rows: the bias is an unknown of its own that the ridge does not tie.
Doubles oracle_channel(const std::vector<Doubles>& x, const Doubles& y, const Doubles& w0, double b0,
                       const std::vector<bool>& free, double lambda, bool shift) {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < w0.size(); ++i)
    if (free[i]) places.push_back(i);
  const std::size_t n = places.size() + (shift ? 1 : 0);
  std::vector<Doubles> a(n, Doubles(n, 0));
  Doubles b(n, 0);
  for (std::size_t r = 0; r < x.size(); ++r) {
    Doubles row;
    for (const std::size_t i : places) row.push_back(x[r][i]);
    if (shift) row.push_back(1);
    for (std::size_t i = 0; i < n; ++i) {
      b[i] += row[i] * (y[r] - (shift ? 0 : b0));
      for (std::size_t j = 0; j < n; ++j) a[i][j] += row[i] * row[j];
    }
  }
  for (std::size_t i = 0; i < places.size(); ++i) {
    a[i][i] += lambda;
    b[i] += lambda * w0[places[i]];
  }
  const Doubles found = solve(a, b);
  Doubles out(w0.size(), 0);
  for (std::size_t i = 0; i < places.size(); ++i) out[places[i]] = found[i];
  out.push_back(shift ? found.back() : b0);
  return out;
}

struct Case {
  PatchShape shape;
  bool shift = true, masked = false;
};

void check_against_oracle(const Case& test) {
  const PatchShape& shape = test.shape;
  const std::size_t k = shape.length, width = shape.groups * k;
  LinearWeights now = some_weights(shape, 5);
  for (std::size_t i = 0; test.masked && i < now.weight.size(); i += 3) now.weight[i] = 0;
  const auto x = inputs(width);
  const auto y = apply(some_weights(shape, 9), shape, x, 0.3F);
  const RowsAccumulator xs = rows_of(x, width), ys = rows_of(y, shape.outputs);
  const Regression regression{.shape = shape, .input = &xs, .target = &ys};
  const auto rows = FitRows::make(regression);
  REQUIRE(rows);
  CHECK(rows->count() == 200);
  CHECK(rows->fitted() == 160);
  const Gram gram = moments(*rows, rows->targets(), 0, rows->count(), true, 1);
  std::vector<bool> support;
  for (std::size_t i = 0; test.masked && i < now.weight.size(); ++i) support.push_back(now.weight[i] != 0);
  const auto fitted = ridge_fit(gram, now, support, 0.01, test.shift, 1);
  REQUIRE(fitted);
  for (std::size_t c = 0; c < shape.outputs; ++c) {
    const std::size_t g = c / shape.outputs_per_group();
    std::vector<Doubles> rx;
    Doubles ry, mean(k, 0);
    for (std::size_t n = 0; n < x.size(); ++n)
      for (std::size_t r = 0; r < 10; ++r) {
        const auto from = x[n].begin() + static_cast<std::ptrdiff_t>(r * width + g * k);
        rx.emplace_back(from, from + static_cast<std::ptrdiff_t>(k));
        ry.push_back(static_cast<double>(y[n][r * shape.outputs + c]));
        for (std::size_t i = 0; i < k; ++i) mean[i] += rx.back()[i] / 200;
      }
    double trace = 0;
    for (const Doubles& row : rx)
      for (std::size_t i = 0; i < k; ++i) {
        const double value = row[i] - (test.shift ? mean[i] : 0);
        trace += value * value;
      }
    const auto from = now.weight.begin() + static_cast<std::ptrdiff_t>(c * k);
    const Doubles w0(from, from + static_cast<std::ptrdiff_t>(k));
    std::vector<bool> free(k, true);
    for (std::size_t i = 0; test.masked && i < k; ++i) free[i] = support[c * k + i];
    const Doubles expected =
        oracle_channel(rx, ry, w0, now.bias[c], free, 0.01 * trace / static_cast<double>(k), test.shift);
    for (std::size_t i = 0; i < k; ++i) CHECK(std::abs(fitted->weight[c * k + i] - expected[i]) < 1e-7);
    CHECK(std::abs(fitted->bias[c] - expected[k]) < 1e-7);
    for (std::size_t i = 0; test.masked && i < k; ++i)
      if (!free[i]) CHECK(fitted->weight[c * k + i] == 0);
  }
}

}  // namespace

TEST_CASE("a ridge fit is what elimination on the rows finds") {
  for (const bool shift : {true, false})
    for (const bool masked : {false, true}) {
      INFO(shift << masked);
      check_against_oracle({{.groups = 1, .length = 7, .outputs = 3}, shift, masked});
      check_against_oracle({{.groups = 2, .length = 5, .outputs = 4}, shift, masked});
      check_against_oracle({{.groups = 3, .length = 1, .outputs = 3}, shift, false});
      check_against_oracle({{.groups = 1, .length = 70, .outputs = 70}, shift, masked});
      check_against_oracle({{.groups = 1, .length = 150, .outputs = 2}, shift, false});
    }
}

TEST_CASE("a damaged layer is found again, at any thread count") {
  const PatchShape shape{.groups = 2, .length = 6, .outputs = 4};
  const LinearWeights truth = some_weights(shape, 9), damaged = some_weights(shape, 5);
  const auto x = inputs(12);
  const RowsAccumulator xs = rows_of(x, 12), ys = rows_of(apply(truth, shape, x), 4);
  const Regression regression{.shape = shape, .input = &xs, .target = &ys};
  const auto found = reconstruct(regression, damaged, {.jobs = 1});
  REQUIRE(found);
  CHECK(found->change == Reconstruction::Change::weights);
  CHECK(found->error_before > 0.5);
  CHECK(found->error_after < 1e-6);
  CHECK(found->rows == 200);
  for (std::size_t i = 0; i < truth.weight.size(); ++i)
    CHECK(std::abs(found->weights.weight[i] - truth.weight[i]) < 1e-3);
  const auto threads = reconstruct(regression, damaged, {.jobs = 4});
  CHECK(threads->weights.weight == found->weights.weight);
  CHECK(threads->weights.bias == found->weights.bias);

  // The layer as it should be already.
  const auto same = reconstruct(regression, truth, {.jobs = 1});
  CHECK(same->change == Reconstruction::Change::exact);
  CHECK(same->weights.weight == truth.weight);
  // Only the bias is wrong.
  const auto shifted = reconstruct(regression, {truth.weight, {9, 9, 9, 9}}, {.ridge = 1e9, .jobs = 1});
  CHECK(shifted->change == Reconstruction::Change::bias);
  CHECK(shifted->weights.weight == truth.weight);
  for (std::size_t c = 0; c < 4; ++c) CHECK(std::abs(shifted->weights.bias[c] - truth.bias[c]) < 1e-5);
}

TEST_CASE("what only fits the fitted samples is not taken") {
  // More inputs than rows, and targets that are noise.
  const PatchShape shape{.groups = 1, .length = 300, .outputs = 2};
  const auto x = inputs(300);
  const RowsAccumulator xs = rows_of(x, 300), ys = rows_of(inputs(2, 500), 2);
  const Regression regression{.shape = shape, .input = &xs, .target = &ys};
  const LinearWeights zero{Doubles(600, 0), Doubles(2, 0)};
  const auto found = reconstruct(regression, zero, {.jobs = 1});
  REQUIRE(found);
  CHECK(found->change != Reconstruction::Change::weights);
  CHECK(found->weights.weight == zero.weight);
}

TEST_CASE("zeros stay zeros") {
  const PatchShape shape{.groups = 1, .length = 8, .outputs = 3};
  const LinearWeights truth = some_weights(shape, 9);
  LinearWeights sparse = truth;
  for (std::size_t i = 0; i < sparse.weight.size(); ++i)
    if (i % 2 == 0) sparse.weight[i] = 0;
  auto x = inputs(8);
  for (auto& sample : x)  // neighbours resemble each other: what is left can stand in
    for (std::size_t i = 0; i + 1 < sample.size(); i += 2) sample[i] = 0.9F * sample[i + 1] + 0.1F * sample[i];
  const RowsAccumulator xs = rows_of(x, 8), ys = rows_of(apply(truth, shape, x), 3);
  const Regression regression{.shape = shape, .input = &xs, .target = &ys};
  const auto found = reconstruct(regression, sparse, {.keep_zeros = true, .jobs = 1});
  REQUIRE(found);
  CHECK(found->error_after < 0.1 * found->error_before);
  for (std::size_t i = 0; i < sparse.weight.size(); i += 2) CHECK(found->weights.weight[i] == 0);
  CHECK(found->weights.weight[1] != sparse.weight[1]);
}

TEST_CASE("a shortcut, a normalization and a clipping behind the layer are seen through") {
  const PatchShape shape{.groups = 1, .length = 5, .outputs = 2};
  const LinearWeights truth = some_weights(shape, 9), damaged = some_weights(shape, 5);
  const auto x = inputs(5);
  const auto s = inputs(2, 300);
  auto total = apply(truth, shape, x);
  const Doubles scale = {2, -0.5}, offset = {0.3, -1};
  for (std::size_t n = 0; n < total.size(); ++n)
    for (std::size_t i = 0; i < total[n].size(); ++i)
      total[n][i] = static_cast<float>(static_cast<double>(total[n][i]) * scale[i % 2] + offset[i % 2]) + s[n][i];
  const RowsAccumulator xs = rows_of(x, 5), ts = rows_of(total, 2), ss = rows_of(s, 2);
  Regression regression{.shape = shape, .input = &xs, .target = &ts, .shortcut = &ss, .scale = scale, .offset = offset};
  const auto found = reconstruct(regression, damaged, {.jobs = 1});
  REQUIRE(found);
  CHECK(found->error_after < 1e-6);
  for (std::size_t i = 0; i < truth.weight.size(); ++i)
    CHECK(std::abs(found->weights.weight[i] - truth.weight[i]) < 1e-3);

  // Where a Relu cuts off, nothing has to fit: a layer without its fourth and fifth input does better once it knows.
  std::vector<std::vector<float>> narrow;
  for (const auto& sample : x) {
    narrow.emplace_back();
    for (std::size_t i = 0; i < sample.size(); ++i)
      if (i % 5 < 3) narrow.back().push_back(sample[i]);
  }
  const RowsAccumulator poor = rows_of(narrow, 3), plain = rows_of(apply(truth, shape, x), 2);
  Regression blind{.shape = {.groups = 1, .length = 3, .outputs = 2}, .input = &poor, .target = &plain};
  const LinearWeights start = some_weights(blind.shape, 5);
  constexpr double inf = std::numeric_limits<double>::infinity();
  Regression seeing = blind;
  seeing.low = {0, 0};
  seeing.high = {inf, inf};
  const auto without = reconstruct(blind, start, {.jobs = 1}), with = reconstruct(seeing, start, {.jobs = 1});
  REQUIRE(without);
  REQUIRE(with);
  const auto rows = FitRows::make(seeing);
  REQUIRE(rows);
  CHECK(rows->error(with->weights, 0, rows->count(), 1) < rows->error(without->weights, 0, rows->count(), 1));
}

TEST_CASE("rows that are of no use are refused or left out") {
  const PatchShape shape{.groups = 1, .length = 4, .outputs = 2};
  const LinearWeights truth = some_weights(shape, 9), damaged = some_weights(shape, 5);
  auto x = inputs(4);
  const auto y = apply(truth, shape, x);
  x[3][0] = std::numeric_limits<float>::quiet_NaN();
  const RowsAccumulator xs = rows_of(x, 4), ys = rows_of(y, 2), wide = rows_of(inputs(3), 3), none = rows_of({}, 4);
  const RowsAccumulator few_x = rows_of({x[0], x[1]}, 4), few_y = rows_of({y[0], y[1]}, 2);
  const auto found = reconstruct({.shape = shape, .input = &xs, .target = &ys}, damaged, {.jobs = 1});
  REQUIRE(found);
  CHECK(found->rows == 199);
  CHECK(found->error_after < 1e-6);
  const auto reason = [&](const RowsAccumulator& input, const RowsAccumulator& target) {
    const auto result = reconstruct({.shape = shape, .input = &input, .target = &target}, damaged, {.jobs = 1});
    REQUIRE_FALSE(result);
    CHECK(result.error().code == Code::unsupported);
    return result.error().what;
  };
  CHECK(reason(xs, wide).find("other shapes") != std::string::npos);
  CHECK(reason(none, ys).find("no input") != std::string::npos);
  CHECK(reason(few_x, few_y).find("5 samples") != std::string::npos);
  // A constant input tells nothing about its weights.
  const RowsAccumulator still = rows_of(std::vector<std::vector<float>>(20, std::vector<float>(40, 1.0F)), 4);
  const auto flat = reconstruct({.shape = shape, .input = &still, .target = &ys}, damaged, {.jobs = 1});
  REQUIRE(flat);
  CHECK(flat->weights.weight == damaged.weight);
}

TEST_CASE("fewer positions of the input are found among those of the target") {
  const PatchShape shape{.groups = 1, .length = 3, .outputs = 2};
  const LinearWeights truth = some_weights(shape, 9), damaged = some_weights(shape, 5);
  const auto x = inputs(3);
  const auto y = apply(truth, shape, x);
  RowsAccumulator some([](const TensorView& value) { return channel_rows(-1, value, 4, 11); });
  RowsAccumulator more([](const TensorView& value) { return channel_rows(-1, value, 7, 11); });
  for (std::size_t n = 0; n < x.size(); ++n) {
    const Tensor tx = Tensor::of_floats({1, 10, 3}, x[n]), ty = Tensor::of_floats({1, 10, 2}, y[n]);
    some.merge(some.reduce(tx.view()));
    more.merge(more.reduce(ty.view()));
  }
  const auto found = reconstruct({.shape = shape, .input = &some, .target = &more, .seed = 11}, damaged, {.jobs = 1});
  REQUIRE(found);
  CHECK(found->rows == 80);
  CHECK(found->error_after < 1e-6);
}

}  // namespace onnxpress::testing
