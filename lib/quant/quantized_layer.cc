#include "quant/quantized_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>

#include "ir/edit.h"
#include "quant/qdq.h"

namespace onnxpress {
namespace {

constexpr std::int32_t kPairLimit = 128;

bool is_dequantize(const Node& node) {
  return node && node.op() == "DequantizeLinear" && (node.domain().empty() || node.domain() == "com.microsoft");
}

// The node of the reference with the same name; one without a name by its first output.
Node counterpart(const Node& node, const Model& reference) {
  Node found;
  for (const Node& candidate : reference.main().nodes()) {
    const bool same = node.name().empty() ? candidate.output(0) == node.output(0) : candidate.name() == node.name();
    if (!same || candidate.op() != node.op() || candidate.domain() != node.domain()) continue;
    if (found) return {};
    found = candidate;
  }
  return found;
}

std::int64_t channel_axis(const Node& node) {
  if (node.is("Conv")) return 0;
  return node.is("Gemm") && node.attr_int("transB", 0) != 0 ? 0 : 1;
}

// Whether something besides `reader` reads `value`, so that it must stay as it is.
std::string sharing_refusal(std::string_view value, const Node& reader, std::string_view what) {
  const Graph& graph = reader.graph();
  if (graph.is_output(value)) return fmt::format("its {} is also a graph output", what);
  for (const Use& use : graph.uses(value))
    if (use.node != reader)
      return fmt::format("its {} is also read by {}", what, use.node ? use.node.label() : "a nested body");
  return {};
}

// Only `reader` reads the DequantizeLinear (or Mul), and only that the nodes before it; its parameters are constants.
std::string dequantize_refusal(const Node& dequantize, const std::vector<Node>& path, const Node& reader,
                               std::string_view what) {
  std::string reason = sharing_refusal(dequantize.output(0), reader, what);
  Node next = dequantize;
  for (const Node& node : path) {
    if (reason.empty()) reason = sharing_refusal(node.output(0), next, what);
    next = node;
  }
  for (std::size_t slot = 1; slot < dequantize.input_count() && reason.empty(); ++slot)
    if (!dequantize.input(slot).empty() && !reader.graph().is_constant(dequantize.input(slot)))
      reason = fmt::format("its {} is not made of constants", what);
  return reason;
}

std::string attribute_refusal(const Node& node, std::int64_t opset) {
  if (!node.is("Gemm")) return {};
  if (node.attr_int("transA", 0) != 0) return "transA";
  if (node.attr_float("alpha", 1) != 1 || node.attr_float("beta", 1) != 1) return "its alpha or beta is not 1";
  return opset < 7 ? "its bias is broadcast by an attribute (opset below 7)" : "";
}

Result<std::vector<std::int64_t>> integers(const Graph& graph, std::string_view value) {
  OP_LET(const auto tensor, graph.constant(value));
  return to_int64s(tensor->view());
}

Result<std::vector<float>> floats(const Graph& graph, std::string_view value) {
  OP_LET(const auto tensor, graph.constant(value));
  OP_LET(std::vector<float> values, to_floats(tensor->view()));
  if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); }))
    return fail(Code::bad_input, "'{}' is not finite", value);
  return values;
}

// Along which axis of the weight its scales run.
std::optional<std::int64_t> scale_axis(const Node& weight, const Dims& scale, std::size_t rank) {
  if (weight.op() == "DequantizeLinear") {
    const std::int64_t axis = weight.attr_int("axis", 1);
    return scale.size() > 1 ? std::nullopt : std::optional(axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis);
  }
  // Mul broadcasts: all axes but one are 1, counted from the last.
  const auto wide = std::ranges::find_if(scale, [](std::int64_t dim) { return dim != 1; });
  return wide - scale.begin() + static_cast<std::int64_t>(rank) - static_cast<std::int64_t>(scale.size());
}

