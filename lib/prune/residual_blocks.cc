#include "prune/residual_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ranges>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "ir/edit.h"
#include "ir/rewriter.h"

namespace onnxpress {
namespace {

using NodeSet = std::unordered_set<const onnx::NodeProto*>;

bool known_domain(const Node& node) {
  constexpr std::array<std::string_view, 3> kKnown = {"", "ai.onnx.ml", "com.microsoft"};
  return std::ranges::contains(kKnown, node.domain());
}

// Whether the result depends on the sizes of the input alone.
bool reads_sizes_only(const Node& node) { return node.is("Shape") || node.is("Size"); }

// More than a vector with axes of size 1: what a layer learns, unlike the frequencies of a position encoding.
bool is_matrix(const Graph& graph, std::string_view value) {
  const auto type = graph.constant_type(value);
  return type && std::ranges::count_if(type->second, [](std::int64_t dim) { return dim > 1; }) > 1;
}

bool has_weights(const Node& node) {
  constexpr std::array<std::string_view, 6> kLayers = {"Conv", "ConvTranspose", "Gemm", "LSTM", "GRU", "RNN"};
  if (!node.domain().empty() || node.has_subgraph()) return true;
  if (std::ranges::contains(kLayers, node.op())) return true;
  if (!node.is("MatMul") && !node.is("Einsum")) return false;
  return std::ranges::any_of(node.inputs(), [&](const auto& value) { return is_matrix(node.graph(), value); });
}

bool mixes_positions(const Node& node) {
  if (node.is("Softmax") || node.op().contains("Attention")) return true;
  if (!node.is("MatMul")) return false;
  return !node.graph().is_constant(node.input(0)) && !node.graph().is_constant(node.input(1));
}

enum class Fit { same, possible, no };

// Whether x can stand for a value of this type.
Fit fit_of(const ValueType& x, const ValueType& out) {
  if (!x.shape || !out.shape) return Fit::possible;
  if (x.shape->size() != out.shape->size()) return Fit::no;
  Fit fit = Fit::same;
  for (std::size_t axis = 0; axis < x.shape->size(); ++axis) {
    const Dim &a = (*x.shape)[axis], &b = (*out.shape)[axis];
    if (a.value && b.value && a.value != b.value) return Fit::no;
    const bool same = a == b && (a.value || !a.symbol.empty());
    if (!same) fit = Fit::possible;
  }
  return fit;
}

std::string shape_text(const ValueType& type) {
  if (!type.shape) return "?";
  std::string text = "[";
  for (const Dim& dim : *type.shape) {
    if (text.size() > 1) text += ", ";
    text += dim.value ? std::to_string(*dim.value) : dim.symbol.empty() ? "?" : dim.symbol;
  }
  return text + "]";
}

class Finder {
 public:
  explicit Finder(const Graph& graph) : graph_(graph), nodes_(graph.nodes()) {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      const Node& node = nodes_[i];
      position_[node.proto()] = i;
      bool live = false, computed = false;
      for (const std::string& input : node.inputs()) {
        live = live || graph.is_input(input) || live_.contains(input);
        computed = computed || computed_.contains(input);
      }
      if (reads_sizes_only(node)) continue;
      for (const std::string& output : node.outputs()) {
        if (live) live_.insert(output);
        if (computed || (live && has_weights(node))) computed_.insert(output);
      }
    }
  }

  ResidualBlocks find() const {
    ResidualBlocks found;
    for (const Node& add : nodes_) {
      if (!(add.is("Add") || add.is("Sum")) || add.input_count() != 2 || add.input(0) == add.input(1)) continue;
      if (!live_.contains(std::string(add.input(0))) && !graph_.is_input(add.input(0))) continue;
      if (!live_.contains(std::string(add.input(1))) && !graph_.is_input(add.input(1))) continue;
      bool residual = false;
      for (const std::size_t shortcut : {0UZ, 1UZ}) {
        NodeSet inside = between(add.input(shortcut), add.input(1 - shortcut));
        if (inside.empty()) continue;
        residual = true;
        // Without a layer in it, it is part of an activation: x + 0.044715 x^3 of a Gelu.
        if (std::ranges::none_of(nodes_, [&](const Node& n) { return inside.contains(n.proto()) && has_weights(n); }))
          continue;
        ResidualBlock block{.add = add, .shortcut = shortcut, .nodes = {}};
        std::string reason = examine(block, std::move(inside));
        if (reason.empty())
          found.blocks.push_back(std::move(block));
        else if (computed_.contains(std::string(add.input(shortcut))) || block.same_shape)
          found.refused.push_back({add, std::move(reason)});  // else a mask, or another thing that is added
      }
      if (!residual && (joins_branches(add.input(0), add.input(1)) || joins_branches(add.input(1), add.input(0))))
        found.refused.push_back({add, "neither operand is computed from the other"});
    }
    return found;
  }

