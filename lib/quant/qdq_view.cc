#include "quant/qdq_view.h"

#include <algorithm>
#include <array>
#include <limits>

#include "ir/rewriter.h"

namespace onnxpress {
namespace {

bool of_known_domain(const Node& node) { return node.domain().empty() || node.domain() == "com.microsoft"; }

std::optional<Tensor> scalar(const Graph& graph, std::string_view value) {
  const auto type = graph.constant_type(value);
  if (!type || element_count(type->second) != 1 || type->second.size() > 1) return std::nullopt;
  auto tensor = graph.constant(value);
  return tensor ? std::move(*tensor) : std::nullopt;
}

DType dtype_of(const Graph& graph, std::string_view value) {
  if (const auto constant = graph.constant_type(value)) return constant->first;
  const Graph* scope = graph.scope_of(value);
  return scope == nullptr ? DType::undefined : scope->type(value).dtype;
}

}  // namespace

bool is_quantize(const Node& node) { return node && node.op() == "QuantizeLinear" && of_known_domain(node); }
bool is_dequantize(const Node& node) { return node && node.op() == "DequantizeLinear" && of_known_domain(node); }

DType codes_type(const Node& node) {
  if (!node.input(2).empty())
    if (const DType zero = dtype_of(node.graph(), node.input(2)); zero != DType::undefined) return zero;
  if (!is_quantize(node)) return dtype_of(node.graph(), node.input(0));
  const std::int64_t wanted = node.attr_int("output_dtype", 0);
  return wanted == 0 ? DType::u8 : static_cast<DType>(wanted);
}

std::optional<AffineParams> scalar_params(const Node& node) {
  const auto scale = scalar(node.graph(), node.input(1));
  if (!scale || !is_float(scale->dtype())) return std::nullopt;
  const auto value = to_floats(scale->view());
  if (!value) return std::nullopt;
  AffineParams params{value->front(), 0};
  if (node.input(2).empty()) return params;
  const auto zero = scalar(node.graph(), node.input(2));
  if (!zero) return std::nullopt;
  const auto code = to_int64s(zero->view());
  if (!code) return std::nullopt;
  params.zero_point = static_cast<std::int32_t>(code->front());
  return params;
}

Node dequantize_before(const Node& node, std::size_t slot) {
  const Node from = node.graph().producer(node.input(slot));
  return is_dequantize(from) ? from : Node();
}

std::vector<Node> dequantizes_of(const Graph& graph, std::string_view codes) {
  std::vector<Node> out;
  if (graph.is_output(codes)) return out;
  for (const Use& use : graph.uses(codes)) {
    if (!use.node || use.captured || use.slot != 0 || !is_dequantize(use.node)) return {};
    out.push_back(use.node);
  }
  return out;
}

Node only_reader(const Graph& graph, std::string_view value) {
  const auto& uses = graph.uses(value);
  if (graph.is_output(value) || uses.size() != 1 || uses[0].captured) return {};
  return uses[0].node;
}

std::optional<std::pair<double, double>> clip_bounds(const Node& node) {
  return clip_bounds(node, [&](std::size_t slot) { return scalar(node.graph(), node.input(slot)); });
}

std::optional<std::pair<double, double>> clip_bounds(
    const Node& node, const std::function<std::optional<Tensor>(std::size_t slot)>& constant) {
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  if (!node) return std::nullopt;
  if (node.is("Relu")) return std::pair{0.0, high};
  if (!node.is("Clip")) return std::nullopt;
  if (node.graph().model().opset() < 11) {
    if (node.has_attr("min")) low = node.attr_float("min", 0);
    if (node.has_attr("max")) high = node.attr_float("max", 0);
    return std::pair{low, high};
  }
  for (const std::size_t slot : {1UZ, 2UZ}) {
    if (node.input(slot).empty()) continue;
    const auto bound = constant(slot);
    if (!bound) return std::nullopt;
    const auto value = to_floats(bound->view());
    if (!value) return std::nullopt;
    (slot == 1 ? low : high) = value->front();
  }
  return std::pair{low, high};
}

bool is_movement(const Node& node) {
  constexpr std::array<std::string_view, 13> kMovement = {
      "Reshape",        "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice",       "Gather",
      "GatherElements", "Expand",    "Tile",    "MaxPool", "Resize",    "DepthToSpace"};
  return node && node.domain().empty() && std::ranges::contains(kMovement, node.op());
}

Result<Tensor> scale_tensor(const Node& like, std::span<const float> scales) {
  const DType type = dtype_of(like.graph(), like.input(1));
  Tensor tensor = scales.size() == 1 ? Tensor::scalar<float>(DType::f32, scales[0])
                                     : Tensor::of_floats({std::ssize(scales)}, scales);
  if (type == DType::f32 || !is_float(type)) return tensor;
  return convert(tensor.view(), type);
}

Tensor code_scalar(DType type, std::int32_t code) {
  Tensor out(type, {});
  for (std::size_t i = 0; i < out.mutable_bytes().size(); ++i)
    out.mutable_bytes()[i] = static_cast<std::byte>(static_cast<std::uint32_t>(code) >> (8 * i));
  return out;
}

OrphanedConstants::OrphanedConstants(Graph& graph) : graph_(graph) {
  for (const Initializer& initializer : graph.initializers())
    if (!graph.uses(initializer.name()).empty()) read_.emplace_back(initializer.name());
}

Result<bool> OrphanedConstants::drop() {
  Rewriter rewriter(graph_);
  for (const std::string& name : read_) {
    const Initializer initializer = graph_.initializer(name);
    if (initializer && graph_.is_constant(name) && graph_.uses(name).empty() && !graph_.is_output(name))
      rewriter.remove_initializer(initializer);
  }
  return rewriter.commit();
}

}  // namespace onnxpress
