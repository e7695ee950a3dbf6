#include "prune/unit_select.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <numeric>

namespace onnxpress {
namespace {

using Scope = StructuredOptions::Scope;

// A share of n units; a product that misses a whole number only by rounding is that number.
double share(double ratio, std::size_t n) {
  const double product = ratio * static_cast<double>(n), whole = std::round(product);
  return std::abs(product - whole) < 1e-9 * static_cast<double>(n) ? whole : product;
}

}  // namespace

UnitSelection::UnitSelection(std::vector<Candidate> candidates, SelectionRules rules)
    : candidates_(std::move(candidates)), rules_(rules) {
  std::map<std::string, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const Candidate& candidate = candidates_[i];
    assert(candidate.scores.size() == candidate.units && candidate.original >= candidate.units);
    std::vector<std::uint32_t> order(candidate.units);
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::stable_sort(order, {}, [&](std::uint32_t u) { return candidate.scores[u]; });
    order_.push_back(std::move(order));
    if (!candidate.frozen) alike[rules_.scope == Scope::isomorphic ? candidate.pattern : ""].push_back(i);
  }
  if (rules_.scope == Scope::local) return;
  for (auto& [pattern, members] : alike) classes_.push_back(std::move(members));
}

std::size_t UnitSelection::step(const Candidate& candidate) const {
  const std::size_t multiple = static_cast<std::size_t>(rules_.round_to);
  return candidate.width >= multiple ? 1 : multiple / std::gcd(multiple, candidate.width);
}

std::size_t UnitSelection::least(const Candidate& candidate) const {
  if (candidate.frozen) return candidate.units;
  const double most = std::floor(share(rules_.max_ratio, candidate.original));
  std::size_t keep = candidate.original - static_cast<std::size_t>(most);
  keep = std::max({keep, static_cast<std::size_t>(rules_.min_keep), 1UZ});
  const std::size_t unit = step(candidate);
  return std::min(candidate.units, (keep + unit - 1) / unit * unit);
}

std::size_t UnitSelection::rounded(const Candidate& candidate, double kept) const {
  const std::size_t unit = step(candidate), floor = least(candidate);
  if (kept >= static_cast<double>(candidate.units)) return candidate.units;
  const double multiples = std::ceil(kept / static_cast<double>(unit) - 0.5);  // the smaller one of two as near
  const auto nearest = static_cast<std::size_t>(std::max(multiples, 1.0)) * unit;
  return std::min(std::max(nearest, floor), candidate.units);
}

std::vector<double> UnitSelection::wanted(double ratio) const {
  std::vector<double> wanted;
  for (const Candidate& candidate : candidates_) {
    const double original = static_cast<double>(candidate.original);
    const bool free = classes_.empty() && !candidate.frozen;
    wanted.push_back(free ? original - share(ratio, candidate.original) : static_cast<double>(candidate.units));
  }
  for (const auto& members : classes_) compete(members, ratio, wanted);
  return wanted;
}

// The units of least score over the mean of their group, down to the guards of each group.
void UnitSelection::compete(std::span<const std::size_t> members, double ratio, std::vector<double>& wanted) const {
  struct Unit {
    double score;
    std::size_t candidate, rank;
  };
  std::vector<Unit> units;
  std::size_t original = 0, gone = 0;
  for (const std::size_t i : members) {
    const Candidate& candidate = candidates_[i];
    original += candidate.original;
    gone += candidate.original - candidate.units;
    const double sum = std::accumulate(candidate.scores.begin(), candidate.scores.end(), 0.0);
    const double scale = sum > 0 ? static_cast<double>(candidate.units) / sum : 1;
    for (std::size_t rank = 0; rank + least(candidate) < candidate.units; ++rank)
      units.push_back({candidate.scores[order_[i][rank]] * scale, i, rank});
  }
  std::ranges::stable_sort(units, {}, &Unit::score);
  const double more = std::round(share(ratio, original)) - static_cast<double>(gone);
  const auto count = std::min(units.size(), static_cast<std::size_t>(std::max(more, 0.0)));
  for (std::size_t u = 0; u < count; ++u) wanted[units[u].candidate] -= 1;
}

Counts UnitSelection::kept(double ratio) const {
  const std::vector<double> want = wanted(ratio);
  Counts counts;
  for (std::size_t i = 0; i < candidates_.size(); ++i) counts.push_back(rounded(candidates_[i], want[i]));
  return counts;
}

// What the units between two counts matter, relative to the mean unit of the group.
double UnitSelection::importance(std::size_t candidate, std::size_t from, std::size_t to) const {
  const Candidate& group = candidates_[candidate];
  const double sum = std::accumulate(group.scores.begin(), group.scores.end(), 0.0);
  double back = 0;
  for (std::size_t k = from; k < to; ++k) back += group.scores[order_[candidate][group.units - 1 - k]];
  return sum > 0 ? back * static_cast<double>(group.units) / sum : static_cast<double>(to - from);
}

UnitSelection::Reached UnitSelection::kept_within(const std::function<double(const Counts& kept)>& load) const {
  constexpr int kHalvings = 40;
  Counts fewer = kept(1), more = kept(0);
  if (load(more) <= 1) return {std::move(more), true};
  if (load(fewer) > 1) return {std::move(fewer), false};
  double low = 0, high = 1;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    Counts counts = kept(middle);
    const bool met = load(counts) <= 1;
    (met ? high : low) = middle;
    (met ? fewer : more) = std::move(counts);
  }
  // Groups of one size lose their next multiple all at once: some can have it back.
  struct Return {
    std::size_t candidate;
    double worth;
  };
  std::vector<Return> returns;
  const double at = load(fewer);
  for (std::size_t i = 0; i < fewer.size(); ++i) {
    if (fewer[i] == more[i]) continue;
    Counts one = fewer;
    one[i] = more[i];
    const double cost = load(one) - at;
    returns.push_back({i, cost > 0 ? importance(i, fewer[i], more[i]) / cost : HUGE_VAL});
  }
  std::ranges::stable_sort(returns, std::greater(), &Return::worth);
  for (const Return& each : returns) {
    const std::size_t before = std::exchange(fewer[each.candidate], more[each.candidate]);
    if (load(fewer) > 1) fewer[each.candidate] = before;
  }
  return {std::move(fewer), true};
}

Indices UnitSelection::removed(std::size_t candidate, std::size_t kept) const {
  const auto& order = order_[candidate];
  Indices units(order.begin(), order.end() - static_cast<std::ptrdiff_t>(kept));
  std::ranges::sort(units);
  return units;
}

std::string UnitSelection::why_whole(std::size_t index, double ratio) const {
  const Candidate& candidate = candidates_[index];
  const std::size_t channels = candidate.units * candidate.width, unit = step(candidate);
  if (unit >= candidate.units)
    return unit > 1 ? fmt::format("{} channels: no multiple of {} below", channels, rules_.round_to)
                    : "a single unit is left of it";
  if (least(candidate) >= candidate.units)
    return fmt::format("{} units: max_ratio={} and min_keep={} allow no less{}", candidate.units, rules_.max_ratio,
                       rules_.min_keep, unit > 1 ? fmt::format(" in multiples of {} channels", rules_.round_to) : "");
  const double want = wanted(ratio)[index] * static_cast<double>(candidate.width);
  if (want >= static_cast<double>(channels)) return "its units matter more than those of other groups, or enough";
  return fmt::format("{:.1f} of {} channels are to stay, which rounds to all of them (round_to={})", want, channels,
                     rules_.round_to);
}

}  // namespace onnxpress
