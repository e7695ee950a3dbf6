#include "prune/unit_select.h"

#include <catch2/catch_test_macros.hpp>
#include <numeric>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Scope = StructuredOptions::Scope;

Candidate candidate(std::vector<double> scores, std::size_t width = 1, std::string pattern = "") {
  const std::size_t units = scores.size();
  return {
      .units = units, .original = units, .width = width, .scores = std::move(scores), .pattern = std::move(pattern)};
}

// Scores 1, 2, ... n.
Candidate ramp(std::size_t units, std::size_t width = 1, double scale = 1) {
  std::vector<double> scores;
  for (std::size_t u = 0; u < units; ++u) scores.push_back(scale * static_cast<double>(u + 1));
  return candidate(std::move(scores), width);
}

std::size_t kept_of(const Candidate& one, double ratio, const SelectionRules& rules) {
  return UnitSelection({one}, rules).kept(ratio).front();
}

}  // namespace

TEST_CASE("A ratio takes its share of every group, the units of least score first") {
  const UnitSelection selection({candidate({3, 1, 2, 1}), ramp(10)}, {.round_to = 1});
  CHECK(selection.kept(0.5) == Counts{2, 5});
  CHECK(selection.removed(0, 2) == Indices{1, 3});
  CHECK(selection.removed(0, 3) == Indices{1});  // of equal scores the first
  CHECK(selection.removed(1, 5) == Indices{0, 1, 2, 3, 4});
  CHECK(selection.removed(1, 10).empty());
  CHECK(selection.kept(0) == Counts{4, 10});
}

TEST_CASE("A ratio that a float cannot hold gives whole numbers all the same") {
  CHECK(kept_of(ramp(100), 0.29, {.round_to = 1}) == 71);
  CHECK(kept_of(ramp(10), 0.3, {.round_to = 1}) == 7);
  CHECK(kept_of(ramp(3), 0.5, {.round_to = 1}) == 1);  // 1.5: the smaller one of two as near
}

TEST_CASE("What is left becomes the nearest multiple of round_to, and never nothing") {
  const SelectionRules rules{.round_to = 16, .max_ratio = 1};
  CHECK(kept_of(ramp(64), 0.3, rules) == 48);  // 44.8
  CHECK(kept_of(ramp(64), 0.5, rules) == 32);
  CHECK(kept_of(ramp(64), 0.99, rules) == 16);
  CHECK(kept_of(ramp(32), 0.2, rules) == 32);   // 25.6
  CHECK(kept_of(ramp(32), 0.25, rules) == 16);  // 24: the smaller one of two as near
  CHECK(kept_of(ramp(40), 0.1, rules) == 32);   // 36: of 40 channels too
  CHECK(kept_of(ramp(40), 0.05, rules) == 32);  // 38
}

TEST_CASE("A group that is no wider than round_to is left alone, and says so") {
  const UnitSelection selection({ramp(8), ramp(16), ramp(17)}, {.round_to = 16});
  CHECK(selection.kept(0.5) == Counts{8, 16, 16});
  CHECK(selection.why_whole(0, 0.5) == "8 channels: no multiple of 16 below");
  CHECK(selection.why_whole(1, 0.5) == "16 channels: no multiple of 16 below");
}

TEST_CASE("Units of several channels: the multiple counts channels, wide units count by themselves") {
  CHECK(kept_of(ramp(16, 4), 0.4, {.round_to = 16}) == 8);  // 9.6 units of 4 channels: 32 of them
  CHECK(kept_of(ramp(12, 6), 0.5, {.round_to = 16}) == 8);  // 8 x 6 = 48 is the smallest multiple
  CHECK(kept_of(ramp(12, 64), 0.25, {.round_to = 16}) == 9);
  CHECK(kept_of(ramp(12, 24), 0.25, {.round_to = 16}) == 9);
  CHECK(UnitSelection({ramp(1, 64)}, {}).why_whole(0, 0.5) == "a single unit is left of it");
}

TEST_CASE("Guards: max_ratio of a group, min_keep units, both in multiples") {
  CHECK(kept_of(ramp(10), 1, {.round_to = 1, .max_ratio = 0.6}) == 4);
  CHECK(kept_of(ramp(10), 1, {.round_to = 1, .max_ratio = 1}) == 1);
  CHECK(kept_of(ramp(10), 0.9, {.round_to = 1, .max_ratio = 1, .min_keep = 3}) == 3);
  CHECK(kept_of(ramp(64), 0.9, {.round_to = 16, .max_ratio = 0.7}) == 32);  // 20 must stay
  CHECK(kept_of(ramp(4), 0.5, {.round_to = 1, .min_keep = 9}) == 4);
  CHECK(UnitSelection({ramp(4)}, {.round_to = 1, .min_keep = 9}).why_whole(0, 0.5) ==
        "4 units: max_ratio=0.9 and min_keep=9 allow no less");
  CHECK(UnitSelection({ramp(32)}, {}).why_whole(0, 0.1) ==
        "28.8 of 32 channels are to stay, which rounds to all of them (round_to=16)");
}

