// Which units go: by ratio, or until a budget is met.
//
//   scope=local       every group loses its share
//   scope=global      all groups compete by score over the mean of the group; max_ratio and min_keep guard each
//   scope=isomorphic  groups built alike compete (Fang et al., "Isomorphic Pruning", arXiv 2407.04616)
//
// What is left of a group's channels (units x width) then becomes the nearest multiple of round_to, the smaller one
// when two are as near; units that are wider than that are counted by themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "depend/dependency.h"
#include "prune/structured.h"

namespace onnxpress {

// A group that units may be taken from.
struct Candidate {
  std::size_t units = 0;
  std::size_t original = 0;         // units before the first of several steps: shares are of these
  std::size_t width = 1;            // channels per unit
  std::vector<double> scores = {};  // of the units
  std::string pattern = {};         // groups with the same one are built alike
  bool frozen = false;              // nothing goes
};

struct SelectionRules {
  StructuredOptions::Scope scope = StructuredOptions::Scope::local;
  std::int64_t round_to = 16;
  double max_ratio = 0.9;
  std::int64_t min_keep = 1;
};

using Counts = std::vector<std::size_t>;  // units of each candidate

class UnitSelection {
 public:
  UnitSelection(std::vector<Candidate> candidates, SelectionRules rules);

  // How many units each candidate keeps; more never come back as the ratio grows.
  Counts kept(double ratio) const;

  struct Reached {
    Counts kept;
    bool met = true;  // false: even as much as the guards allow is not enough
  };
  // The least that meets the budget: load(kept) <= 1, where `load` never grows when less is kept. First the smallest
  // ratio that meets it, then whatever can be given back of the last step, the most important for its load first.
  Reached kept_within(const std::function<double(const Counts& kept)>& load) const;

  // The units of least score, all but `kept`; of equal scores the first. Ascending.
  Indices removed(std::size_t candidate, std::size_t kept) const;
  // Why `ratio` takes nothing from the candidate: guards, rounding or scores.
  std::string why_whole(std::size_t candidate, double ratio) const;

  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  std::size_t step(const Candidate& candidate) const;   // units that make a multiple of round_to
  std::size_t least(const Candidate& candidate) const;  // that must stay
  std::size_t rounded(const Candidate& candidate, double kept) const;
  std::vector<double> wanted(double ratio) const;  // before rounding
  void compete(std::span<const std::size_t> members, double ratio, std::vector<double>& wanted) const;
  double importance(std::size_t candidate, std::size_t from, std::size_t to) const;

  std::vector<Candidate> candidates_;
  SelectionRules rules_;
  std::vector<std::vector<std::uint32_t>> order_;  // of each candidate: its units by ascending score
  std::vector<std::vector<std::size_t>> classes_;  // candidates that compete; empty with scope=local
};

}  // namespace onnxpress