 private:
  // The nodes on the paths from x to y, on which more than sizes is handed on.
  NodeSet between(std::string_view x, std::string_view y) const {
    const Node first = graph_.producer(x), last = graph_.producer(y);
    if (!last) return {};
    const std::size_t begin = first ? position_.at(first.proto()) + 1 : 0, end = position_.at(last.proto()) + 1;
    std::unordered_set<std::string_view> from_x = {x};
    for (std::size_t i = begin; i < end; ++i) {
      const Node& node = nodes_[i];
      if (reads_sizes_only(node) || !reads_any(node, from_x)) continue;
      for (std::size_t k = 0; k < node.output_count(); ++k)
        if (!node.output(k).empty()) from_x.insert(node.output(k));
    }
    if (!from_x.contains(y)) return {};
    NodeSet inside;
    std::unordered_set<std::string_view> to_y = {y};
    for (std::size_t i = end; i-- > begin;) {
      const Node& node = nodes_[i];
      if (!makes_any(node, to_y) || !makes_any(node, from_x)) continue;
      inside.insert(node.proto());
      for (std::size_t k = 0; k < node.input_count(); ++k)
        if (node.input(k) != x) to_y.insert(node.input(k));
    }
    return inside;
  }

  static bool reads_any(const Node& node, const std::unordered_set<std::string_view>& values) {
    for (std::size_t k = 0; k < node.input_count(); ++k)
      if (values.contains(node.input(k))) return true;
    return false;
  }
  static bool makes_any(const Node& node, const std::unordered_set<std::string_view>& values) {
    for (std::size_t k = 0; k < node.output_count(); ++k)
      if (values.contains(node.output(k))) return true;
    return false;
  }

  // Nodes that only serve those inside come along, and nodes that nobody reads but which read them.
  void take_servants(NodeSet& inside) const {
    for (const Node& node : nodes_ | std::views::reverse) {
      if (inside.contains(node.proto())) continue;
      bool serves = false, others = false;
      for (const std::string& output : node.outputs()) {
        others = others || graph_.is_output(output);
        for (const Use& use : graph_.uses(output)) (is_inside(use, inside) ? serves : others) = true;
      }
      const bool unread = !serves && std::ranges::any_of(node.inputs(), [&](const std::string& input) {
        const Node producer = graph_.producer(input);
        return producer && inside.contains(producer.proto());
      });
      if (!others && (serves || unread)) inside.insert(node.proto());
    }
  }

  static bool is_inside(const Use& use, const NodeSet& inside) {
    return use.node && !use.captured && inside.contains(use.node.proto());
  }

  // Fills the block, or says why it is none.
  std::string examine(ResidualBlock& block, NodeSet inside) const {
    const std::string x(block.add.input(block.shortcut));
    take_servants(inside);
    const ValueType in = graph_.type(x), out = graph_.type(block.add.output(0));
    const Fit fit = fit_of(in, out);
    if (fit == Fit::no)
      return fmt::format("'{}' has the shape {}, its sum with what is computed from it {}", x, shape_text(in),
                         shape_text(out));
    block.same_shape = fit == Fit::same;
    for (const Node& node : nodes_) {
      if (!inside.contains(node.proto())) continue;
      if (std::string reason = outside_reader(node, block.add, inside); !reason.empty()) return reason;
      if (std::string reason = foreign_input(node, x, inside); !reason.empty()) return reason;
      if (node.has_subgraph()) return fmt::format("it holds '{}', a node with a body", node.label());
      if (!known_domain(node))
        return fmt::format("it holds '{}' of domain '{}', which may have side effects", node.label(), node.domain());
      block.nodes.push_back(node);
      block.mixes = block.mixes || mixes_positions(node);
    }
    return {};
  }

  std::string outside_reader(const Node& node, const Node& add, const NodeSet& inside) const {
    for (const std::string& output : node.outputs()) {
      if (output.empty()) continue;
      if (graph_.is_output(output)) return fmt::format("it holds '{}', an output of the graph", output);
      for (const Use& use : graph_.uses(output)) {
        if (is_inside(use, inside) || use.node == add) continue;
        return fmt::format("it holds '{}', which {} reads too", output,
                           use.node ? "'" + use.node.label() + "'" : std::string("a body"));
      }
    }
    return {};
  }

  std::string foreign_input(const Node& node, const std::string& x, const NodeSet& inside) const {
    for (const std::string& input : node.inputs()) {
      if (input.empty() || input == x || graph_.is_constant(input)) continue;
      const Node producer = graph_.producer(input);
      if (producer && inside.contains(producer.proto())) continue;
      if (computed_.contains(input)) return fmt::format("it also reads '{}', which other layers compute", input);
      const bool shared =
          std::ranges::any_of(graph_.uses(input), [&](const Use& use) { return !is_inside(use, inside); });
      if (!shared) return fmt::format("it reads '{}', which nothing else reads", input);
    }
    return {};
  }

