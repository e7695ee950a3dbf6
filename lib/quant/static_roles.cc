#include "quant/static_roles.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "pass/weights.h"

namespace onnxpress {
namespace {

constexpr std::array<std::string_view, 3> kKernels = {"Conv", "Gemm", "MatMul"};
// With an integer kernel of their own (QLinear*).
constexpr std::array<std::string_view, 7> kOwnRange = {
    "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"};
// Values pass through unchanged, or a subset of them, or their maximum: one set of parameters on both sides. Pad has
// no integer kernel, but costs one conversion each way only where both neighbours are integer.
constexpr std::array<std::string_view, 16> kMovement = {
    "Reshape", "Transpose", "Flatten", "Squeeze",      "Unsqueeze", "Slice", "Gather", "GatherElements",
    "Expand",  "Tile",      "MaxPool", "DepthToSpace", "Resize",    "Split", "Pad",    "ReduceMax"};

bool contains(std::span<const std::string_view> list, std::string_view op) {
  return std::ranges::find(list, op) != list.end();
}

bool is_real(DType dtype) { return dtype == DType::f32 || dtype == DType::f16; }

std::string bias_refusal(const Node& node, std::int64_t channels) {
  const std::string_view bias = node.input(2);
  if (bias.empty()) return {};
  const auto type = node.graph().constant_type(bias);
  if (!type) return "its bias is not a constant";
  if (!is_real(type->first)) return "its bias is not float";
  const auto elements = static_cast<std::int64_t>(element_count(type->second).value_or(0));
  const bool per_channel = !type->second.empty() && type->second.back() == channels && elements == channels;
  return per_channel || elements == 1 ? "" : "its bias is not one value per output channel";
}

std::string kernel_refusal(const Node& node) {
  const Graph& graph = node.graph();
  const auto weight = graph.constant_type(node.input(1));
  if (!weight) return not_constant_reason(node, 1);
  if (!is_real(weight->first)) return fmt::format("its weight is {}, not float", dtype_name(weight->first));
  if (graph.is_constant(node.input(0))) return "its data input is a constant: run fold-constants";
  if (node.is("MatMul") && weight->second.size() != 2) return "its weight is not a matrix";
  if (node.is("Gemm") && node.attr_int("transA", 0) != 0) return "transA has no integer form";
  return bias_refusal(node, weight->second[static_cast<std::size_t>(weight_channel_axis(node))]);
}

// Padding with anything but 0 could lie outside the range of the input.
std::string pad_refusal(const Node& node) {
  constexpr std::string_view kNotZero = "it pads with a value that is not 0";
  if (node.attr_string("mode", "constant") != "constant") return {};
  if (node.graph().model().opset() < 11) return std::string(node.attr_float("value", 0) == 0 ? "" : kNotZero);
  if (node.input(2).empty()) return {};
  const auto value = node.graph().constant(node.input(2));
  const bool zero =
      value && *value && (*value)->dtype() == DType::f32 && (*value)->size() == 1 && (*value)->as<float>()[0] == 0;
  return std::string(zero ? "" : kNotZero);
}

std::string movement_refusal(const Node& node) {
  const std::int64_t opset = node.graph().model().opset();
  if ((node.is("MaxPool") || node.is("ReduceMax")) && opset < 12)
    return fmt::format("{} on 8-bit values needs opset 12", node.op());
  if (node.is("MaxPool") && !node.output(1).empty()) return "its Indices output is used";
  if (node.is("MaxPool") && node.has_attr("dilations") &&
      std::ranges::any_of(node.attr_ints("dilations"), [](std::int64_t d) { return d != 1; }))
    return "dilations have no integer form";
  if (node.is("Resize") && (opset < 11 || node.attr_string("mode", "nearest") != "nearest"))
    return "only Resize to the nearest value keeps codes as they are";
  return node.is("Pad") ? pad_refusal(node) : "";
}

// A float that a constant input holds; `fallback` when the input is left out, nothing when it is not known.
std::optional<float> bound_of(const Graph& graph, std::string_view value, float fallback) {
  if (value.empty()) return fallback;
  const auto constant = graph.constant(value);
  if (!constant || !*constant || (*constant)->size() != 1 || !is_real((*constant)->dtype())) return std::nullopt;
  const auto values = to_floats((*constant)->view());
  return values ? std::optional(values->front()) : std::nullopt;
}

}  // namespace

StaticRole static_role(const Node& node, Target target, bool attention) {
  if (!node.domain().empty()) return StaticRole::none;
  if (node.is("MatMul") && !node.graph().is_constant(node.input(1)) && !node.graph().is_constant(node.input(0)) &&
      attention)
    return StaticRole::product;
  if (contains(kKernels, node.op())) return StaticRole::kernel;
  if (!quantizes_results(target)) return node.is("Add") ? StaticRole::own_range : StaticRole::none;
  if (contains(kOwnRange, node.op()) || (attention && node.is("Softmax"))) return StaticRole::own_range;
  if (contains(kMovement, node.op())) return StaticRole::movement;
  return StaticRole::none;
}

std::string static_refusal(const Node& node, StaticRole role) {
  if (role == StaticRole::kernel) return kernel_refusal(node);
  if (role == StaticRole::movement) return movement_refusal(node);
  if (node.is("AveragePool") && node.has_attr("dilations")) return "dilations have no integer form";
  if (node.is("Softmax") && node.graph().model().opset() < 13) return "Softmax on codes needs opset 13";
  return {};
}

std::vector<std::size_t> data_slots(const Node& node, StaticRole role) {
  if (node.is("Add") || node.is("Mul") || role == StaticRole::product) return {0, 1};
  if (!node.is("Concat")) return {0};
  std::vector<std::size_t> all(node.input_count());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

std::int64_t weight_channel_axis(const Node& node) {
  if (node.is("Conv")) return 0;
  if (node.is("Gemm")) return node.attr_int("transB", 0) != 0 ? 0 : 1;
  return 1;
}

bool is_depthwise(const Node& node) {
  const auto weight = node.graph().constant_type(node.input(1));
  return node.is("Conv") && weight && weight->second.size() > 2 && weight->second[1] == 1 &&
         node.attr_int("group", 1) > 1;
}

std::optional<Absorbed> absorbed_activation(const Graph& graph, std::string_view value) {
  const auto& uses = graph.uses(value);
  if (graph.is_output(value) || uses.size() != 1 || !uses[0].node || uses[0].captured || uses[0].slot != 0) return {};
  const Node next = uses[0].node;
  if (next.is("Relu")) return Absorbed{next, 0, std::nullopt};
  if (!next.is("Clip")) return {};
  constexpr float kNone = std::numeric_limits<float>::infinity();
  const bool attributes = graph.model().opset() < 11;
  const auto low = attributes ? next.attr_float("min", -kNone) : bound_of(graph, next.input(1), -kNone);
  const auto high = attributes ? next.attr_float("max", kNone) : bound_of(graph, next.input(2), kNone);
  // Codes always stand for 0 too, so the bounds must have it between them, and a lower bound there must be.
  if (!low || !high || !(*low <= 0) || !(*high > 0) || std::isinf(*low)) return {};
  return Absorbed{next, *low, std::isinf(*high) ? std::nullopt : std::optional(*high)};
}

bool has_fixed_range(const Node& producer) { return producer && (producer.is("Sigmoid") || producer.is("Softmax")); }

}  // namespace onnxpress
