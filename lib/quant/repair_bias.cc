// The int32 bias of integer Conv and Gemm. Fused kernels add its codes to sums of products of codes, so its scale is
// s_x * s_w whatever its DequantizeLinear says.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ir/rewriter.h"
#include "quant/qdq_view.h"
#include "quant/repair.h"

namespace onnxpress::repair {
namespace {

constexpr double kLargest = 2147483647.0;
constexpr double kTolerance = 1e-5;  // relative: scales are products of floats

// s_x * s_w per channel, or one; empty when not known.
Result<std::vector<double>> kernel_scales(const Node& x, const Node& weight) {
  const auto input = scalar_params(x);
  if (!input || !x.graph().is_constant(weight.input(1))) return std::vector<double>{};
  OP_LET(const auto scale, x.graph().constant(weight.input(1)));
  OP_LET(const std::vector<float> values, to_floats(scale->view()));
  std::vector<double> out;
  for (const float s : values) out.push_back(static_cast<double>(input->scale * s));
  return out;
}

// The bias as real numbers, one per channel, whether it is float or int32 behind a DequantizeLinear; empty when it is
// neither.
Result<std::vector<double>> bias_values(const Node& node, const Node& from) {
  const Graph& graph = node.graph();
  std::vector<double> out;
  if (!from) {
    OP_LET(const auto tensor, graph.constant(node.input(2)));
    OP_LET(const auto values, to_floats(tensor->view()));
    out.assign(values.begin(), values.end());
    return out;
  }
  OP_LET(const auto codes, graph.constant(from.input(0)));
  OP_LET(const auto scale, graph.constant(from.input(1)));
  OP_LET(const auto values, to_int64s(codes->view()));
  OP_LET(const auto scales, to_floats(scale->view()));
  if (scales.size() != 1 && scales.size() != values.size()) return out;
  for (std::size_t i = 0; i < values.size(); ++i)
    out.push_back(static_cast<double>(values[i]) * static_cast<double>(scales[scales.size() == 1 ? 0 : i]));
  return out;
}

// Whether the scales the bias was written with are those of the kernel.
Result<bool> agrees(const Node& from, const std::vector<double>& wanted) {
  if (!from || codes_type(from) != DType::i32) return false;
  OP_LET(const auto scale, from.graph().constant(from.input(1)));
  OP_LET(const auto scales, to_floats(scale->view()));
  for (std::size_t i = 0; i < std::max(scales.size(), wanted.size()); ++i) {
    const double have = static_cast<double>(scales[scales.size() == 1 ? 0 : std::min(i, scales.size() - 1)]);
    const double want = wanted[wanted.size() == 1 ? 0 : std::min(i, wanted.size() - 1)];
    if (std::abs(have - want) > kTolerance * std::abs(want)) return false;
  }
  return true;
}

std::int64_t channels_of(const Node& node, const Node& weight) {
  const auto type = node.graph().constant_type(weight.input(0));
  if (!type || type->second.size() < 2) return -1;
  const bool rows = node.is("Conv") || node.attr_int("transB", 0) != 0;
  return type->second[rows ? 0 : 1];
}

// Along the output channels, or one scale for all.
bool scales_fit(const Node& node, const Node& weight, std::size_t scales, std::int64_t channels) {
  if (scales == 1) return true;
  if (static_cast<std::int64_t>(scales) != channels || weight.attr_int("block_size", 0) != 0) return false;
  const auto rank = static_cast<std::int64_t>(node.graph().constant_type(weight.input(0))->second.size());
  std::int64_t axis = weight.attr_int("axis", 1);
  if (axis < 0) axis += rank;
  return axis == (node.is("Conv") || node.attr_int("transB", 0) != 0 ? 0 : 1);
}

void write(Rewriter& rewriter, const Node& node, Tensor codes, const std::vector<double>& scales) {
  const auto constant = [&](std::string_view suffix, Tensor value) {
    std::string name = rewriter.fresh_value(std::string(node.input(2)) + std::string(suffix));
    rewriter.add_initializer(name, std::move(value));
    return name;
  };
  std::vector<float> floats(scales.begin(), scales.end());
  const std::string scale = constant("_scale", floats.size() == 1 ? Tensor::scalar<float>(DType::f32, floats[0])
                                                                  : Tensor::of_floats({std::ssize(floats)}, floats));
  NodeSpec spec{.op = "DequantizeLinear",
                .inputs = {constant("_int32", std::move(codes)), scale},
                .outputs = {rewriter.fresh_value(std::string(node.input(2)) + "_dequantized")},
                .name = rewriter.fresh_node(std::string(node.input(2)) + "_DequantizeLinear")};
  if (floats.size() > 1) spec.attributes.emplace_back("axis", std::int64_t{0});
  const std::string out = spec.outputs[0];
  rewriter.insert_before(node, std::move(spec));
  rewriter.set_input(node, 2, out);
}

// "" when done or nothing to do, else why not.
Result<std::string> fix(Rewriter& rewriter, const Node& node, PassContext& context) {
  const Graph& graph = node.graph();
  const Node x = dequantize_before(node, 0), weight = dequantize_before(node, 1), from = dequantize_before(node, 2);
  if (from && (!graph.is_constant(from.input(0)) || !graph.is_constant(from.input(1))))
    return "its bias is not a constant";
  if (!from && !graph.is_constant(node.input(2))) return "its bias is not a constant";
  if (node.is("Gemm") && (node.attr_float("beta", 1) != 1 || node.attr_float("alpha", 1) != 1))
    return "alpha or beta is not 1";
  OP_LET(const std::vector<double> scales, kernel_scales(x, weight));
  const std::int64_t channels = channels_of(node, weight);
  if (scales.empty() || !scales_fit(node, weight, scales.size(), channels))
    return "the scales of its input and weight are not constants along the output channels";
  OP_LET(const bool fine, agrees(from, scales));
  if (fine) return "";
  OP_LET(std::vector<double> bias, bias_values(node, from));
  if (bias.size() == 1) bias.resize(static_cast<std::size_t>(channels), bias[0]);
  if (static_cast<std::int64_t>(bias.size()) != channels) return "its bias is not one value per output channel";
  if (scales.size() > 1 && graph.model().opset() < 13) return "a scale per channel needs opset 13";
  Tensor codes(DType::i32, {channels});
  for (std::size_t i = 0; i < bias.size(); ++i) {
    const double code = std::nearbyint(bias[i] / scales[scales.size() == 1 ? 0 : i]);
    if (!(std::abs(code) <= kLargest)) return "its bias does not fit 32 bits at scale s_x * s_w";
    codes.as_mutable<std::int32_t>()[i] = static_cast<std::int32_t>(code);
  }
  write(rewriter, node, std::move(codes), scales);
  context.done(node, from ? "int32 bias brought to the scale that the fused kernel assumes" : "int32 bias");
  return "";
}

}  // namespace

Result<bool> fix_biases(Graph& graph, PassContext& context) {
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes()) {
    if ((!node.is("Conv") && !node.is("Gemm")) || node.input(2).empty()) continue;
    if (!dequantize_before(node, 0) || !dequantize_before(node, 1) || !context.selected(node)) continue;
    OP_LET(const std::string why, fix(rewriter, node, context));
    if (!why.empty()) context.skipped(node, "bias: " + why);
  }
  return rewriter.commit();
}

}  // namespace onnxpress::repair