  bool joins_branches(std::string_view a, std::string_view b) const {
    return is_layer_output(a) && computed_.contains(std::string(b));
  }
  // Made by a layer with weights, but for what follows one as a part of it.
  bool is_layer_output(std::string_view value) const {
    Node node = graph_.producer(value);
    while (node && (node.is("BatchNormalization") || node.is("Identity") || is_bias_add(node)))
      node = graph_.producer(node.input(node.is("Add") && graph_.is_constant(node.input(0)) ? 1 : 0));
    return node && has_weights(node) && live_.contains(std::string(node.output(0)));
  }
  bool is_bias_add(const Node& node) const {
    return node.is("Add") && (graph_.is_constant(node.input(0)) || graph_.is_constant(node.input(1)));
  }

  const Graph& graph_;
  const std::vector<Node>& nodes_;
  std::unordered_map<const onnx::NodeProto*, std::size_t> position_;
  std::unordered_set<std::string> live_;      // depends on inputs of the graph, on more than their sizes
  std::unordered_set<std::string> computed_;  // ... and on layers with weights
};

// Whether x is `before`, or made from it without any layer: a norm, as one node or in pieces.
bool is_normed(const Graph& graph, std::string_view x, std::string_view before) {
  std::vector<std::string> todo = {std::string(x)};
  std::set<std::string> seen;
  bool found = false;
  while (!todo.empty()) {
    const std::string value = std::move(todo.back());
    todo.pop_back();
    if (value.empty() || !seen.insert(value).second || graph.is_constant(value)) continue;
    const Node producer = graph.producer(value);
    found = found || value == before;
    if (value == before) continue;
    if (!producer || has_weights(producer) || mixes_positions(producer)) return false;
    for (std::string& input : producer.inputs()) todo.push_back(std::move(input));
  }
  return found;
}

}  // namespace

ResidualBlocks find_residual_blocks(const Graph& graph) { return Finder(graph).find(); }

std::vector<std::vector<std::size_t>> residual_layers(const std::vector<ResidualBlock>& blocks) {
  std::vector<std::vector<std::size_t>> layers;
  std::vector<std::size_t> open;  // blocks that mix, each behind the one before
  const auto follows = [&](const ResidualBlock& block) {
    return is_normed(block.add.graph(), block.add.input(block.shortcut), blocks[open.back()].add.output(0));
  };
  const auto flush = [&] {
    for (const std::size_t block : open) layers.push_back({block});
    open.clear();
  };
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!open.empty() && !follows(blocks[i])) flush();
    const bool closes = !blocks[i].mixes && !open.empty();
    open.push_back(i);
    if (closes) {
      layers.push_back(open);
      open.clear();
    } else if (!blocks[i].mixes) {
      flush();
    }
  }
  flush();
  return layers;
}

Status remove_residual_block(const ResidualBlock& block) {
  Graph& graph = block.add.graph();
  const std::string x(block.add.input(block.shortcut));
  NodeSet gone;
  for (const Node& node : block.nodes) gone.insert(node.proto());
  Rewriter rewriter(graph);
  if (rewriter.replace_uses(block.add.output(0), x)) {
    gone.insert(block.add.proto());
  } else {
    rewriter.set_op(block.add, "Identity");
    rewriter.set_input(block.add, 0, x);
    rewriter.remove_last_inputs(block.add, 1);
  }
  const auto erased = [&](const Use& use) {
    return use.node && (gone.contains(use.node.proto()) || (use.node == block.add && use.slot != block.shortcut));
  };
  // What only the block has read, and what only that has read.
  std::unordered_set<std::string_view> starved;
  const auto starves = [&](const Node& node) {
    if (!known_domain(node) || node.has_subgraph()) return false;
    bool fed = false;
    for (std::size_t i = 0; i < node.output_count(); ++i) {
      if (node.output(i) == x || graph.is_output(node.output(i))) return false;
      if (!std::ranges::all_of(graph.uses(node.output(i)), erased)) return false;
      fed = fed || starved.contains(node.output(i));
    }
    return fed;
  };
  std::set<std::string> constants;
  for (const Node& node : graph.nodes() | std::views::reverse) {
    if (!gone.contains(node.proto()) && !starves(node)) continue;
    gone.insert(node.proto());
    for (std::size_t i = 0; i < node.input_count(); ++i) {
      starved.insert(node.input(i));
      if (graph.initializer(node.input(i))) constants.emplace(node.input(i));
    }
    for (const std::string& output : node.outputs()) rewriter.forget_type(output);
    rewriter.erase(node);
  }
  for (const std::string& constant : constants)
    if (is_private_constant(graph, constant, erased)) drop_constant(rewriter, graph, constant);
  OP_TRY(rewriter.commit());
  return {};
}

}  // namespace onnxpress
