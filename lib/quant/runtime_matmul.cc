// Weights and biases the runtime quantizes by itself, and matrix products on dynamically quantized activations.
#include <algorithm>

#include "quant/runtime_steps.h"

namespace onnxpress::runtime {
namespace {

constexpr std::size_t kNone = RuntimeGraph::kNone;
constexpr const char* kContrib = "com.microsoft";

bool is_initializer(const RuntimeGraph& graph, const std::string& value) {
  return !value.empty() && graph.is_constant(value);
}

// Scales of a quantized weight: one, or one per output channel and bias value.
bool scales_fit(const RuntimeGraph& graph, const Item& node, const Item& weight, std::int64_t bias_size) {
  if (graph.is_scalar(weight.input(1))) return true;
  const auto shape = graph.type(weight.input(1)).static_shape();
  if (!shape || shape->size() != 1 || shape->front() != bias_size) return false;
  if (!weight.source) return false;
  if (weight.source.attr_int("block_size", 0) != 0) return false;
  std::int64_t axis = weight.source.attr_int("axis", 1);
  if (axis < 0) {
    const auto rank = graph.type(weight.input(0)).rank();
    if (!rank) return false;
    axis += static_cast<std::int64_t>(*rank);
  }
  const bool rows =
      node.is("Conv") || (node.source && node.source.attr_int("transB", 0) != 0 && node.source.is("Gemm"));
  return axis == (rows ? 0 : 1);
}

void add_quantized_weight(RuntimeGraph& graph, std::size_t at) {
  const std::string weight = graph.at(at).input(1);
  const std::string codes = graph.fresh(weight), scale = graph.fresh("scale"), zero = graph.fresh("zero");
  const ValueType type = graph.type(weight);
  graph.make_constant(codes, DType::i8, type.static_shape());
  graph.make_constant(scale, DType::f32, Dims{});
  graph.make_constant(zero, DType::i8, Dims{}, Tensor::scalar<std::int8_t>(DType::i8, 0));
  const std::string out = graph.fresh(weight);
  graph.set_type(out, type);
  graph.add({.op = "DequantizeLinear", .inputs = {codes, scale, zero}, .outputs = {out}});
  graph.set_input(at, 1, out);
}

void add_quantized_bias(RuntimeGraph& graph, std::size_t at) {
  const std::string bias = graph.at(at).input(2);
  const std::string codes = graph.fresh(bias), scale = graph.fresh("scale");
  const ValueType type = graph.type(bias);
  graph.make_constant(codes, DType::i32, type.static_shape());
  graph.make_constant(scale, DType::f32, type.static_shape());
  const std::string out = graph.fresh(bias);
  graph.set_type(out, type);
  graph.add({.op = "DequantizeLinear", .inputs = {codes, scale}, .outputs = {out}});
  graph.set_input(at, 2, out);
}

}  // namespace

bool quantize_weights_and_biases(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item node = graph.at(at);
    if (node.op != "Conv" && node.op != "Gemm" && node.op != "ConvTranspose") continue;
    const std::size_t data = graph.producer(node.input(0)), weight = graph.producer(node.input(1));
    if (data == kNone || graph.at(data).op != "DequantizeLinear" || !graph.is_scalar(graph.at(data).input(1))) continue;
    const bool quantized = weight != kNone && graph.at(weight).op == "DequantizeLinear";
    if (!quantized && (!is_initializer(graph, node.input(1)) || graph.type(node.input(1)).dtype != DType::f32))
      continue;
    std::int64_t bias_size = -1;
    if (!node.input(2).empty()) {
      const auto shape = graph.type(node.input(2)).static_shape();
      if (!is_initializer(graph, node.input(2)) || !shape || shape->size() != 1) continue;
      bias_size = shape->front();
    }
    if (quantized && bias_size == -1) continue;
    if (quantized && !scales_fit(graph, node, graph.at(weight), bias_size)) continue;
    if (!quantized) add_quantized_weight(graph, at);
    if (bias_size != -1) add_quantized_bias(graph, at);
    changed = true;
  }
  return changed;
}

