// Steps that move, merge and retype QuantizeLinear and DequantizeLinear.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/runtime_steps.h"

namespace onnxpress::runtime {
namespace {

constexpr std::size_t kNone = RuntimeGraph::kNone;
constexpr std::string_view kContrib = "com.microsoft";

std::optional<double> scalar_value(const RuntimeGraph& graph, const std::string& name) {
  const auto constant = graph.scalar(name);
  if (!constant) return std::nullopt;
  if (is_float(constant->dtype())) {
    const auto values = to_floats(constant->view());
    return values ? std::optional<double>(values->front()) : std::nullopt;
  }
  const auto values = to_int64s(constant->view());
  return values ? std::optional(static_cast<double>(values->front())) : std::nullopt;
}

}  // namespace

bool is_quantize(const Item& item) {
  return item.op == "QuantizeLinear" && (item.domain.empty() || item.domain == kContrib);
}
bool is_dequantize(const Item& item) {
  return item.op == "DequantizeLinear" && (item.domain.empty() || item.domain == kContrib);
}

DType codes_type(const RuntimeGraph& graph, const Item& item) {
  if (!item.input(2).empty())
    if (const DType zero = graph.type(item.input(2)).dtype; zero != DType::undefined) return zero;
  if (is_quantize(item)) {
    const auto wanted = item.source ? item.source.attr_int("output_dtype", 0) : 0;
    return wanted == 0 ? DType::u8 : static_cast<DType>(wanted);
  }
  const std::size_t producer = graph.producer(item.input(0));
  if (producer != kNone && is_quantize(graph.at(producer))) return codes_type(graph, graph.at(producer));
  return graph.type(item.input(0)).dtype;
}

std::optional<AffineParams> scalar_params(const RuntimeGraph& graph, const Item& item) {
  const auto scale = scalar_value(graph, item.input(1));
  if (!scale || !graph.is_scalar(item.input(1))) return std::nullopt;
  AffineParams params{static_cast<float>(*scale), 0};
  if (item.input(2).empty()) return params;
  const auto zero = scalar_value(graph, item.input(2));
  if (!zero || !graph.is_scalar(item.input(2))) return std::nullopt;
  params.zero_point = static_cast<std::int32_t>(*zero);
  return params;
}

bool is_pair(const RuntimeGraph& graph, const Item& quantize, const Item& dequantize, std::string* why) {
  const auto no = [&](std::string text) {
    if (why != nullptr) *why = std::move(text);
    return false;
  };
  if (quantize.input(2).empty() || dequantize.input(2).empty())
    return no("a zero point is left out: write it, even if 0");
  const auto q = scalar_params(graph, quantize), dq = scalar_params(graph, dequantize);
  if (!q || !dq) return no("its scales are not one constant for the tensor");
  if (codes_type(graph, quantize) != codes_type(graph, dequantize))
    return no(fmt::format("input codes are {}, output codes are {}", dtype_name(codes_type(graph, dequantize)),
                          dtype_name(codes_type(graph, quantize))));
  if (q->scale != dq->scale)
    return no(fmt::format("the scale differs across it: {:.6g} before, {:.6g} behind", dq->scale, q->scale));
  if (q->zero_point != dq->zero_point)
    return no(fmt::format("the zero point differs across it: {} before, {} behind", dq->zero_point, q->zero_point));
  return true;
}

namespace {

// The smaller of both ranges, which the remaining outer two then use.
void intersect(RuntimeGraph& graph, std::size_t outer, std::size_t last, const AffineParams& a, const AffineParams& b,
               DType type) {
  const CodeRange codes = type == DType::u8 ? CodeRange{0, 255} : CodeRange{-128, 127};
  const auto real = [](std::int32_t code, const AffineParams& p) {
    return static_cast<float>(code - p.zero_point) * p.scale;
  };
  const float low = std::max(real(codes.min, a), real(codes.min, b));
  const float high = std::min(real(codes.max, a), real(codes.max, b));
  const float scale = (high - low) / static_cast<float>(codes.max - codes.min);
  const auto zero = static_cast<std::int32_t>(std::round(static_cast<float>(codes.min) - low / scale));
  const std::string scale_name = graph.fresh("scale"), zero_name = graph.fresh("zero_point");
  graph.make_constant(scale_name, DType::f32, Dims{}, Tensor::scalar<float>(DType::f32, scale));
  Tensor code(type, {});
  code.mutable_bytes()[0] = static_cast<std::byte>(zero);
  graph.make_constant(zero_name, type, Dims{}, std::move(code));
  for (const std::size_t item : {outer, last}) {
    graph.set_input(item, 1, scale_name);
    graph.set_input(item, 2, zero_name);
  }
}

}  // namespace

bool merge_double_pairs(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item& self = graph.at(at);
    if (!self.alive || !is_dequantize(self) || !graph.single(at)) continue;
    const std::size_t child = graph.only_reader(at), parent = graph.producer(self.input(0));
    if (parent == kNone || !is_quantize(graph.at(child)) || !is_quantize(graph.at(parent))) continue;
    if (!graph.single(child) || !graph.single(parent)) continue;
    const std::size_t last = graph.only_reader(child);
    if (!is_dequantize(graph.at(last))) continue;
    if (!is_pair(graph, graph.at(parent), self) || !is_pair(graph, graph.at(child), graph.at(last))) continue;
    const DType type = codes_type(graph, self);
    if ((type != DType::u8 && type != DType::i8) || codes_type(graph, graph.at(child)) != type) continue;
    const AffineParams a = *scalar_params(graph, self), b = *scalar_params(graph, graph.at(child));
    graph.set_input(last, 0, graph.at(parent).outputs[0]);
    graph.remove(child, "one of two conversions in a row: the runtime keeps one");
    graph.remove(at, "one of two conversions in a row: the runtime keeps one");
    if (a != b) intersect(graph, parent, last, a, b, type);
    changed = true;
  }
  return changed;
}

