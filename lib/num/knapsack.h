// The multiple-choice knapsack: of each item exactly one option, so that the losses add up to as little as possible and
// the costs to no more than a budget. Exact.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace onnxpress {

struct KnapsackOption {
  std::int64_t cost = 0;
  double loss = 0;  // at least 0; +inf is never chosen while another option fits
};
using KnapsackItem = std::vector<KnapsackOption>;  // at least one option

struct KnapsackSolution {
  std::vector<std::size_t> choice;  // option of each item
  std::int64_t cost = 0;
  double loss = 0;
  bool feasible = true;  // false: even the cheapest options exceed the budget, and these are them
};

// The least loss within `budget`; of equal losses the least cost. The answer is a function of the arguments alone.
//
// Dynamic programming over the items. A partial choice is dropped when another costs and loses no more, or when even
// the Lagrangian bound of what is left, sum_i min_j (loss_ij + lambda cost_ij) - lambda budget, cannot beat the best
// choice known. lambda and the first choice come from the convex hulls of the items (the linear relaxation); the same
// bound first removes single options (reduced-cost fixing), which as a rule leaves a small core of the items.
// Sources: Sinha and Zoltners, "The Multiple-Choice Knapsack Problem" (Operations Research 27, 1979); Pisinger, "A
// minimal algorithm for the multiple-choice knapsack problem" (EJOR 83, 1995).
KnapsackSolution solve_knapsack(std::span<const KnapsackItem> items, std::int64_t budget);

// The solutions on the convex hull of all (cost, loss), from the cheapest to that of least loss; each is the best one
// for its own cost. At most one more than there are options.
std::vector<KnapsackSolution> knapsack_hull(std::span<const KnapsackItem> items);

}  // namespace onnxpress