// The weight's rank and axes fit the op, and its scales the weight.
std::string weight_refusal(QuantizedLayer& layer) {
  const Graph& graph = layer.node.graph();
  const auto scale = graph.constant_type(layer.weight.input(1));
  const auto float_weight = layer.reference.graph().constant_type(layer.reference.input(1));
  if (!float_weight || !is_float(float_weight->first)) return "the reference has no constant float weight for it";
  const Dims& dims = layer.codes.dims;
  if (dims != float_weight->second) return "its weight has another shape than in the reference";
  if (layer.node.is("Conv") ? dims.size() < 3 : dims.size() != 2) return "its weight is not a matrix";
  layer.channel_axis = channel_axis(layer.node);
  const std::int64_t channels = dims[static_cast<std::size_t>(layer.channel_axis)];
  if (element_count(dims).value_or(0) == 0) return "its weight is empty";
  if (layer.weight.attr_int("block_size", 0) != 0) return "its weight has a scale per block";
  if (scale->first != DType::f32) return fmt::format("its scales are {}", dtype_name(scale->first));
  const auto scales = static_cast<std::int64_t>(element_count(scale->second).value_or(0));
  if (scales != 1 && scales != channels) return "its scales are not one per output channel";
  layer.per_channel = scales == channels && channels > 1;
  if (scales > 1 && scale_axis(layer.weight, scale->second, dims.size()) != layer.channel_axis)
    return "its scales run along another axis than its output channels";
  layer.shape = patch_shape(layer.node, dims);
  if (!layer.weight.input(2).empty()) {
    const auto zeros = integers(graph, layer.weight.input(2));
    if (!zeros || std::ranges::adjacent_find(*zeros, std::not_equal_to()) != zeros->end())
      return "its zero points differ";
  }
  return layer.shape.outputs % layer.shape.groups == 0 ? "" : "its groups do not divide its output channels";
}

std::size_t constant_operand(const Node& add) { return add.graph().is_constant(add.input(0)) ? 0 : 1; }

// The Add of a float per channel that alone reads the result of a MatMul, with a constant that it alone reads.
Node added_bias(const QuantizedLayer& layer) {
  const Graph& graph = layer.node.graph();
  const std::string_view result = layer.node.output(0);
  const auto& uses = graph.uses(result);
  if (graph.is_output(result) || uses.size() != 1 || !uses[0].node || uses[0].captured || !uses[0].node.is("Add"))
    return {};
  const Node add = uses[0].node;
  const std::string_view constant = add.input(constant_operand(add));
  const auto type = graph.constant_type(constant);
  const auto is_add = [&](const Use& use) { return use.node == add; };
  const bool fits = type && type->first == DType::f32 && !type->second.empty() &&
                    type->second.back() == static_cast<std::int64_t>(layer.shape.outputs) &&
                    element_count(type->second) == layer.shape.outputs;
  return fits && is_private_constant(graph, constant, is_add) ? add : Node();
}

std::string bias_refusal(QuantizedLayer& layer) {
  const Node& node = layer.node;
  const Graph& graph = node.graph();
  const auto channels = layer.shape.outputs;
  if (node.is("MatMul")) {
    layer.bias = added_bias(layer);
    if (layer.bias) layer.bias_kind = BiasKind::added;
    return {};
  }
  if (node.input(2).empty()) {
    const bool optional = node.is("Conv") || graph.model().opset() >= 11;
    layer.bias_kind = optional ? BiasKind::absent : BiasKind::none;
    return {};
  }
  const auto one_per_channel = [&](const Dims& dims) {
    return !dims.empty() && dims.back() == static_cast<std::int64_t>(channels) && element_count(dims) == channels;
  };
  if (const auto type = graph.constant_type(node.input(2))) {
    layer.bias_kind = BiasKind::floating;
    return type->first == DType::f32 && one_per_channel(type->second) ? "" : "its bias is not a float per channel";
  }
  layer.bias = graph.producer(node.input(2));
  if (!is_dequantize(layer.bias)) return "its bias is not a constant";
  if (std::string reason = dequantize_refusal(layer.bias, {}, node, "bias"); !reason.empty()) return reason;
  if (!graph.is_constant(layer.bias.input(0))) return "its bias is not made of constants";
  const auto type = graph.constant_type(layer.bias.input(0));
  if (type->first != DType::i32 || !one_per_channel(type->second)) return "its bias is not an int32 per channel";
  const auto scale = graph.constant_type(layer.bias.input(1));
  if (scale->first != DType::f32 || element_count(scale->second) != (layer.per_channel ? channels : 1))
    return "its bias has other scales than its weight";
  if (!layer.input_scale) return "its bias is int32, but its input has no scale";
  layer.bias_kind = BiasKind::integer;
  return {};
}

