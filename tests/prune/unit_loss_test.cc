#include "prune/unit_loss.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "engine/activations.h"
#include "ir/rewriter.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

const std::string kNetwork = HEAD "g (float[N, 5] x) => (float[N, 3] y) <" + float_tensor("w1", {5, 4}, 1) + ", " +
                             float_tensor("b1", {4}, 2) + ", " + float_tensor("w2", {4, 3}, 3) +
                             "> { a = MatMul(x, w1) h = Add(a, b1) r = Sigmoid(h) y = MatMul(r, w2) }";

std::vector<Batch> samples(unsigned count = 6) {
  std::vector<Batch> all;
  for (unsigned seed = 1; seed <= count; ++seed) all.push_back(random_batch("x", {1, 5}, 100 + seed));
  return all;
}

// The same network with row `unit` of w2 zero, written by hand.
Model with_row_of_zeros(const Model& model, std::size_t unit) {
  Model copy = model.clone();
  Tensor w2 = *copy.main().initializer("w2").read();
  for (std::size_t i = 0; i < 3; ++i) w2.as_mutable<float>()[unit * 3 + i] = 0;
  Rewriter rewriter(copy.main());
  rewriter.set_initializer(copy.main().initializer("w2"), std::move(w2));
  REQUIRE(rewriter.commit());
  return copy;
}

double slow_divergence(const Model& a, const Model& b) {
  double sum = 0;
  const auto probabilities = [](const Tensor& scores) {
    std::vector<double> p;
    double total = 0;
    for (const float s : scores.as<float>()) total += p.emplace_back(std::exp(static_cast<double>(s)));
    for (double& each : p) each /= total;
    return p;
  };
  for (const Batch& batch : samples()) {
    const auto p = probabilities(run_on(a, batch)[0]), q = probabilities(run_on(b, batch)[0]);
    for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
  }
  return sum / static_cast<double>(samples().size());
}

std::size_t hidden_group(const DependencyGraph& dependencies) {
  REQUIRE(dependencies.groups().size() == 1);
  CHECK(dependencies.groups()[0].units == 4);
  return 0;
}

}  // namespace

TEST_CASE("The loss of a unit is the divergence of the network with its slices at zero") {
  const Model model = parse(kNetwork);
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  MemorySource source(samples());
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  const auto losses = loss_scores({.original = model,
                                   .model = model,
                                   .graph = model.main(),
                                   .dependencies = *dependencies,
                                   .groups = {hidden_group(*dependencies)}},
                                  context, std::vector<UnitScores>(1));
  REQUIRE(losses);
  REQUIRE(losses->size() == 1);
  REQUIRE((*losses)[0].of_unit.size() == 4);
  for (std::size_t unit = 0; unit < 4; ++unit) {
    const double expected = slow_divergence(model, with_row_of_zeros(model, unit));
    CHECK(expected > 1e-6);
    CHECK((*losses)[0].of_unit[unit] == Catch::Approx(expected).epsilon(1e-4));
  }
  REQUIRE(context.journal.entries().size() == 1);
  CHECK(context.journal.entries()[0].text == "criterion=loss: 4 passes over memory, one for each unit");
}

TEST_CASE("Units are silent however much the masked network is changed already") {
  const Model original = parse(kNetwork);
  const Model model = with_row_of_zeros(original, 1);
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  const std::vector<std::uint32_t> units = {0, 2};
  const auto silent = without_units(model, model.main(), *dependencies, hidden_group(*dependencies), units);
  REQUIRE(silent);
  const Model by_hand = with_row_of_zeros(with_row_of_zeros(model, 0), 2);
  const Batch batch = random_batch("x", {2, 5}, 7);
  CHECK(sqnr_db(run_on(by_hand, batch), run_on(*silent, batch)) > 120);
}

TEST_CASE("Losses of too many units are refused") {
  const Model wide = parse(HEAD "g (float[N, 1] x) => (float[N, 2] y) <" + float_tensor("w1", {1, 2001}, 1) + ", " +
                           float_tensor("w2", {2001, 2}, 3) + "> { h = MatMul(x, w1) y = MatMul(h, w2) }");
  const auto many = DependencyGraph::analyze(wide.main());
  REQUIRE(many);
  MemorySource source(samples());
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  const auto refused =
      loss_scores({.original = wide, .model = wide, .graph = wide.main(), .dependencies = *many, .groups = {0}},
                  context, std::vector<UnitScores>(1));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::usage);
  CHECK(refused.error().what.contains("2001"));
}

TEST_CASE("Units that only integers read keep their other scores, with a note") {
  const Model model = parse(HEAD "g (float[N, 5] x) => (float[N, 3] y) <" + float_tensor("w1", {5, 4}, 1) +
                            ", int8[4, 3] w2 = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float s = {0.1}>"
                            "{ h = MatMul(x, w1) f = DequantizeLinear(w2, s) y = MatMul(h, f) }");
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 1);
  MemorySource source(samples());
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  const auto scores = loss_scores(
      {.original = model, .model = model, .graph = model.main(), .dependencies = *dependencies, .groups = {0}}, context,
      {{{1, 2, 3, 4}, {}}});
  REQUIRE(scores);
  INFO((*scores)[0].note);
  CHECK((*scores)[0].of_unit.size() == 4);
}