namespace {

// Across which the runtime moves QuantizeLinear and DequantizeLinear, by the opset that last changed the op.
bool can_cross(const RuntimeGraph& graph, const Item& item) {
  const std::int64_t opset = graph.opset();
  if (item.is("MaxPool")) return opset >= 12 && opset < 22;
  if (item.is("Reshape")) return opset >= 5;
  return item.is("Transpose") || item.is("Squeeze") || item.is("Unsqueeze") || item.is("Slice");
}

struct Edge {
  std::string value;
  std::size_t to = kNone, slot = 0;  // to is kNone at an output of the graph
  bool captured = false;
};

std::vector<Edge> edges_behind(const RuntimeGraph& graph, std::size_t item) {
  if (graph.at(item).outputs.empty()) return {};
  const std::string value = graph.at(item).outputs[0];
  std::vector<Edge> edges;
  for (const auto& reader : graph.readers(value)) edges.push_back({value, reader.item, reader.slot, reader.captured});
  if (graph.is_output(value)) {
    if (!edges.empty()) return {};
    edges.push_back({value});
  }
  return edges;
}

// value -> Q -> DQ per edge. At an output of the graph the name moves to the last DQ.
void insert_pairs(RuntimeGraph& graph, const std::vector<Edge>& edges, const Item& like) {
  const std::string value = edges[0].value;
  const std::size_t producer = graph.producer(value);
  std::string source = value;
  if (producer != kNone) {
    source = graph.fresh(value);
    graph.set_type(source, graph.type(value));
    auto& outputs = graph.at(producer).outputs;
    graph.set_output(producer, static_cast<std::size_t>(std::ranges::find(outputs, value) - outputs.begin()), source);
  }
  const std::string codes = graph.fresh(value);
  graph.set_type(codes, {.dtype = codes_type(graph, like), .shape = graph.type(value).shape});
  std::vector<std::string> params(like.inputs.begin() + 1, like.inputs.end());
  const auto inputs = [&](const std::string& data) {
    std::vector<std::string> all = {data};
    all.insert(all.end(), params.begin(), params.end());
    return all;
  };
  graph.add({.op = "QuantizeLinear", .domain = like.domain, .inputs = inputs(source), .outputs = {codes}});
  for (const Edge& edge : edges) {
    const std::string out = edge.to == kNone ? value : graph.fresh(value);
    graph.set_type(out, graph.type(value));
    graph.add({.op = "DequantizeLinear", .domain = like.domain, .inputs = inputs(codes), .outputs = {out}});
    if (edge.to != kNone) graph.set_input(edge.to, edge.slot, out);
  }
}

std::vector<Edge> crossing_edges(const RuntimeGraph& graph, const Edge& edge) {
  if (edge.to == kNone || !can_cross(graph, graph.at(edge.to))) return {};
  std::vector<Edge> edges = edges_behind(graph, edge.to);
  std::erase_if(edges, [&](const Edge& e) { return e.captured || (e.to != kNone && is_quantize(graph.at(e.to))); });
  return edges;
}

bool propagate_forward(RuntimeGraph& graph, const std::vector<std::size_t>& order) {
  bool changed = false;
  for (const std::size_t at : order) {
    const Item item = graph.at(at);
    if (!is_dequantize(item) || !graph.single(at) || !scalar_params(graph, item)) continue;
    std::vector<std::vector<Edge>> waiting = {crossing_edges(graph, edges_behind(graph, at).front())};
    while (!waiting.empty()) {
      const std::vector<Edge> edges = std::move(waiting.back());
      waiting.pop_back();
      if (edges.empty()) continue;
      insert_pairs(graph, edges, item);
      changed = true;
      for (const Edge& edge : edges) waiting.push_back(crossing_edges(graph, edge));
    }
  }
  return changed;
}

// The edge into input 0 when nobody else reads the value.
std::optional<Edge> edge_before(const RuntimeGraph& graph, std::size_t item) {
  const std::string value = graph.at(item).input(0);
  const std::size_t producer = graph.producer(value);
  if (producer == kNone)
    return graph.graph().scope_of(value) == &graph.graph() || graph.is_constant(value)
               ? std::optional(Edge{value, item, 0, false})
               : std::nullopt;
  if (graph.is_output(value) || graph.readers(value).size() != 1) return std::nullopt;
  return Edge{value, item, 0, false};
}

bool propagate_backward(RuntimeGraph& graph, const std::vector<std::size_t>& order) {
  bool changed = false;
  for (const std::size_t at : order) {
    const Item item = graph.at(at);
    if (!is_quantize(item) || !scalar_params(graph, item)) continue;
    auto edge = edge_before(graph, at);
    while (edge) {
      const std::size_t source = graph.producer(edge->value);
      if (source == kNone || !can_cross(graph, graph.at(source))) break;
      edge = edge_before(graph, source);
      if (!edge) break;
      const std::size_t before = graph.producer(edge->value);
      if (before != kNone && is_dequantize(graph.at(before))) break;
      insert_pairs(graph, {*edge}, item);
      changed = true;
      if (before == kNone) break;
      // Go on from what the new QuantizeLinear reads.
      edge->value = graph.at(graph.producer(graph.at(graph.producer(graph.at(source).input(0))).input(0))).input(0);
    }
  }
  return changed;
}

}  // namespace

