#include "prune/prune_sensitivity.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/activations.h"
#include "ir/rewriter.h"
#include "num/select.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// Two layers; what m2 reads is dominated by few rows of w2.
const std::string kModel = HEAD "g (float[1, 32] x) => (float[1, 6] y) <" + float_tensor("w1", {32, 32}, 1) + ", " +
                           float_tensor("w2", {32, 6}, 2) +
                           ", float[8] b = {1, 1, 1, 1, 1, 1, 1, 1}> { "
                           "m1 = MatMul(x, w1) r1 = Relu(m1) y = MatMul(r1, w2) }";

std::vector<Batch> samples() {
  std::vector<Batch> batches;
  for (unsigned seed = 0; seed < 12; ++seed) batches.push_back(random_batch("x", {1, 32}, 100 + seed));
  return batches;
}

Result<PruneSensitivityTable> measure(const Model& model, PruneMethod method, std::vector<double> ratios,
                                      unsigned jobs = 1) {
  MemorySource source(samples());
  EngineActivations activations(source, jobs, 0);
  EngineRunner runner;
  PassContext context;
  context.jobs = jobs;
  context.activations = &activations;
  context.runner = &runner;
  return measure_prune_sensitivity(model, context, method, std::move(ratios), activations);
}

// KL(softmax(a) || softmax(b)), the slow way.
double divergence(const Model& a, const Model& b) {
  double sum = 0;
  std::size_t rows = 0;
  for (const Batch& batch : samples()) {
    const auto p = run_on(a, batch), q = run_on(b, batch);
    const auto softmax = [](std::span<const float> scores) {
      std::vector<double> out;
      for (const float score : scores) out.push_back(std::exp(double{score}));
      const double total = std::accumulate(out.begin(), out.end(), 0.0);
      for (double& value : out) value /= total;
      return out;
    };
    const auto pa = softmax(p[0].as<float>()), pb = softmax(q[0].as<float>());
    for (std::size_t i = 0; i < pa.size(); ++i) sum += pa[i] * std::log(pa[i] / pb[i]);
    ++rows;
  }
  return sum / static_cast<double>(rows);
}

TEST_CASE("prune sensitivity: each weight alone, against the slow way") {
  const Model model = parse(kModel);
  const auto table = measure(model, PruneMethod::magnitude, {0.5, 0.25});
  REQUIRE(table);
  REQUIRE(table->parts.size() == 1);  // w2 has fewer than 256 elements
  const PruneSensitivity& part = table->parts[0];
  CHECK(part.name == "MatMul->m1");
  CHECK(part.kind == "MatMul [32, 32]");
  CHECK(part.size == 1024);
  REQUIRE(part.effects.size() == 2);
  for (const PruneEffect& effect : part.effects) {
    Model variant = model.clone();
    run_pipeline(variant, fmt::format("prune-magnitude{{sparsity={}}}", effect.ratio));
    CHECK(effect.divergence == Catch::Approx(divergence(model, variant)).epsilon(1e-4));
    CHECK(effect.left == 1024 - fraction_of(effect.ratio, 1024));
  }
  CHECK(part.effects[0].ratio == 0.25);  // ascending
  CHECK(part.effects[0].divergence < part.effects[1].divergence);
  CHECK(model.fingerprint().value() == parse(kModel).fingerprint().value());
}

TEST_CASE("prune sensitivity: each group alone, with what is left") {
  const Model model = parse(kModel);
  const auto table = measure(model, PruneMethod::channels, {0.25, 0.5});
  REQUIRE(table);
  REQUIRE(table->parts.size() == 1);
  const PruneSensitivity& part = table->parts[0];
  CHECK(part.kind == "neurons");
  CHECK(part.size == 32);
  CHECK(part.refusal.empty());
  REQUIRE(part.effects.size() == 2);
  CHECK(part.effects[1].left == 16);
  CHECK(table->macs == 32 * 32 + 32 * 6);
  CHECK(part.effects[1].macs == 32 * 16 + 16 * 6);
  CHECK(table->parameters == 32 * 32 + 32 * 6 + 8);
  CHECK(part.effects[1].parameters == 32 * 16 + 16 * 6 + 8);
  // Silencing the units that go is the same as cutting them: those of least norm.
  CHECK(part.effects[0].divergence > 0);
  CHECK(part.effects[0].divergence < part.effects[1].divergence);
}

