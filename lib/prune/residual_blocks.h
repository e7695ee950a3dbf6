// The residual blocks of a network, and their removal: depth pruning.
//
//        x ─┬─► F ─► y ─┬► Add ─► out ─► next        =>        x ─► next
//           └───────────┘
//
// F is whatever the network computes between x and y: attention or an MLP with its norm (pre-norm), convolutions and
// their activations, gates (LayerScale, squeeze and excite). Behind the Add everything stays as it is: the Relu of a
// ResNet, the LayerNormalization of a post-norm transformer then read x.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"

namespace onnxpress {

struct ResidualBlock {
  Node add;                  // Add, or Sum of two
  std::size_t shortcut = 0;  // its input slot that reads x; x is add.input(shortcut)
  std::vector<Node> nodes;   // F: what nothing else needs, in graph order
  bool same_shape = false;   // x is known to have the shape of out; else it may have, as far as types tell
  bool mixes = false;        // F lets positions exchange information: two computed operands of a MatMul, a Softmax, ...
};

// An Add that joins two computed values and is no block.
struct RefusedAdd {
  Node add;
  std::string reason;
};

struct ResidualBlocks {
  std::vector<ResidualBlock> blocks;  // in graph order
  std::vector<RefusedAdd> refused;    // residual connections, and Adds of two branches with layers
};

// F is entered at x alone: of other values it may read constants and what no layer with a weight has computed (masks,
// position tables, sizes) as long as something else reads it too. No value of F is read outside or returned, and F
// holds no node with a body or of an unknown domain. x may have the shape of out.
ResidualBlocks find_residual_blocks(const Graph& graph);

// Blocks that make up one layer of a transformer: attention (or several) and the MLP behind it, each of which adds to
// the one before, whatever norm is between them. Any other block is a layer by itself. Positions in `blocks`.
std::vector<std::vector<std::size_t>> residual_layers(const std::vector<ResidualBlock>& blocks);

// Takes the block out of its graph: the readers of out read x. An output of the graph keeps its name behind an
// Identity. Nodes and constants that nothing needs any more go with it. The block is one of find_residual_blocks(), or
// was before others of the list that do not overlap with it were removed.
Status remove_residual_block(const ResidualBlock& block);

}  // namespace onnxpress
