// Conv, Gemm and MatMul layers of the main graph as rows of weights, one for each output channel: what passes work on
// that zero weights by what the layers read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "calib/gram.h"
#include "pass/linear.h"
#include "pass/pass.h"
#include "sparse/sparsity.h"

namespace onnxpress {

struct SparseLayer {
  Linear linear;
  PatchShape shape;
  std::optional<double> share = {};  // of layers=; none: what all others get
  bool can_shift = false;            // a bias can be written

  const Node& node() const { return linear.node; }
  std::string input() const { return std::string(linear.node.input(0)); }
  std::string output() const { return std::string(linear.node.output(0)); }
  std::uint64_t size() const { return std::uint64_t{shape.outputs} * shape.length; }
};

// Why this node is no such layer: its weight is no float matrix or kernel that it alone reads, it is in a body or
// function, its bias is odd.
OrReason<SparseLayer> find_sparse_layer(const Node& node);

// The layers of selected nodes with one of these ops that `target` does not leave out, by levels (lib/calib/levels.h).
// What is left out is journaled with the reason.
std::vector<std::vector<SparseLayer>> sparse_levels(const Model& model, PassContext& context,
                                                    std::span<const std::string> ops, const SparsityTarget& target,
                                                    bool sequential);

// The numbers of a layer.
struct LayerRows {
  std::vector<double> weight;  // [outputs, length], alpha of a Gemm included
  std::vector<double> bias;    // [outputs], as the node itself adds it: zeros for a MatMul
};
// Errors: io; bad_input when a number is not finite.
Result<LayerRows> read_rows(const SparseLayer& layer);
std::uint64_t zeros_of(const LayerRows& rows);
// Whether the zeros there are suffice for the share, or for the pattern when one is given.
bool sparse_enough(const SparseLayer& layer, const LayerRows& rows, double share, const NmPattern& pattern);
// "weight 'w' [64, 32, 3, 3]: sparsity 0.00 -> 50.00 %"
std::string sparsity_change(const SparseLayer& layer, const LayerRows& before, const LayerRows& after);

// Writes the weight, and the bias where it differs from `old`'s: what other nodes read as well is not changed, the
// layer gets its own. False when the numbers do not fit the weight's type; nothing is written then.
Result<bool> write_rows(const SparseLayer& layer, const LayerRows& old, const LayerRows& rows, Rewriter& rewriter);

}  // namespace onnxpress