TEST_CASE("prune sensitivity does not depend on threads") {
  const Model model = parse(kModel);
  for (const PruneMethod method : {PruneMethod::magnitude, PruneMethod::channels}) {
    const auto one = measure(model, method, {0.5}), eight = measure(model, method, {0.5}, 8);
    REQUIRE(one);
    REQUIRE(eight);
    CHECK(one->parts[0].effects[0].divergence == eight->parts[0].effects[0].divergence);
  }
}

TEST_CASE("prune sensitivity: bad ratios, nothing to prune") {
  const Model model = parse(kModel);
  for (const std::vector<double>& ratios :
       std::vector<std::vector<double>>{{}, {0}, {1}, {0.5, std::numeric_limits<double>::quiet_NaN()}}) {
    const auto table = measure(model, PruneMethod::magnitude, ratios);
    REQUIRE_FALSE(table);
    CHECK(table.error().code == Code::usage);
  }
  const Model plain = parse(HEAD "g (float[1, 32] x) => (float[1, 32] y) { y = Relu(x) }");
  for (const PruneMethod method : {PruneMethod::magnitude, PruneMethod::channels}) {
    const auto table = measure(plain, method, {0.5});
    REQUIRE(table);
    CHECK(table->parts.empty());
  }
}

PruneSensitivity part_of(std::uint64_t size, const std::vector<std::pair<double, double>>& curve) {
  PruneSensitivity part{.name = "p", .kind = "k", .size = size};
  for (const auto& [ratio, value] : curve) part.effects.push_back({.ratio = ratio, .divergence = value});
  return part;
}

// The sum of scale * share^2 over the parts.
double cost_of(const std::vector<double>& shares, const std::vector<double>& scales) {
  double sum = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) sum += scales[i] * shares[i] * shares[i];
  return sum;
}

TEST_CASE("least_divergence_shares: as little divergence as can be had, as much gone as is wanted") {
  const double infinite = std::numeric_limits<double>::infinity();
  const std::vector<double> scales = {1, 4};
  PruneSensitivityTable table{.ratios = {0.25, 0.5, 0.75}, .parts = {}};
  for (const double scale : scales)
    table.parts.push_back(part_of(100, {{0.25, scale / 16}, {0.5, scale / 4}, {0.75, scale * 9 / 16}}));
  const auto shares = least_divergence_shares(table, 0.4);
  REQUIRE(shares.size() == 2);
  CHECK(shares[0] + shares[1] >= 0.8 - 1e-9);
  double best = infinite;  // by trying all
  for (int a = 0; a <= 37; ++a)
    for (int b = 0; b <= 37; ++b)
      if (a + b >= 40) best = std::min(best, cost_of({a / 50.0, b / 50.0}, scales));
  CHECK(cost_of(shares, scales) == Catch::Approx(best));

  // Not beyond the largest ratio, nothing from what breaks at once.
  table.parts.push_back(part_of(50, {{0.25, infinite}}));
  const auto most = least_divergence_shares(table, 0.9);
  CHECK(most[0] == 0.74);
  CHECK(most[1] == 0.74);
  CHECK(most[2] == 0);
  CHECK(least_divergence_shares({.ratios = {0.5}, .parts = {}}, 0.5).empty());
}

TEST_CASE("least_divergence_shares: a curve that falls is taken as flat") {
  PruneSensitivityTable table{.ratios = {0.25, 0.5}, .parts = {}};
  table.parts.push_back(part_of(100, {{0.25, 2}, {0.5, 1}}));
  table.parts.push_back(part_of(100, {{0.25, 3}, {0.5, 4}}));
  CHECK(least_divergence_shares(table, 0.25) == std::vector<double>{0.5, 0});
}

}  // namespace
}  // namespace onnxpress::testing
