// The parts of DependencyGraph: what one analysis leaves, and what is read from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "depend/dependency.h"
#include "depend/scope.h"
#include "depend/ties.h"

namespace onnxpress {

// The way from every fixed atom to the nearest thing that fixes it.
class FixedPaths {
 public:
  FixedPaths(const Scope& scope, const Ties& ties);

  static constexpr std::uint32_t kFar = 0xffffffff;
  std::uint32_t distance(Atoms::Atom atom) const { return distance_[atom]; }  // kFar for atoms that are not fixed
  // The nearest fixed atom of the axis; kNone when none is.
  Atoms::Atom nearest(Axis axis) const;
  std::string reason(Atoms::Atom atom) const;
  std::vector<std::string> path(Atoms::Atom atom) const;

 private:
  Atoms::Atom end(Atoms::Atom atom) const;

  const Scope& scope_;
  const Ties& ties_;
  std::vector<std::uint32_t> distance_;
  std::vector<std::uint32_t> by_;  // the tie that leads nearer, by atom
};

struct Groups {
  std::vector<UnitGroup> groups;
  std::vector<std::uint32_t> group_of;  // by root atom: its group, or kNone
};
Groups extract_groups(const Scope& scope, const Ties& ties);

struct DependencyGraph::Impl {
  Impl(const Graph& graph, const DependencyOptions& options) : scope(graph), ties(scope, options) {}

  Status analyze();  // the rounds

  Scope scope;
  Ties ties;
  Groups groups;
  std::vector<BlockedAxis> blocked;

 private:
  Status round();
};

std::vector<BlockedAxis> find_blocked(const Scope& scope, const Ties& ties, const FixedPaths& paths);

}  // namespace onnxpress
