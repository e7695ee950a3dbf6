#include "prune/unit_output.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "engine/activations.h"
#include "support/attention.h"
#include "support/memory_source.h"

using namespace onnxpress;
using namespace onnxpress::testing;

TEST_CASE("A unit's output is the root mean square of what it adds to its reader") {
  // Two units of two channels each, at mixed places of rows of five; the reader has three outputs.
  const Indices indices = {4, 0, 1, 3};
  const std::vector<float> x = random_floats(7UL * 5, 1), more = random_floats(2UL * 5, 2);
  const std::vector<float> w = random_floats(5UL * 3, 3);
  UnitMoments moments(indices, 2);
  const Tensor first = Tensor::of_floats({1, 7, 5}, x), second = Tensor::of_floats({2, 5}, more);
  moments.merge(moments.reduce(first.view()));
  moments.merge(moments.reduce(second.view()));
  CHECK(moments.rows() == 9);
  std::vector<double> rows;
  for (const std::uint32_t index : indices)
    for (std::size_t o = 0; o < 3; ++o) rows.push_back(static_cast<double>(w[index * 3 + o]));
  const std::vector<double> outputs = unit_outputs(moments, rows, 3);
  REQUIRE(outputs.size() == 2);
  for (std::size_t unit = 0; unit < 2; ++unit) {
    double sum = 0;
    for (std::size_t row = 0; row < 9; ++row)
      for (std::size_t o = 0; o < 3; ++o) {
        double y = 0;
        for (std::size_t k = 0; k < 2; ++k) {
          const std::uint32_t channel = indices[unit * 2 + k];
          const float value = row < 7 ? x[row * 5 + channel] : more[(row - 7) * 5 + channel];
          y += static_cast<double>(value) * static_cast<double>(w[channel * 3 + o]);
        }
        sum += y * y;
      }
    CHECK(outputs[unit] == Catch::Approx(std::sqrt(sum / 9)));
  }
}

TEST_CASE("Rows without a number are left out, and values of another shape are no use") {
  UnitMoments moments({0, 1}, 2);
  const Tensor rows = Tensor::of_floats({2, 2}, std::vector<float>{1, 2, std::numeric_limits<float>::quiet_NaN(), 3});
  moments.merge(moments.reduce(rows.view()));
  CHECK(moments.rows() == 1);
  CHECK(moments.of(0)[0] == 1);
  CHECK(moments.of(0)[1] == 2);
  CHECK(moments.of(0)[3] == 4);
  CHECK(moments.trouble().empty());
  const Tensor narrow = Tensor::of_floats({3}, std::vector<float>{1, 2, 3});
  UnitMoments wide({0, 5}, 2);
  wide.merge(wide.reduce(narrow.view()));
  CHECK_FALSE(wide.trouble().empty());
}

TEST_CASE("Heads are scored by what they add to the output projection") {
  const Model model = parse(raw_attention());
  const auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  std::size_t heads = 0;
  while (dependencies->groups()[heads].kind != UnitKind::heads) ++heads;
  std::vector<Batch> batches;
  for (unsigned seed = 1; seed < 6; ++seed) batches.push_back(random_batch("x", {1, 3, 8}, seed));
  MemorySource source(batches);
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  const auto scores = wide_activation_scores(
      {.original = model, .model = model, .graph = model.main(), .dependencies = *dependencies, .groups = {heads}},
      context, std::vector<UnitScores>(1));
  REQUIRE(scores);
  REQUIRE((*scores)[0].of_unit.size() == 4);
  double total = 0;
  for (const double score : (*scores)[0].of_unit) {
    CHECK(score > 0.1);
    total += score;
  }
  CHECK(total == Catch::Approx(4));
}