std::optional<float> scale_of_input(const Node& node) {
  const Graph& graph = node.graph();
  const Node source = graph.producer(node.input(0));
  if (!is_dequantize(source)) return std::nullopt;
  const auto scale = graph.constant(source.input(1));
  if (!scale || !*scale || (*scale)->size() != 1 || (*scale)->dtype() != DType::f32) return std::nullopt;
  return (*scale)->as<float>()[0];
}

// Row-major [rows of channel_axis 0] or, for a matrix with its channels in columns, transposed to that.
template <class T>
std::vector<T> as_rows(std::vector<T> values, const QuantizedLayer& layer) {
  if (layer.channel_axis == 0) return values;
  const std::size_t m = layer.shape.outputs, k = layer.shape.length;
  std::vector<T> rows(values.size());
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t c = 0; c < m; ++c) rows[c * k + i] = values[i * m + c];
  return rows;
}

// Where element k of a row is in the tensor, as an index of as_rows() before transposing.
std::size_t place_of(const QuantizedLayer& layer, std::size_t channel, std::size_t k) {
  return layer.channel_axis == 0 ? channel * layer.shape.length + k : k * layer.shape.outputs + channel;
}

// Which column the runtime multiplies together with which: input channels of one kernel position first; rows of a
// matrix. Depthwise kernels multiply in 16 bits and have no pairs.
std::vector<std::size_t> pair_columns(const PatchShape& shape) {
  std::size_t taps = 1;
  for (const std::int64_t k : shape.kernel) taps *= static_cast<std::size_t>(k);
  const std::size_t inputs = shape.length / taps;
  if (shape.groups > 1 && inputs == 1) return {};
  std::vector<std::size_t> pairs(shape.length);
  const auto column = [&](std::size_t place) { return place % inputs * taps + place / inputs; };
  for (std::size_t place = 0; place < shape.length; ++place) pairs[column(place)] = column(place ^ 1);
  if (shape.length % 2 != 0) pairs[column(shape.length - 1)] = shape.length;
  return pairs;
}

bool keeps_clear(const std::vector<std::int32_t>& codes, const std::vector<std::size_t>& pairs) {
  if (pairs.empty()) return false;
  for (std::size_t row = 0; row < codes.size(); row += pairs.size())
    for (std::size_t k = 0; k < pairs.size(); ++k) {
      if (pairs[k] >= pairs.size()) continue;
      const std::int32_t a = codes[row + k], b = codes[row + pairs[k]];
      if ((a < 0) == (b < 0) && std::abs(a + b) > kPairLimit) return false;
    }
  return true;
}

Result<std::vector<double>> read_bias(const QuantizedLayer& layer) {
  std::vector<double> bias(layer.shape.outputs, 0);
  if (layer.bias_kind == BiasKind::floating) {
    OP_LET(const auto values, floats(layer.node.graph(), layer.node.input(2)));
    std::ranges::copy(values, bias.begin());
  } else if (layer.bias_kind == BiasKind::integer) {
    OP_LET(const auto codes, integers(layer.node.graph(), layer.bias.input(0)));
    OP_LET(const auto scales, floats(layer.node.graph(), layer.bias.input(1)));
    for (std::size_t c = 0; c < bias.size(); ++c)
      bias[c] = static_cast<double>(codes[c]) * scales[scales.size() == 1 ? 0 : c];
  }
  return bias;
}

