#include "num/knapsack.h"

#include <rapidcheck.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <random>

namespace onnxpress {
namespace {

// All assignments, one by one.
KnapsackSolution brute_force(const std::vector<KnapsackItem>& items, std::int64_t budget) {
  KnapsackSolution best;
  best.feasible = false;
  std::vector<std::size_t> choice(items.size(), 0);
  for (;;) {
    KnapsackSolution at;
    at.choice = choice;
    for (std::size_t i = 0; i < items.size(); ++i) {
      at.cost += items[i][choice[i]].cost;
      at.loss += items[i][choice[i]].loss;
    }
    if (at.cost <= budget && (!best.feasible || at.loss < best.loss || (at.loss == best.loss && at.cost < best.cost)))
      best = at;
    std::size_t i = 0;
    while (i < items.size() && ++choice[i] == items[i].size()) choice[i++] = 0;
    if (i == items.size()) return best;
  }
}

std::int64_t cheapest(const std::vector<KnapsackItem>& items) {
  std::int64_t cost = 0;
  for (const KnapsackItem& item : items) {
    std::int64_t least = item.front().cost;
    for (const KnapsackOption& option : item) least = std::min(least, option.cost);
    cost += least;
  }
  return cost;
}

void check_consistent(const std::vector<KnapsackItem>& items, const KnapsackSolution& solution) {
  REQUIRE(solution.choice.size() == items.size());
  KnapsackSolution sum;
  for (std::size_t i = 0; i < items.size(); ++i) {
    sum.cost += items[i].at(solution.choice[i]).cost;
    sum.loss += items[i].at(solution.choice[i]).loss;
  }
  CHECK(solution.cost == sum.cost);
  CHECK(solution.loss == sum.loss);
}

// Small whole numbers on purpose: ties, equal costs, options that are worse in both.
rc::Gen<std::vector<KnapsackItem>> any_items(int largest) {
  const auto option = rc::gen::map(rc::gen::pair(rc::gen::inRange(-5, largest), rc::gen::inRange(0, largest)),
                                   [](const std::pair<int, int>& values) {
                                     return KnapsackOption{values.first, static_cast<double>(values.second) / 4};
                                   });
  const auto item = rc::gen::mapcat(rc::gen::inRange<std::size_t>(1, 5),
                                    [option](std::size_t n) { return rc::gen::container<KnapsackItem>(n, option); });
  return rc::gen::mapcat(rc::gen::inRange<std::size_t>(1, 7),
                         [item](std::size_t n) { return rc::gen::container<std::vector<KnapsackItem>>(n, item); });
}

TEST_CASE("knapsack: the least loss of all assignments, on random small instances") {
  for (const int largest : {4, 40, 4000}) {
    const bool passed = rc::check("equals brute force", [largest] {
      const auto items = *any_items(largest);
      const std::int64_t budget = *rc::gen::inRange<std::int64_t>(-20, 6 * largest);
      const KnapsackSolution expected = brute_force(items, budget);
      const KnapsackSolution got = solve_knapsack(items, budget);
      RC_ASSERT(got.feasible == expected.feasible);
      if (!expected.feasible) {
        RC_ASSERT(got.cost == cheapest(items));
        return;
      }
      RC_ASSERT(got.loss == expected.loss);
      RC_ASSERT(got.cost == expected.cost);
    });
    CHECK(passed);
  }
}

TEST_CASE("knapsack: an option that breaks the model is taken only when nothing else fits") {
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<KnapsackItem> items = {{{1, inf}, {4, 1}}, {{1, 2}, {4, 1}}};
  CHECK(solve_knapsack(items, 5).choice == std::vector<std::size_t>{1, 0});
  CHECK(solve_knapsack(items, 4).choice == std::vector<std::size_t>{0, 0});
  CHECK(std::isinf(solve_knapsack(items, 4).loss));
  CHECK(solve_knapsack(items, 8).choice == std::vector<std::size_t>{1, 1});
}

TEST_CASE("knapsack: without items, without room") {
  CHECK(solve_knapsack({}, 0).feasible);
  CHECK_FALSE(solve_knapsack({}, -1).feasible);
  const std::vector<KnapsackItem> items = {{{10, 1}, {20, 0}}};
  const KnapsackSolution none = solve_knapsack(items, 9);
  CHECK_FALSE(none.feasible);
  CHECK(none.choice == std::vector<std::size_t>{0});
}

// Layers of a network in four formats: bytes and noise of each.
std::vector<KnapsackItem> layers(std::size_t count, unsigned seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  std::vector<KnapsackItem> items;
  for (std::size_t i = 0; i < count; ++i) {
    const auto weights = static_cast<std::int64_t>(std::exp(6 + 9 * uniform()));
    const double noise = std::exp(-12 + 6 * uniform());
    items.push_back({{4 * weights, 0}, {weights + 64, noise * 0.01}, {weights, noise}, {weights / 2, noise * 40}});
  }
  return items;
}

TEST_CASE("knapsack: 500 layers in four formats; more budget never loses more, the hull is a frontier of it") {
  const auto items = layers(500, 1);
  const auto hull = knapsack_hull(items);
  CHECK(hull.size() > 500);
  double loss = std::numeric_limits<double>::infinity();
  for (std::size_t k = 0; k < hull.size(); k += 97) {
    check_consistent(items, hull[k]);
    const KnapsackSolution at = solve_knapsack(items, hull[k].cost);
    check_consistent(items, at);
    CHECK(at.cost <= hull[k].cost);
    CHECK(at.loss <= hull[k].loss);
    CHECK(at.loss >= hull[k].loss * (1 - 1e-12));  // a corner of the hull is optimal
    const KnapsackSolution between = solve_knapsack(items, hull[k].cost + 1234);
    check_consistent(items, between);
    CHECK(between.cost <= hull[k].cost + 1234);
    CHECK(between.loss <= at.loss);
    CHECK(between.loss < loss);
    loss = between.loss;
  }
}

TEST_CASE("knapsack: many equal layers") {
  const std::vector<KnapsackItem> items(500, KnapsackItem{{400, 0}, {100, 1}, {50, 9}});
  const KnapsackSolution at = solve_knapsack(items, 500 * 100 + 5 * 300 + 299);
  CHECK(at.loss == 495);
  CHECK(at.cost == 500 * 100 + 5 * 300);
  CHECK(at.choice == solve_knapsack(items, 500 * 100 + 5 * 300 + 299).choice);
}

}  // namespace
}  // namespace onnxpress
