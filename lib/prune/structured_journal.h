// What structured pruning has to say about groups: which nodes they are of, what was done to them, why not.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "depend/dependency.h"
#include "pass/pass.h"

namespace onnxpress {

// "channels", "neurons", ..., or "units"; with their width when they stand for several channels: "heads of 64".
std::string unit_words(const UnitGroup& group);

// Nodes whose constants hold what makes the units (any of its constants when none makes them), and what reads them.
struct GroupNodes {
  std::vector<Node> makers, readers;
};
GroupNodes group_nodes(const UnitGroup& group, const Graph& graph);

// Units that a residual addition ties together: an Add or Sum of several computed values that all carry them.
bool is_residual_stream(const UnitGroup& group, const Graph& graph);

// Kind of op and role of every constant member, sorted: groups built alike have the same.
std::string group_pattern(const UnitGroup& group, const Graph& graph);

// What is to be said of nodes that lose units, collected until it is sure: one line per group for what makes units, one
// for all that a node reads.
class DoneLines {
 public:
  void add(const UnitGroup& group, const Graph& graph, std::size_t kept);
  bool empty() const { return makers_.empty() && readers_.empty(); }
  void journal(PassContext& context) const;

 private:
  struct Reads {
    Node node;
    std::size_t groups = 0, kept = 0, units = 0;
    std::string words, group;  // of the first
  };
  std::vector<std::pair<Node, std::string>> makers_;
  std::vector<Reads> readers_;
};
// "blocked by ..." for every weight axis that has to stay.
void journal_blocked(const DependencyGraph& dependencies, PassContext& context);
void journal_whole(const UnitGroup& group, const Graph& graph, const std::string& why, PassContext& context);

}  // namespace onnxpress