// What symmetric codes use of their type; one more below where that is used already.
CodeRange code_limits(DType dtype, const std::vector<std::int32_t>& codes) {
  CodeRange range = bit_width(dtype) == 4 ? CodeRange{-7, 7} : CodeRange{-127, 127};
  if (std::ranges::min(codes) < range.min) --range.min;
  return range;
}

}  // namespace

std::expected<QuantizedLayer, std::string> find_quantized_layer(const Node& node, const Model& reference) {
  if (!node.is("Conv") && !node.is("Gemm") && !node.is("MatMul")) return std::unexpected("");
  QuantizedLayer layer{.node = node,
                       .reference = {},
                       .weight = node.graph().producer(node.input(1)),
                       .codes = {},
                       .bias = {},
                       .shape = {},
                       .input_scale = {}};
  // Whatever is no weight in codes is none of our business: a float weight, activation times activation.
  if (!is_dequantize(layer.weight) && !(layer.weight && layer.weight.is("Mul"))) return std::unexpected("");
  auto codes = find_codes(layer.weight, 0);
  if (!codes) return std::unexpected("");
  layer.codes = std::move(*codes);
  std::string reason = dequantize_refusal(layer.weight, layer.codes.path, node, "weight");
  if (reason.empty()) reason = attribute_refusal(node, node.graph().model().opset());
  if (!reason.empty()) return std::unexpected(reason);
  layer.reference = counterpart(node, reference);
  if (!layer.reference) return std::unexpected("the reference has no node that corresponds to it");
  layer.input_scale = scale_of_input(node);
  reason = weight_refusal(layer);
  if (reason.empty()) reason = bias_refusal(layer);
  if (!reason.empty()) return std::unexpected(reason);
  return layer;
}

Result<LayerNumbers> read_layer(const QuantizedLayer& layer) {
  const Graph& graph = layer.node.graph();
  LayerNumbers out;
  OP_LET(const auto weight, floats(layer.reference.graph(), layer.reference.input(1)));
  const double alpha = layer.reference.is("Gemm") ? layer.reference.attr_float("alpha", 1) : 1;
  out.weight.assign(weight.begin(), weight.end());
  for (double& value : out.weight) value *= alpha;
  out.weight = as_rows(std::move(out.weight), layer);
  OP_LET(out.codes, read_codes(layer.codes));
  if (!layer.weight.input(2).empty()) {
    OP_LET(const auto zeros, integers(graph, layer.weight.input(2)));
    out.zero_point = static_cast<std::int32_t>(zeros.front());
  }
  for (std::int32_t& code : out.codes) code -= out.zero_point;
  out.codes = as_rows(std::move(out.codes), layer);
  OP_LET(out.scales, floats(graph, layer.weight.input(1)));
  if (std::ranges::any_of(out.scales, [](float s) { return s <= 0; }))
    return fail(Code::bad_input, "a scale is not positive");
  out.scales.resize(layer.shape.outputs, out.scales.front());
  OP_LET(out.bias, read_bias(layer));
  out.range = code_limits(layer.codes.dtype, out.codes);
  out.pairs = pair_columns(layer.shape);
  if (!keeps_clear(out.codes, out.pairs)) out.pairs.clear();
  return out;
}

std::uint64_t layer_bytes(const QuantizedLayer& layer) {
  return layer.shape.outputs * layer.shape.length * (2 * sizeof(double) + sizeof(std::int32_t));
}

