// Which slices of which tensors have to go together when a network gets narrower: the dependency graph that all
// structured pruning stands on.
//
//   x ─► Conv(W1) ─► BatchNorm(g) ─► Relu ─► Add ─► Conv(W2) ─► y        channel c of W1's outputs is one unit with
//          W1[c,:]       g[c]                 ▲         W2[:,c]           g[c], W2[:,c] and whatever the residual
//                    Conv(W3) ────────────────┘  W3[c,:]                  connection ties to it: W3[c,:]
//
// Every index of every axis of every tensor (value, or constant as one node reads it) is an atom of one union-find. A
// rule for each operator unites the atoms that stand and fall together (rules_*.cc, all after section 3.2 of the
// reference); atoms that must stay (graph inputs and outputs, softmax axes, operators without a rule, ...) are united
// with FIXED. Classes without FIXED are units; units with the same footprint - the same axes, equally many indices of
// each - form a group, in which they compete. Flatten and unflatten (Reshape) tie a*B+b to a or to b, whichever leaves
// something to prune. Grouped convolutions lose whole blocks, or the same position in each block.
// Source: Fang et al., "DepGraph: Towards Any Structural Pruning" (arXiv 2301.12900), with atoms instead of its index
// mappings.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "depend/axes.h"
#include "ir/model.h"

namespace onnxpress {

// What part an axis plays, for scores: does it hold what makes the unit, or what reads it?
enum class AxisRole {
  produces,  // output channels of a linear op's weight: Conv W.0, MatMul B.-1, rows of W and R of an LSTM
  consumes,  // the reduction axis of a linear op's weight: Conv W.1, MatMul B.-2
  bias,      // of a linear op
  scales,    // scale of a normalization; the other parameters of one are `follows`
  follows,   // any other constant that has to be cut along
  value,     // a computed tensor: nothing to cut, but its shape changes
};

struct GroupMember {
  TensorRef tensor;
  std::size_t axis = 0;
  AxisRole role = AxisRole::value;
  std::size_t per_unit = 1;  // indices of the axis that a unit owns
  Indices indices = {};      // [units, per_unit], ascending within a unit
};

enum class UnitKind {
  channels,  // at least one Conv or ConvTranspose makes or reads the units
  neurons,   // made and read by MatMul and Gemm (feed-forward width and the like)
  heads,     // attention heads, or the query heads that share one key/value head
  hidden,    // of LSTM, GRU, RNN
  other,
};
const char* unit_kind_name(UnitKind kind);

struct UnitGroup {
  std::string name;  // label of the first node that makes its units: "/layer1/layer1.0/conv1/Conv"
  UnitKind kind = UnitKind::other;
  std::size_t units = 0;
  std::size_t width = 0;    // channels a unit stands for: the most indices it owns on one produced axis
  std::string approximate;  // why removing a unit is not the same as zeroing it (a norm over the axis); "" when it is
  std::vector<GroupMember> members;  // constants in graph order, then values in graph order
};

// A weight axis of a linear op on which nothing, or not everything, can be removed.
struct BlockedAxis {
  Node node;
  TensorRef tensor;
  std::size_t axis = 0;
  std::size_t size = 0, blocked = 0;  // indices
  std::string reason;                 // of the nearest thing that fixes it: "Softmax over this axis"
  std::vector<std::string> path;      // from the axis to that, one step each
};

struct DependencyOptions {
  // Axes that a LayerNormalization and its kin normalize over: removing a unit changes the statistics. Off, such axes
  // are fixed; the residual stream of a transformer is one.
  bool allow_normalized = false;
  // Asked for every node with a weight: why its units must stay ("" = they may go). Null: all may go.
  std::function<std::string(const Node& node)> refusal = {};
};

class DependencyGraph {
 public:
  // Reads one scope: the main graph, or a body (whose inputs, outputs and captured values are fixed). Nothing is run
  // and no weight is read except literals (shapes, indices). Values of unknown rank, and axes of unknown size, are
  // fixed. Errors: io, bad_input (a literal that cannot be read).
  static Result<DependencyGraph> analyze(const Graph& graph, const DependencyOptions& options = {});
  ~DependencyGraph();
  DependencyGraph(DependencyGraph&&) noexcept;
  DependencyGraph& operator=(DependencyGraph&&) noexcept;

  const std::vector<UnitGroup>& groups() const;     // in graph order of their first member
  const std::vector<BlockedAxis>& blocked() const;  // in graph order
  std::size_t atoms() const;
  std::size_t size(const TensorRef& tensor, std::size_t axis) const;  // of the axis, in the graph as analyzed

  // For people: what the units of the weights of this node are, which group they are in, what else it ties, or the path
  // to what fixes them. One line each.
  std::vector<std::string> explain(const Node& node) const;

 private:
  struct Impl;
  explicit DependencyGraph(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Units to remove: for each group of groups() its units, ascending; shorter than groups() means none of the rest.
using Removal = std::vector<Indices>;

// What that leaves of every axis of every tensor.
KeptAxes kept_axes(const DependencyGraph& dependencies, const Removal& removal);

}  // namespace onnxpress