TEST_CASE("scope=global: the lowest of all, over the mean of their group, but never below the guards") {
  // Relative to their means 2 and 20: 0.5 1 1.5 | 0.1 0.95 1.95
  const UnitSelection selection({candidate({1, 2, 3}), candidate({2, 19, 39})},
                                {.scope = Scope::global, .round_to = 1, .max_ratio = 1});
  CHECK(selection.kept(1.0 / 6) == Counts{3, 2});
  CHECK(selection.kept(2.0 / 6) == Counts{2, 2});
  CHECK(selection.kept(3.0 / 6) == Counts{2, 1});
  CHECK(selection.kept(1) == Counts{1, 1});
  const UnitSelection guarded({candidate({1, 2, 3}), candidate({2, 19, 39})},
                              {.scope = Scope::global, .round_to = 1, .max_ratio = 0.34});
  CHECK(guarded.kept(0.5) == Counts{2, 2});
  CHECK(guarded.why_whole(0, 1.0 / 6) == "its units matter more than those of other groups, or enough");
}

TEST_CASE("scope=isomorphic: only groups built alike compete") {
  const std::vector<Candidate> candidates = {candidate({1, 1, 1, 5}, 1, "a"), candidate({3, 3, 3, 3}, 1, "a"),
                                             candidate({1, 2, 3, 4}, 1, "b")};
  const UnitSelection selection(candidates, {.scope = Scope::isomorphic, .round_to = 1, .max_ratio = 1});
  CHECK(selection.kept(0.375) == Counts{1, 4, 2});
}

TEST_CASE("Shares are of what there was before the first step") {
  Candidate half = ramp(5);
  half.original = 10;
  CHECK(kept_of(half, 0.5, {.round_to = 1}) == 5);
  CHECK(kept_of(half, 0.8, {.round_to = 1}) == 2);
  CHECK(kept_of(half, 0.2, {.round_to = 1}) == 5);
  CHECK(UnitSelection({half}, {.scope = Scope::global, .round_to = 1}).kept(0.8) == Counts{2});
}

TEST_CASE("A frozen candidate loses nothing in any scope") {
  for (const Scope scope : {Scope::local, Scope::global, Scope::isomorphic}) {
    Candidate frozen = ramp(10);
    frozen.frozen = true;
    CHECK(UnitSelection({frozen, ramp(10)}, {.scope = scope, .round_to = 1}).kept(0.5) == Counts{10, 5});
  }
}

TEST_CASE("More ratio never keeps more") {
  for (const Scope scope : {Scope::local, Scope::global, Scope::isomorphic}) {
    std::vector<Candidate> candidates;
    for (unsigned seed = 0; seed < 5; ++seed) {
      std::vector<double> scores;
      for (const float v : random_floats(20 + 13 * seed, seed)) scores.push_back(static_cast<double>(v) + 1);
      candidates.push_back(candidate(std::move(scores), 1 + seed % 2, seed % 2 == 0 ? "x" : "y"));
    }
    const UnitSelection selection(candidates, {.scope = scope, .round_to = 8});
    Counts before = selection.kept(0);
    for (int i = 1; i <= 50; ++i) {
      const Counts after = selection.kept(i / 50.0);
      for (std::size_t g = 0; g < after.size(); ++g) CHECK(after[g] <= before[g]);
      before = after;
    }
  }
}

TEST_CASE("A budget is met with as little as possible") {
  // Cost: units of a, twice those of b.
  const auto load = [](double budget) {
    return [budget](const Counts& kept) { return static_cast<double>(kept[0] + 2 * kept[1]) / budget; };
  };
  const UnitSelection selection({ramp(64), ramp(64)}, {.round_to = 16, .max_ratio = 1});
  CHECK(selection.kept_within(load(192)).kept == Counts{64, 64});
  const auto some = selection.kept_within(load(150));
  CHECK(some.met);
  CHECK(some.kept == Counts{48, 48});  // 144; 160 with more in either
  // The step from 48 to 32 of both reaches 96; what fits is given back.
  CHECK(selection.kept_within(load(130)).kept == Counts{48, 32});
  const auto all = selection.kept_within(load(10));
  CHECK_FALSE(all.met);
  CHECK(all.kept == Counts{16, 16});
}

TEST_CASE("Groups of one size: what the budget leaves goes back to those that matter most for it") {
  std::vector<Candidate> candidates(8, ramp(256));
  candidates[3] = candidate(std::vector<double>(256, 1));  // all as good: a unit given back is worth less
  const UnitSelection selection(candidates, {.round_to = 16});
  const auto load = [](const Counts& kept) {
    double macs = 0;
    for (std::size_t i = 0; i < kept.size(); ++i)
      macs += static_cast<double>(kept[i] * (i == 0 ? 256 : kept[i - 1])) / (256.0 * 256 * 8);
    return macs / 0.5;
  };
  const auto reached = selection.kept_within(load);
  CHECK(reached.met);
  CHECK(load(reached.kept) <= 1);
  CHECK(load(reached.kept) > 0.97);
  for (const std::size_t kept : reached.kept) CHECK(kept % 16 == 0);
  CHECK(reached.kept[3] == 176);
}

}  // namespace onnxpress::testing
