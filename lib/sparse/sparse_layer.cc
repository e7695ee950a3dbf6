#include "sparse/sparse_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "calib/levels.h"
#include "num/select.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

// Attributes that do not fit the kernel; the checker may not have seen them.
std::string geometry_refusal(const Node& node, const Dims& dims) {
  if (!node.is("Conv")) return {};
  const std::size_t axes = dims.size() - 2;
  const auto fits = [&](std::string_view key, std::size_t count, std::int64_t least) {
    const auto values = node.attr_ints(key, std::vector<std::int64_t>(count, 1));
    return values.size() == count && std::ranges::all_of(values, [&](std::int64_t v) { return v >= least; });
  };
  if (!fits("strides", axes, 1) || !fits("dilations", axes, 1) || !fits("pads", 2 * axes, 0))
    return "its strides, dilations or pads do not fit its kernel";
  const auto kernel = node.attr_ints("kernel_shape", std::vector<std::int64_t>(dims.begin() + 2, dims.end()));
  return std::ranges::equal(kernel, std::span(dims).subspan(2)) ? "" : "its kernel_shape is not that of its weight";
}

// Place in the tensor of element k of a row.
std::size_t place(const SparseLayer& layer, std::size_t row, std::size_t k) {
  const bool rows_first = layer.linear.layout.rows_are_outputs;
  return rows_first ? row * layer.shape.length + k : k * layer.shape.outputs + row;
}

double alpha_of(const SparseLayer& layer) { return layer.node().is("Gemm") ? layer.linear.alpha : 1; }

bool all_finite(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double v) { return std::isfinite(v); });
}

// The constant that `reader` reads at `slot` becomes `value`; others that read it keep theirs.
void set_constant(const Node& reader, std::size_t slot, Tensor value, Rewriter& rewriter) {
  const Graph& graph = reader.graph();
  const std::string name(reader.input(slot));
  const Use use{reader, slot, false};
  const Initializer initializer = graph.initializer(name);
  if (initializer && foreign_reader(graph, name, std::span(&use, 1)).empty()) {
    rewriter.set_initializer(initializer, std::move(value));
    return;
  }
  const std::string fresh =
      rewriter.fresh_value(name.empty() ? std::string(reader.output(0)) + "_bias" : name + "_repaired");
  rewriter.add_initializer(fresh, std::move(value));
  rewriter.set_input(reader, slot, fresh);
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
  if (!node.is("Conv") && !node.is("Gemm") && !node.is("MatMul")) return no("only Conv, Gemm and MatMul are looked at");
  if (node.is("Gemm") && node.attr_int("transA", 0) != 0) return no("transA");
  if (!graph.is_constant(node.input(1))) return no(not_constant_reason(node, 1));
  const Use use{node, 1, false};
  if (const std::string reason = foreign_reader(graph, node.input(1), std::span(&use, 1)); !reason.empty())
    return no(reason);
  if (graph.is_constant(node.input(0))) return no("its input is constant");
  auto linear = describe_linear(node, node.is("MatMul") ? add_after(node) : Node());
  // The Add behind a MatMul may be no bias.
  if (!linear && node.is("MatMul")) linear = describe_linear(node, {});
  if (!linear) return no(linear.error());
  if (const std::string reason = geometry_refusal(node, linear->dims); !reason.empty()) return no(reason);
  SparseLayer layer{.linear = std::move(*linear), .shape = {}};
  layer.shape = patch_shape(node, layer.linear.dims);
  if (node.is("Gemm") && (layer.linear.alpha == 0 || !std::isfinite(layer.linear.alpha))) return no("its alpha is 0");
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
  const Graph& graph = layer.node().graph();
  OP_LET(const auto tensor, graph.constant(layer.node().input(1)));
  OP_LET(const std::vector<double> values, to_doubles(tensor->view()));
  LayerRows rows;
  rows.weight.resize(values.size());
  for (std::size_t c = 0; c < layer.shape.outputs; ++c)
    for (std::size_t k = 0; k < layer.shape.length; ++k)
      rows.weight[c * layer.shape.length + k] = alpha_of(layer) * values[place(layer, c, k)];
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
  std::vector<double> values(rows.weight.size());
  for (std::size_t c = 0; c < layer.shape.outputs; ++c)
    for (std::size_t k = 0; k < layer.shape.length; ++k)
      values[place(layer, c, k)] = rows.weight[c * layer.shape.length + k] / alpha_of(layer);
  OP_LET(auto weight, from_doubles(values, layer.linear.dtype, layer.linear.dims));
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
    set_constant(layer.linear.bias_node ? layer.linear.bias_node : layer.node(), layer.linear.bias_slot,
                 std::move(*bias), rewriter);
  return true;
}

}  // namespace onnxpress