bool propagate_pairs(RuntimeGraph& graph) {
  const std::vector<std::size_t> order = graph.order();
  const bool forward = propagate_forward(graph, order);
  return propagate_backward(graph, order) || forward;
}

bool int8_to_uint8(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    if (!is_quantize(graph.at(at)) || !graph.single(at)) continue;
    const std::size_t next = graph.only_reader(at);
    const Item quantize = graph.at(at), dequantize = graph.at(next);
    if (!is_dequantize(dequantize) || quantize.input(2).empty() || dequantize.input(2).empty()) continue;
    if (codes_type(graph, quantize) != DType::i8 || codes_type(graph, dequantize) != DType::i8) continue;
    const auto a = scalar_value(graph, quantize.input(2)), b = scalar_value(graph, dequantize.input(2));
    if (!a || a != b) continue;
    const std::string zero = graph.fresh("zero_point"), codes = graph.fresh("codes");
    graph.make_constant(zero, DType::u8, Dims{},
                        Tensor::scalar<std::uint8_t>(DType::u8, static_cast<std::uint8_t>(*a + 128)));
    graph.set_type(codes, {.dtype = DType::u8, .shape = graph.type(quantize.outputs[0]).shape});
    graph.set_output(at, 0, codes);
    graph.set_input(at, 2, zero);
    graph.set_input(next, 0, codes);
    graph.set_input(next, 2, zero);
    changed = true;
  }
  return changed;
}

bool drop_requantization(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    if (!graph.at(at).alive || !is_dequantize(graph.at(at)) || !graph.single(at)) continue;
    const std::size_t next = graph.only_reader(at);
    if (!is_quantize(graph.at(next)) || !is_pair(graph, graph.at(next), graph.at(at))) continue;
    const std::string codes = graph.at(at).input(0), out = graph.at(next).outputs[0];
    if (graph.is_output(out) && !graph.readers(out).empty()) continue;
    const std::size_t producer = graph.producer(codes);
    const std::string why = "back to the same codes: removed";
    graph.remove(at, why);
    graph.remove(next, why);
    if (!graph.is_output(out)) {
      graph.move_readers(out, codes);
    } else if (producer != kNone) {
      auto& outputs = graph.at(producer).outputs;
      graph.set_output(producer, static_cast<std::size_t>(std::ranges::find(outputs, codes) - outputs.begin()), out);
    }
    changed = true;
  }
  return changed;
}

}  // namespace onnxpress::runtime