namespace {

// The first input of `item` that a node of this op makes.
std::size_t parent(const RuntimeGraph& graph, const Item& item, std::string_view op) {
  for (const std::string& input : item.inputs)
    if (const std::size_t from = graph.producer(input); from != kNone && graph.at(from).op == op) return from;
  return kNone;
}

bool is_bias(const RuntimeGraph& graph, const std::string& value) {
  if (!graph.is_constant(value)) return false;
  const auto shape = graph.type(value).static_shape();
  if (!shape || shape->empty() || shape->back() <= 1) return false;
  return std::all_of(shape->begin(), shape->end() - 1, [](std::int64_t dim) { return dim == 1; });
}

struct Dynamic {
  std::size_t product = kNone, cast = kNone, scales = kNone, mul = kNone, add = kNone;
};

std::optional<Dynamic> dynamic_at(const RuntimeGraph& graph, std::size_t mul) {
  const Item& item = graph.at(mul);
  if (!item.is("Mul") || graph.opset() < 7) return std::nullopt;
  Dynamic found{.cast = parent(graph, item, "Cast"), .scales = parent(graph, item, "Mul"), .mul = mul};
  if (found.cast == kNone || found.scales == kNone) return std::nullopt;
  found.product = parent(graph, graph.at(found.cast), "MatMulInteger");
  if (found.product == kNone) return std::nullopt;
  for (const std::size_t part : {found.cast, found.product, found.scales})
    if (!graph.single(part)) return std::nullopt;
  if (graph.single(mul)) {
    const std::size_t next = graph.only_reader(mul);
    if (graph.at(next).is("Add") && is_bias(graph, graph.at(next).input(1))) found.add = next;
  }
  return found;
}

// Takes the place of MatMulInteger when that is a node of the model.
void fuse(RuntimeGraph& graph, const Dynamic& found) {
  const Item product = graph.at(found.product), scales = graph.at(found.scales);
  const std::size_t last = found.add == kNone ? found.mul : found.add;
  Item fused{.origin = product.origin, .source = product.source, .op = "MatMulIntegerToFloat", .domain = kContrib};
  fused.inputs = {product.input(0), product.input(1), scales.input(0),
                  scales.input(1),  product.input(2), product.input(3)};
  if (found.add != kNone) fused.inputs.push_back(graph.at(found.add).input(1));
  fused.outputs = {graph.at(last).outputs[0]};
  for (const std::size_t part : {found.add, found.mul, found.scales, found.cast, found.product})
    if (part != kNone) graph.remove(part, "part of com.microsoft.MatMulIntegerToFloat");
  graph.gone.erase(product.origin);
  graph.add(std::move(fused));
}

bool fuse_quantizer(RuntimeGraph& graph, std::size_t at) {
  const Item item = graph.at(at);
  for (const std::size_t slot : {1UZ, 3UZ}) {
    if (!graph.is_constant(item.input(slot))) return false;
  }
  for (const std::size_t slot : {5UZ, 6UZ})
    if (!item.input(slot).empty() && !graph.is_constant(item.input(slot))) return false;
  const std::size_t from = parent(graph, item, "DynamicQuantizeLinear");
  if (from == kNone || graph.edges(from) != 3 || graph.makes_output(from)) return false;
  const std::string x = graph.at(from).input(0);
  graph.remove(from, "part of com.microsoft.DynamicQuantizeMatMul");
  graph.at(at).op = "DynamicQuantizeMatMul";
  graph.set_input(at, 0, x);
  return true;
}

}  // namespace

bool fuse_dynamic_matmuls(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    if (!graph.at(at).alive) continue;
    const auto found = dynamic_at(graph, at);
    if (!found) continue;
    fuse(graph, *found);
    changed = true;
  }
  for (const std::size_t at : graph.order())
    if (graph.at(at).op == "MatMulIntegerToFloat" && graph.at(at).domain == kContrib)
      changed = fuse_quantizer(graph, at) || changed;
  return changed;
}

bool add_bias_to_matmul_nbits(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item item = graph.at(at);
    if (item.op != "MatMulNBits" || item.domain != kContrib || !graph.single(at) || !item.input(5).empty()) continue;
    const std::size_t next = graph.only_reader(at);
    const Item add = graph.at(next);
    if (!add.is("Add")) continue;
    const std::string& bias = add.input(add.input(0) == item.outputs[0] ? 1 : 0);
    const auto shape = graph.type(bias).static_shape();
    if (!graph.is_constant(bias) || !shape || shape->size() != 1) continue;
    graph.remove(next, "bias of com.microsoft.MatMulNBits");
    graph.set_input(at, 5, bias);
    graph.set_output(at, 0, add.outputs[0]);
    changed = true;
  }
  return changed;
}

}  // namespace onnxpress::runtime
