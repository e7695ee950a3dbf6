#include "sparse/sparse_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "calib/levels.h"
#include "ir/edit.h"
#include "num/select.h"

namespace onnxpress {
namespace {

bool all_finite(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double v) { return std::isfinite(v); });
}

// The bias as it stands in the file so that the node adds `rows.bias`; nullopt when it does not fit the type.
Result<std::optional<Tensor>> stored_bias(const SparseLayer& layer, const LayerRows& old, const LayerRows& rows) {
  std::vector<double> values = rows.bias;
  Dims dims = {1};
  if (const auto type = layer.node().graph().constant_type(layer.linear.bias()); type && !type->second.empty())
    dims = type->second;
  dims.back() = static_cast<std::int64_t>(values.size());
  if (layer.node().is("MatMul")) {
    OP_LET(const std::vector<double> added, read_bias(layer.linear));
    for (std::size_t c = 0; c < values.size(); ++c) values[c] += added[c] - old.bias[c];
  } else if (layer.node().is("Gemm")) {
    for (double& value : values) value /= layer.linear.beta;
  }
  return from_doubles(values, layer.linear.dtype, std::move(dims));
}

}  // namespace

OrReason<SparseLayer> find_sparse_layer(const Node& node) {
  const Graph& graph = node.graph();
  if (graph.kind() != Graph::Kind::main) return no("it is inside a body or function");
  if (graph.is_constant(node.input(0))) return no("its input is constant");
  auto linear = changeable_linear(node);
  if (!linear) return no(linear.error());
  SparseLayer layer{.linear = std::move(*linear), .shape = {}};
  layer.shape = patch_shape(node, layer.linear.dims);
  if (node.is("MatMul"))
    layer.can_shift = static_cast<bool>(layer.linear.bias_node);
  else
    layer.can_shift =
        node.is("Conv") || (layer.linear.beta != 0 && (!layer.linear.bias().empty() || graph.model().opset() >= 11));
  return layer;
}

std::vector<std::vector<SparseLayer>> sparse_levels(const Model& model, PassContext& context,
                                                    std::span<const std::string> ops, const SparsityTarget& target,
                                                    bool sequential) {
  std::vector<std::pair<Node, SparseLayer>> found;
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes()) {
      const auto named = [&](const std::string& op) { return node.is(op); };
      if (std::ranges::none_of(ops, named) || !context.selected(node)) continue;
      auto layer = find_sparse_layer(node);
      if (layer) layer->share = target.layers.of(node);
      if (!layer)
        context.skipped(node, layer.error());
      else if (layer->size() < static_cast<std::uint64_t>(target.min_elements))
        context.skipped(node, fmt::format("its weight has {} elements, fewer than min_elements={}", layer->size(),
                                          target.min_elements));
      else if (layer->share == 0.0)
        context.skipped(node, "layers= leaves it");
      else
        found.emplace_back(node, std::move(*layer));
    }
  if (!target.ends) {
    if (!found.empty()) context.skipped(found.front().first, "ends=false: it is the first layer");
    if (found.size() > 1) context.skipped(found.back().first, "ends=false: it is the last layer");
    if (!found.empty()) found.erase(found.begin());
    if (!found.empty()) found.pop_back();
  }
  std::unordered_map<const void*, SparseLayer*> by_node;
  for (auto& [node, layer] : found) by_node.emplace(node.proto(), &layer);
  std::vector<std::vector<SparseLayer>> levels;
  const auto is_layer = [&](const Node& node) { return by_node.contains(node.proto()); };
  for (const std::vector<Node>& nodes : node_levels(model, is_layer, sequential)) {
    levels.emplace_back();
    for (const Node& node : nodes) levels.back().push_back(std::move(*by_node.at(node.proto())));
  }
  return levels;
}

Result<LayerRows> read_rows(const SparseLayer& layer) {
  LayerRows rows;
  OP_LET(rows.weight, read_weight_rows(layer.linear));
  rows.bias.assign(layer.shape.outputs, 0.0);
  if (!layer.node().is("MatMul")) {
    OP_LET(rows.bias, read_bias(layer.linear));
  }
  if (!all_finite(rows.weight) || !all_finite(rows.bias))
    return fail(Code::bad_input, "node '{}' has a weight or bias that is not finite", layer.node().label());
  return rows;
}

std::uint64_t zeros_of(const LayerRows& rows) {
  return static_cast<std::uint64_t>(std::ranges::count(rows.weight, 0.0));
}

bool sparse_enough(const SparseLayer& layer, const LayerRows& rows, double share, const NmPattern& pattern) {
  if (!pattern.given()) return zeros_of(rows) >= fraction_of(share, layer.size());
  std::vector<double> scores(rows.weight.size());
  std::ranges::transform(rows.weight, scores.begin(), [](double w) { return std::abs(w); });
  keep_pattern(scores, layer.shape.length, pattern);
  return static_cast<std::uint64_t>(std::ranges::count(scores, 0.0)) == zeros_of(rows);
}

std::string sparsity_change(const SparseLayer& layer, const LayerRows& before, const LayerRows& after) {
  const auto percent = 100 * static_cast<double>(zeros_of(before)) / static_cast<double>(layer.size());
  return fmt::format("weight '{}' {}: sparsity {:.2f} -> {}", layer.node().input(1), dims_text(layer.linear.dims),
                     percent, sparsity_text(zeros_of(after), layer.size()));
}

Result<bool> write_rows(const SparseLayer& layer, const LayerRows& old, const LayerRows& rows, Rewriter& rewriter) {
  OP_LET(auto weight, weight_of_rows(layer.linear, rows.weight));
  if (!weight) return false;
  std::optional<Tensor> bias;
  if (layer.can_shift && rows.bias != old.bias) {
    OP_LET(bias, stored_bias(layer, old, rows));
    if (!bias) return false;
  }
  const std::string name(layer.node().input(1));
  const Initializer initializer = layer.node().graph().initializer(name);
  if (initializer)
    rewriter.set_initializer(initializer, std::move(*weight));
  else
    rewriter.set_attribute(layer.node().graph().producer(name), "value", std::move(*weight));
  if (bias)
    set_constant(rewriter, layer.linear.bias_node ? layer.linear.bias_node : layer.node(), layer.linear.bias_slot,
                 std::move(*bias), layer.output() + "_bias");
  return true;
}

}  // namespace onnxpress
