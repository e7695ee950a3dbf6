#include "pass/linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "pass/weights.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

std::size_t extent(const Dims& dims, std::size_t axis) { return static_cast<std::size_t>(dims[axis]); }

OrReason<ChannelLayout> layout_of(const Node& node, const Dims& dims) {
  ChannelLayout layout;
  if (node.is("Gemm") || node.is("MatMul")) {
    if (dims.size() != 2) return no("its weights are not a matrix");
    layout = {.rows = extent(dims, 0), .cols = extent(dims, 1), .inner = 1, .groups = 1, .rows_are_outputs = false};
    layout.rows_are_outputs = node.attr_int("transB", 0) != 0;
  } else {
    const std::int64_t groups = node.attr_int("group", 1);
    if (dims.size() < 3 || groups < 1) return no("its weights have no spatial axes");
    layout = {.rows = extent(dims, 0),
              .cols = extent(dims, 1),
              .inner = 1,
              .groups = static_cast<std::size_t>(groups),
              .rows_are_outputs = node.is("Conv")};
    for (std::size_t axis = 2; axis < dims.size(); ++axis) layout.inner *= extent(dims, axis);
    if (layout.rows % layout.groups != 0) return no("its channels do not divide into its groups");
  }
  if (layout.rows == 0 || layout.cols == 0) return no("its weights are empty");
  return layout;
}

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

// A matrix [rows, cols] as [cols, rows].
Doubles transposed(const Doubles& values, std::size_t rows, std::size_t cols) {
  Doubles out(values.size());
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < cols; ++c) out[c * rows + r] = values[r * cols + c];
  return out;
}

// A bias that is one number per output channel, or one number.
bool is_channel_bias(const Dims& dims, std::size_t channels) {
  const auto count = element_count(dims);
  if (dims.size() > 2 || !count) return false;
  return *count == 1 || (*count == channels && dims.back() == static_cast<std::int64_t>(channels));
}

}  // namespace

