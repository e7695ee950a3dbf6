// Numbers in nodes that name sizes or positions of axes, rewritten for what is left of these axes.
//
//   Reshape(x, [0, 12, 64])  =>  Reshape(x, [0, 9, 64])       Conv(group=32)  =>  Conv(group=24)
//
// One patcher per operator; it works from the node, the old dims and what its inputs and outputs keep. Another family
// of operators is a file with a table and a line in literals.cc.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "depend/axes.h"
#include "depend/sizes.h"
#include "ir/rewriter.h"

namespace onnxpress {

// What has to change in one node besides the constants that are cut.
struct NodeEdits {
  std::map<std::size_t, Tensor> literals = {};  // new constants, by input
  // Input `first` is made by a Concat whose input `second` gets a new constant.
  std::map<std::pair<std::size_t, std::size_t>, Tensor> parts = {};
  std::vector<std::pair<std::string, AttributeValue>> attributes = {};
  std::vector<std::string> removed_attributes = {};
  struct Selection {
    std::int64_t axis = 0;
    std::vector<std::int64_t> indices;
  };
  std::vector<Selection> selections = {};  // Gathers in front of the first input
  std::optional<Selection> gather = {};    // the node becomes this Gather of its first input
};

class NodePatch {
 public:
  // `sizes` are those of the graph before the cut.
  NodePatch(const Node& node, const KeptAxes& kept, const Sizes& sizes) : node_(node), kept_(kept), sizes_(sizes) {}

  const Node& node() const { return node_; }
  // The indices an axis keeps; null when it is whole.
  const Indices* in(std::size_t slot, std::size_t axis) const { return kept_.find(input_ref(node_, slot), axis); }
  const Indices* out(std::size_t slot, std::size_t axis) const { return kept_.find(output_ref(node_, slot), axis); }
  bool touches_in(std::size_t slot) const { return kept_.touches(input_ref(node_, slot)); }
  bool touches_out(std::size_t slot) const { return kept_.touches(output_ref(node_, slot)); }
  // Before the cut; none when not known.
  std::optional<std::size_t> rank_in(std::size_t slot) const { return rank(node_.input(slot)); }
  std::optional<std::size_t> rank_out(std::size_t slot) const { return rank(node_.output(slot)); }
  std::optional<std::int64_t> old_in(std::size_t slot, std::size_t axis) const { return dim(node_.input(slot), axis); }
  std::optional<std::int64_t> old_out(std::size_t slot, std::size_t axis) const {
    return dim(node_.output(slot), axis);
  }
  // After it.
  std::optional<std::int64_t> new_in(std::size_t slot, std::size_t axis) const {
    return left(in(slot, axis), old_in(slot, axis));
  }
  std::optional<std::int64_t> new_out(std::size_t slot, std::size_t axis) const {
    return left(out(slot, axis), old_out(slot, axis));
  }
  // The numbers of a constant input. None when the input is absent or computed. Errors: bad_input, io.
  Result<std::optional<std::vector<std::int64_t>>> literal(std::size_t slot) const;

  // Error unsupported with the label of the node.
  std::unexpected<Error> refuse(std::string_view reason) const;

  // A new constant in the type and shape the input has now; its length may be another. Nothing happens when the numbers
  // are those that are there.
  Status set_literal(std::size_t slot, const std::vector<std::int64_t>& numbers);
  // For an input that the node has no constant at (an attribute moves there, or there was nothing): int64 [n].
  void add_literal(std::size_t slot, const std::vector<std::int64_t>& numbers);
  void set_attribute(std::string key, AttributeValue value) {
    edits.attributes.emplace_back(std::move(key), std::move(value));
  }
  // Rewrites the numbers of a shape: a constant, or the constant parts of a Concat. `number` gives the new number for
  // position i, or nothing. What is computed from Shape() follows by itself.
  Status set_shape(std::size_t slot,
                   const std::function<std::optional<std::int64_t>(std::size_t i, std::int64_t old)>& number);

  NodeEdits edits;

 private:
  std::optional<std::size_t> rank(std::string_view value) const;
  std::optional<std::int64_t> dim(std::string_view value, std::size_t axis) const;
  static std::optional<std::int64_t> left(const Indices* kept, std::optional<std::int64_t> old) {
    return kept != nullptr ? std::optional(static_cast<std::int64_t>(kept->size())) : old;
  }

  Node node_;
  const KeptAxes& kept_;
  const Sizes& sizes_;
};

// Error unsupported: the literals of the node cannot express what is left.
using Patcher = Status (*)(NodePatch& patch);
struct OpPatcher {
  std::string_view domain, op;
  Patcher patcher;
};

// The tables of the families.
std::span<const OpPatcher> shape_patchers();      // Reshape, Expand, Tile, ConstantOfShape, Resize
std::span<const OpPatcher> select_patchers();     // Split, Slice, Gather, Pad
std::span<const OpPatcher> group_patchers();      // group, num_groups, hidden_size
std::span<const OpPatcher> attention_patchers();  // num_heads, kv_num_heads, qkv_hidden_sizes

// What the node needs so that it fits what is left of its inputs and outputs.
Result<NodeEdits> patch_node(const Node& node, const KeptAxes& kept, const Sizes& sizes);

// Positions of `kept` by index of the whole axis; -1 for what is gone.
std::vector<std::int64_t> positions_of(const Indices& kept, std::size_t size);

}  // namespace onnxpress
