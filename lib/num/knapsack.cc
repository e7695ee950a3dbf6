#include "num/knapsack.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <tuple>

namespace onnxpress {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// A step along the lower convex hull of one item: to a dearer option that loses less.
struct Step {
  std::size_t item = 0, option = 0;
  std::int64_t cost = 0;  // more than the option before
  double gain = 0;        // less loss than the option before, per unit of cost
};

// Indices of the options on the item's lower convex hull, cheapest first.
std::vector<std::size_t> hull_of(const KnapsackItem& item) {
  std::vector<std::size_t> order(item.size());
  for (std::size_t j = 0; j < order.size(); ++j) order[j] = j;
  std::ranges::stable_sort(order, {}, [&](std::size_t j) { return std::tuple(item[j].cost, item[j].loss); });
  const auto slope = [&](std::size_t a, std::size_t b) {
    return (item[a].loss - item[b].loss) / static_cast<double>(item[b].cost - item[a].cost);
  };
  std::vector<std::size_t> hull;
  for (const std::size_t j : order) {
    if (!hull.empty() && item[j].loss >= item[hull.back()].loss) continue;
    // An infinite loss has no slope: it stays as the cheapest end.
    while (hull.size() > 1 && slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), j)) hull.pop_back();
    hull.push_back(j);
  }
  return hull;
}

// The steps of all items, the most gainful first; steps of one item stay in order because hulls are convex.
std::vector<Step> steps_of(std::span<const KnapsackItem> items, KnapsackSolution& cheapest) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < items.size(); ++i) {
    assert(!items[i].empty());
    const std::vector<std::size_t> hull = hull_of(items[i]);
    cheapest.choice.push_back(hull.front());
    for (std::size_t k = 1; k < hull.size(); ++k) {
      const KnapsackOption &from = items[i][hull[k - 1]], &to = items[i][hull[k]];
      steps.push_back(
          {i, hull[k], to.cost - from.cost, (from.loss - to.loss) / static_cast<double>(to.cost - from.cost)});
    }
  }
  std::ranges::stable_sort(steps, [](const Step& a, const Step& b) { return a.gain > b.gain; });
  return steps;
}

// Costs and losses are always summed in the order of the items: a solution has one loss, however it was found.
void sum_up(std::span<const KnapsackItem> items, KnapsackSolution& solution) {
  solution.cost = 0;
  solution.loss = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    solution.cost += items[i][solution.choice[i]].cost;
    solution.loss += items[i][solution.choice[i]].loss;
  }
}

bool better(const KnapsackSolution& a, const KnapsackSolution& b) {
  return std::tie(a.loss, a.cost) < std::tie(b.loss, b.cost);
}

class Solver {
 public:
  Solver(std::span<const KnapsackItem> items, std::int64_t budget) : items_(items), budget_(budget) {}

  KnapsackSolution run() {
    const std::vector<Step> steps = steps_of(items_, best_);
    sum_up(items_, best_);
    best_.feasible = best_.cost <= budget_;
    if (!best_.feasible) return best_;
    if (!relax(steps)) return best_;  // everything fits
    fix_options();
    search();
    return best_;
  }

 private:
  // A partial choice over the items so far; the options are a linked list through `parent`.
  struct State {
    std::int64_t cost = 0;
    double loss = 0;
    std::size_t parent = 0;
  };
  struct Link {
    std::size_t parent = 0;
    std::size_t option = 0;
  };

  // Takes steps while they fit: a first solution, and lambda from the first step that does not. False when all fit.
  bool relax(const std::vector<Step>& steps) {
    std::int64_t left = budget_ - best_.cost;
    std::vector<bool> closed(items_.size(), false);
    bool broken = false;
    for (const Step& step : steps) {
      if (closed[step.item]) continue;
      if (step.cost <= left) {
        best_.choice[step.item] = step.option;
        left -= step.cost;
        continue;
      }
      if (!broken) lambda_ = step.gain;
      broken = true;
      closed[step.item] = true;
    }
    sum_up(items_, best_);
    // An infinite gain would make a bound of infinities; then dominance alone has to do.
    if (!std::isfinite(lambda_)) lambda_ = 0;
    return broken;
  }

  double priced(const KnapsackOption& option) const { return option.loss + lambda_ * static_cast<double>(option.cost); }

  // Sums of many doubles differ in the last digits by their order: a bound must be clearly too high to rule out.
  bool hopeless(double bound) const { return bound > best_.loss + 1e-12 * (std::abs(best_.loss) + scale_); }