bool is_linear(const Node& node) {
  return node && (node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm") || node.is("MatMul"));
}

OrReason<Use> only_use(const Graph& graph, std::string_view value) {
  const std::vector<Use>& uses = graph.uses(value);
  if (graph.is_output(value)) return no(fmt::format("'{}' is also an output of the graph", value));
  if (uses.size() != 1) return no(fmt::format("'{}' has {} readers", value, uses.size()));
  if (!uses.front().node || uses.front().captured) return no(fmt::format("'{}' is read by a nested body", value));
  return uses.front();
}

Node add_after(const Node& matmul) {
  const Graph& graph = matmul.graph();
  const auto use = only_use(graph, matmul.output(0));
  if (!use || !use->node.is("Add") || !graph.is_constant(use->node.input(1 - use->slot))) return {};
  return use->node;
}

OrReason<Linear> describe_linear(const Node& node, const Node& add) {
  const Graph& graph = node.graph();
  const auto weight = graph.constant_type(node.input(1));
  if (!weight) return no("its weights are not constant");
  Linear linear{
      .node = node, .bias_node = node.is("MatMul") ? add : node, .dtype = weight->first, .dims = weight->second};
  if (linear.dtype != DType::f32 && linear.dtype != DType::f16 && linear.dtype != DType::bf16 &&
      linear.dtype != DType::f64)
    return no(fmt::format("its weights are {}", dtype_name(linear.dtype)));
  const auto layout = layout_of(node, linear.dims);
  if (!layout) return no(layout.error());
  linear.layout = *layout;
  if (node.is("Gemm")) {
    linear.alpha = static_cast<double>(node.attr_float("alpha", 1));
    linear.beta = static_cast<double>(node.attr_float("beta", 1));
    if (node.has_attr("broadcast")) return no("its opset is older than 7");
  }
  if (add) linear.bias_slot = graph.is_constant(add.input(1)) ? 1 : 0;
  if (!linear.bias().empty()) {
    const auto bias = graph.constant_type(linear.bias());
    if (!bias) return no("its bias is not constant");
    if (!is_channel_bias(bias->second, linear.layout.outputs())) return no("its bias is not one number per channel");
  }
  return linear;
}

OrReason<Linear> changeable_linear(const Node& node) {
  if (!is_linear(node) || node.is("ConvTranspose")) return no("only Conv, Gemm and MatMul are looked at");
  if (node.is("Gemm") && node.attr_int("transA", 0) != 0) return no("transA");
  if (!node.graph().is_constant(node.input(1))) return no(not_constant_reason(node, 1));
  const Use use{node, 1, false};
  if (std::string reason = foreign_reader(node.graph(), node.input(1), std::span(&use, 1)); !reason.empty())
    return no(std::move(reason));
  auto linear = describe_linear(node, node.is("MatMul") ? add_after(node) : Node());
  // The Add behind a MatMul may be no bias.
  if (!linear && node.is("MatMul")) linear = describe_linear(node, {});
  if (!linear) return linear;
  if (linear->alpha == 0 || !std::isfinite(linear->alpha)) return no("its alpha is 0");
  if (std::string reason = geometry_refusal(node, linear->dims); !reason.empty()) return no(std::move(reason));
  return linear;
}

Result<Doubles> read_weight_rows(const Linear& linear) {
  OP_LET(const auto tensor, linear.node.graph().constant(linear.node.input(1)));
  OP_LET(const Doubles values, to_doubles(tensor->view()));
  Doubles rows = linear.layout.rows_are_outputs ? values : transposed(values, linear.layout.rows, linear.layout.cols);
  for (double& value : rows) value *= linear.alpha;
  return rows;
}

Result<std::optional<Tensor>> weight_of_rows(const Linear& linear, Doubles rows) {
  for (double& value : rows) value /= linear.alpha;
  if (!linear.layout.rows_are_outputs) rows = transposed(rows, linear.layout.cols, linear.layout.rows);
  return from_doubles(rows, linear.dtype, linear.dims);
}

OrReason<Linear> with_shift(const Node& add) {
  const Graph& graph = add.graph();
  for (const std::size_t slot : {0UZ, 1UZ}) {
    const Node node = graph.producer(add.input(slot));
    const auto type = graph.constant_type(add.input(1 - slot));
    if (!is_linear(node) || node.is("MatMul") || !type) continue;
    if (const auto use = only_use(graph, node.output(0)); !use) return no(use.error());
    OrReason<Linear> linear = describe_linear(node, {});
    if (!linear) return linear;
    // Aligned at the end, the channels must meet axis 1 of the result, which has the rank of the weight.
    const Dims& dims = type->second;
    const std::size_t behind = linear->dims.size() - 2, channels = linear->layout.outputs();
    const auto count = element_count(dims);
    const bool aligned = dims.size() > behind && dims.size() <= linear->dims.size() &&
                         dims[dims.size() - 1 - behind] == static_cast<std::int64_t>(channels);
    if (dims.size() > linear->dims.size() || !(count == 1 || (count == channels && aligned)))
      return no("what is added behind it is not one number per channel");
    linear->shift = add;
    return linear;
  }
  return no("no Conv, ConvTranspose, Gemm or MatMul makes its input");
}

Result<Doubles> read_bias(const Linear& linear) {
  Doubles bias(linear.layout.outputs(), 0.0);
  if (linear.shift) {
    const std::size_t slot = linear.shift.graph().is_constant(linear.shift.input(1)) ? 1 : 0;
    OP_LET(const auto tensor, linear.shift.graph().constant(linear.shift.input(slot)));
    OP_LET(const Doubles values, to_doubles(tensor->view()));
    for (std::size_t o = 0; o < bias.size(); ++o) bias[o] = values[values.size() == 1 ? 0 : o];
  }
  if (linear.bias().empty()) return bias;
  OP_LET(const auto tensor, linear.node.graph().constant(linear.bias()));
  OP_LET(const Doubles values, to_doubles(tensor->view()));
  for (std::size_t o = 0; o < bias.size(); ++o) bias[o] += linear.beta * values[values.size() == 1 ? 0 : o];
  return bias;
}

void add_bias_behind(Rewriter& rewriter, const Node& matmul, Tensor value) {
  const std::string output(matmul.output(0));
  const std::string product = rewriter.fresh_value(output + "_product");
  const std::string bias = rewriter.fresh_value(output + "_bias");
  rewriter.add_initializer(bias, std::move(value));
  rewriter.set_output(matmul, 0, product);
  rewriter.insert_after(matmul, {.op = "Add", .inputs = {product, bias}, .outputs = {output}});
}

bool pads(const Node& node) {
  const std::string automatic = node.attr_string("auto_pad", "NOTSET");
  if (automatic != "NOTSET" && automatic != "VALID") return true;
  return automatic == "NOTSET" &&
         std::ranges::any_of(node.attr_ints("pads"), [](std::int64_t pad) { return pad != 0; });
}

std::string batchnorm_refusal(const Node& bn) {
  const Graph& graph = bn.graph();
  const std::int64_t opset = graph.model().opset();
  if (graph.kind() == Graph::Kind::function) return "functions have no initializers";
  if (graph.kind() == Graph::Kind::body && graph.model().ir_version() < 4)
    return "a body before IR version 4 has no initializers";
  if (bn.attr_int("training_mode", 0) != 0) return "it is in training mode";
  if (opset < 7 && bn.attr_int("is_test", 0) == 0) return "it is in training mode";
  for (std::size_t i = 1; i < bn.output_count(); ++i)
    if (!bn.output(i).empty()) return "it is in training mode";
  if (bn.attr_int("spatial", 1) == 0) return "spatial=0 normalizes every position by itself";
  for (std::size_t i = 1; i < 5; ++i)
    if (!graph.is_constant(bn.input(i))) return fmt::format("its input '{}' is not constant", bn.input(i));
  return {};
}

}  // namespace onnxpress