void write_weight(const QuantizedLayer& layer, const LayerNumbers& numbers, Rewriter& rewriter) {
  std::vector<std::int32_t> codes(numbers.codes.size());
  for (std::size_t c = 0; c < layer.shape.outputs; ++c)
    for (std::size_t k = 0; k < layer.shape.length; ++k)
      codes[place_of(layer, c, k)] = numbers.codes[c * layer.shape.length + k] + numbers.zero_point;
  write_codes(layer.codes, codes, rewriter);
  if (!layer.per_channel) return;
  const Dims scale_dims = layer.node.graph().constant_type(layer.weight.input(1))->second;
  set_constant(rewriter, layer.weight, 1, Tensor::of_floats(scale_dims, numbers.scales), "scale");
}

namespace {

// Gives `slot` of `reader` the value unless it has it already.
bool update(Rewriter& rewriter, const Node& reader, std::size_t slot, Tensor value, std::string_view fresh_name) {
  const auto old = reader.graph().constant(reader.input(slot));
  if (old && *old && (*old)->dims() == value.dims() && std::ranges::equal((*old)->bytes(), value.bytes())) return false;
  set_constant(rewriter, reader, slot, std::move(value), fresh_name);
  return true;
}

bool write_float_bias(const QuantizedLayer& layer, const LayerNumbers& numbers, Rewriter& rewriter) {
  const Graph& graph = layer.node.graph();
  std::vector<float> values(numbers.bias.begin(), numbers.bias.end());
  Node reader = layer.node;
  std::size_t slot = 2;
  Dims dims = {static_cast<std::int64_t>(values.size())};
  if (layer.bias_kind == BiasKind::added) {
    reader = layer.bias;
    slot = constant_operand(reader);
    const auto old = floats(graph, reader.input(slot));
    if (!old) return false;
    for (std::size_t c = 0; c < values.size(); ++c)
      values[c] = static_cast<float>(static_cast<double>((*old)[c]) + numbers.bias[c]);
  }
  if (!reader.input(slot).empty()) dims = graph.constant_type(reader.input(slot))->second;
  return update(rewriter, reader, slot, Tensor::of_floats(dims, values), std::string(layer.node.output(0)) + "_bias");
}

}  // namespace

bool write_bias(const QuantizedLayer& layer, const LayerNumbers& numbers, Rewriter& rewriter) {
  assert(layer.can_shift());
  const bool fresh = layer.bias_kind == BiasKind::absent;
  if (layer.bias_kind != BiasKind::integer && !(fresh && layer.input_scale)) {
    return write_float_bias(layer, numbers, rewriter);
  }
  const Graph& graph = layer.node.graph();
  std::vector<float> scales;
  for (const float scale : numbers.scales) scales.push_back(*layer.input_scale * scale);
  Tensor codes(DType::i32, {static_cast<std::int64_t>(numbers.bias.size())});
  const auto out = codes.as_mutable<std::int32_t>();
  for (std::size_t c = 0; c < out.size(); ++c)
    out[c] =
        static_cast<std::int32_t>(std::clamp(std::nearbyint(numbers.bias[c] / scales[c]), -2147483647.0, 2147483647.0));
  if (!layer.per_channel) scales.resize(1);
  if (fresh) {
    if (std::ranges::all_of(out, [](std::int32_t code) { return code == 0; })) return false;
    QdqWriter writer(layer.node.graph(), rewriter);
    const std::string base = std::string(layer.node.output(0)) + "_bias";
    rewriter.set_input(layer.node, 2, writer.bias(layer.node, base, std::move(codes), scales));
    return true;
  }
  codes.reshape(graph.constant_type(layer.bias.input(0))->second);
  const Dims dims = graph.constant_type(layer.bias.input(1))->second;
  const bool shifted = update(rewriter, layer.bias, 0, std::move(codes), "bias");
  return update(rewriter, layer.bias, 1, Tensor::of_floats(dims, scales), "bias_scale") || shifted;
}

float least_weight_scale(double bias, float input_scale) {
  const double least = 1.0001 * 2 * std::abs(bias) / 4294967294.0 / input_scale;
  return std::nextafter(static_cast<float>(least), std::numeric_limits<float>::infinity());
}

}  // namespace onnxpress