  // An option is out when the bound with it is above the best solution known.
  void fix_options() {
    least_.resize(items_.size());
    double bound = -lambda_ * static_cast<double>(budget_);
    for (std::size_t i = 0; i < items_.size(); ++i) {
      least_[i] = kInf;
      for (const KnapsackOption& option : items_[i]) least_[i] = std::min(least_[i], priced(option));
      bound += least_[i];
      if (std::isfinite(least_[i])) scale_ += std::abs(least_[i]);
    }
    scale_ += std::abs(lambda_ * static_cast<double>(budget_));
    kept_.resize(items_.size());
    for (std::size_t i = 0; i < items_.size(); ++i) {
      for (std::size_t j = 0; j < items_[i].size(); ++j)
        if (!hopeless(bound - least_[i] + priced(items_[i][j]))) kept_[i].push_back(j);
      if (kept_[i].empty()) kept_[i].push_back(best_.choice[i]);
    }
  }

  void search() {
    const std::size_t n = items_.size();
    std::vector<double> rest(n + 1, 0);            // least priced sum of the items from i on
    std::vector<std::int64_t> cheapest(n + 1, 0);  // least cost of the items from i on
    for (std::size_t i = n; i-- > 0;) {
      rest[i] = rest[i + 1] + least_[i];
      std::int64_t least = std::numeric_limits<std::int64_t>::max();
      for (const std::size_t j : kept_[i]) least = std::min(least, items_[i][j].cost);
      cheapest[i] = cheapest[i + 1] + least;
    }
    std::vector<std::vector<Link>> links(n);
    std::vector<State> states = {{}};
    for (std::size_t i = 0; i < n && !states.empty(); ++i) {
      std::vector<std::pair<State, Link>> next;
      for (std::size_t s = 0; s < states.size(); ++s) {
        for (const std::size_t j : kept_[i]) {
          const KnapsackOption& option = items_[i][j];
          const State state{states[s].cost + option.cost, states[s].loss + option.loss, 0};
          if (state.cost + cheapest[i + 1] > budget_) continue;
          const double left = static_cast<double>(budget_ - state.cost);
          if (hopeless(state.loss + rest[i + 1] - lambda_ * left)) continue;
          next.push_back({state, {states[s].parent, j}});
        }
      }
      states = undominated(next, links[i]);
    }
    for (const State& state : states) {  // cost ascending, loss descending: the last is the best of them
      KnapsackSolution found;
      found.choice.resize(n);
      std::size_t at = state.parent;
      for (std::size_t i = n; i-- > 0;) {
        found.choice[i] = links[i][at].option;
        at = links[i][at].parent;
      }
      sum_up(items_, found);
      if (better(found, best_)) best_ = std::move(found);
    }
  }

  // By cost ascending and loss strictly descending; their links go to `links`.
  static std::vector<State> undominated(std::vector<std::pair<State, Link>>& all, std::vector<Link>& links) {
    std::ranges::stable_sort(all, {}, [](const auto& entry) { return std::tuple(entry.first.cost, entry.first.loss); });
    std::vector<State> kept;
    for (const auto& [state, link] : all) {
      if (!kept.empty() && state.loss >= kept.back().loss) continue;
      kept.push_back({state.cost, state.loss, links.size()});
      links.push_back(link);
    }
    return kept;
  }

  std::span<const KnapsackItem> items_;
  std::int64_t budget_;
  KnapsackSolution best_;
  double lambda_ = 0;                           // loss that one unit of budget is worth
  double scale_ = 0;                            // size of the terms of a bound
  std::vector<double> least_;                   // of each item: its least priced option
  std::vector<std::vector<std::size_t>> kept_;  // options that may be in a best solution
};

}  // namespace

KnapsackSolution solve_knapsack(std::span<const KnapsackItem> items, std::int64_t budget) {
  return Solver(items, budget).run();
}

std::vector<KnapsackSolution> knapsack_hull(std::span<const KnapsackItem> items) {
  KnapsackSolution at;
  const std::vector<Step> steps = steps_of(items, at);
  sum_up(items, at);
  std::vector<KnapsackSolution> hull = {at};
  for (std::size_t k = 0; k < steps.size(); ++k) {
    at.choice[steps[k].item] = steps[k].option;
    // Steps of equal gain lie on one line; only its ends are corners, but every point of it is as good.
    sum_up(items, at);
    hull.push_back(at);
  }
  return hull;
}

}  // namespace onnxpress
