// Steps on single nodes that go before those on conversions.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "quant/runtime_steps.h"

namespace onnxpress::runtime {
namespace {

constexpr std::size_t kNone = RuntimeGraph::kNone;

// Removes a node that hands its first input on. Not when the name of its output must stay and cannot be given to the
// producer.
bool bypass(RuntimeGraph& graph, std::size_t at, const std::string& why) {
  const std::string in = graph.at(at).input(0), out = graph.at(at).outputs[0];
  const bool captured = std::ranges::any_of(graph.readers(out), &RuntimeGraph::Reader::captured);
  if (captured) return false;
  if (graph.is_output(out)) {
    const std::size_t producer = graph.producer(in);
    if (producer == kNone || !graph.readers(out).empty() || !graph.single(producer)) return false;
    graph.remove(at, why);
    auto& outputs = graph.at(producer).outputs;
    graph.set_output(producer, static_cast<std::size_t>(std::ranges::find(outputs, in) - outputs.begin()), out);
    return true;
  }
  graph.move_readers(out, in);
  graph.remove(at, why);
  return true;
}

std::string attribute_text(const Item& item) {
  if (!item.source) return {};
  const auto attributes = item.source.attributes();
  if (!attributes) return item.source.label();  // unreadable: equal to nothing else
  std::string text;
  for (const auto& [key, value] : *attributes) {
    text += key + "=";
    std::visit(
        [&](const auto& v) {
          using V = std::decay_t<decltype(v)>;
          if constexpr (std::is_same_v<V, Tensor>) {
            const auto bytes = v.bytes();
            text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
          } else {
            text += fmt::format("{}", v);
          }
        },
        value);
    text += ";";
  }
  return text;
}

// The runtime first gives equal small constants one name; codes of 8 bits are not among them.
std::string shared_name(const RuntimeGraph& graph, const std::string& value) {
  constexpr std::array kShared = {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i64};
  const auto type = graph.constant_type(value);
  if (!type || !type->second || type->second->size() > 1 || !std::ranges::contains(kShared, type->first)) return value;
  const auto constant = graph.scalar(value);
  if (!constant) return value;
  const auto bytes = constant->bytes();
  std::string name = fmt::format("\x02{} {} ", dtype_name(type->first), type->second->size());
  name.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return name;
}

bool deterministic(const Item& item) {
  return !item.op.starts_with("Random") && item.op != "Multinomial" && item.op != "Bernoulli" &&
         !(item.source && item.source.has_subgraph());
}

}  // namespace

bool unique_dequantize(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    if (!is_dequantize(graph.at(at))) continue;
    const std::string value = graph.at(at).outputs[0];
    const std::set<RuntimeGraph::Reader> readers = graph.readers(value);
    if (readers.empty() || graph.single(at)) continue;
    const bool keeps = graph.is_output(value) || std::ranges::any_of(readers, &RuntimeGraph::Reader::captured);
    bool first = !keeps;
    for (const auto& reader : readers) {
      if (reader.captured) continue;
      if (std::exchange(first, false)) continue;
      Item copy = graph.at(at);
      copy.outputs = {graph.fresh(value)};
      graph.set_type(copy.outputs[0], graph.type(value));
      const std::string name = copy.outputs[0];
      graph.add(std::move(copy));
      graph.set_input(reader.item, reader.slot, name);
      changed = true;
    }
  }
  return changed;
}

bool drop_identities(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item& item = graph.at(at);
    if (item.outputs.empty() || item.inputs.empty()) continue;
    bool drop = item.is("Identity");
    if (item.is("Dropout")) drop = item.outputs.size() == 1 || graph.readers(item.outputs[1]).empty();
    if (item.is("Cast") && item.source) {
      const DType from = graph.type(item.input(0)).dtype;
      drop = from != DType::undefined && static_cast<int>(from) == item.source.attr_int("to", 0);
    }
    if (drop && bypass(graph, at, "does nothing: removed")) changed = true;
  }
  return changed;
}

bool merge_equal_nodes(RuntimeGraph& graph) {
  std::map<std::string, std::vector<std::size_t>> seen;
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item& item = graph.at(at);
    if (!deterministic(item) || item.inputs.empty() || is_dequantize(item)) continue;
    std::string key = item.domain + "\x03" + item.op;
    for (const std::string& input : item.inputs) key += "\x03" + shared_name(graph, input);
    auto& alike = seen[key];
    const auto twin = std::ranges::find_if(alike, [&](std::size_t other) {
      return graph.at(other).outputs.size() == item.outputs.size() &&
             attribute_text(graph.at(other)) == attribute_text(item);
    });
    if (twin == alike.end()) {
      alike.push_back(at);
      continue;
    }
    const bool captured = std::ranges::any_of(item.outputs, [&](const std::string& output) {
      return std::ranges::any_of(graph.readers(output), &RuntimeGraph::Reader::captured);
    });
    if (captured) continue;
    for (std::size_t k = 0; k < item.outputs.size(); ++k)
      graph.move_readers(item.outputs[k], graph.at(*twin).outputs[k]);
    if (graph.makes_output(at)) continue;
    const Item& kept = graph.at(*twin);
    if (item.origin != kNone) graph.twins.insert(item.origin);
    graph.remove(at, "the same as " + (kept.source ? kept.source.label() : kept.op) + ": computed once");
    changed = true;
  }
  return changed;
}

namespace {

bool all_constant(const RuntimeGraph& graph, const Item& item) {
  return std::ranges::all_of(item.inputs, [&](const std::string& v) { return v.empty() || graph.is_constant(v); });
}

// DequantizeLinear stays, unless all of DQ -> one node -> Q can be computed.
bool is_foldable_unit(const RuntimeGraph& graph, std::size_t dequantize) {
  if (!graph.single(dequantize)) return false;
  const std::size_t middle = graph.only_reader(dequantize);
  const Item& node = graph.at(middle);
  if (node.inputs.size() != 1 || node.outputs.size() != 1 || !deterministic(node) || !graph.single(middle))
    return false;
  return is_quantize(graph.at(graph.only_reader(middle)));
}

bool is_foldable(const RuntimeGraph& graph, std::size_t at) {
  const Item& item = graph.at(at);
  if (item.is("Shape") && graph.type(item.input(0)).static_shape()) return true;
  if (item.inputs.empty() || !deterministic(item) || !all_constant(graph, item)) return false;
  if (!item.domain.empty() && item.domain != "com.microsoft") return false;
  return !is_dequantize(item) || is_foldable_unit(graph, at);
}

}  // namespace

bool fold_constants(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    if (!is_foldable(graph, at) && !graph.at(at).is("Constant")) continue;
    const Item item = graph.at(at);
    for (const std::string& output : item.outputs) {
      const ValueType type = graph.type(output);
      const DType dtype = is_quantize(item) ? codes_type(graph, item) : type.dtype;
      if (!item.is("Constant")) graph.make_constant(output, dtype, type.static_shape());
    }
    graph.remove(at, item.is("Constant") ? "a constant" : "constant: computed once when the model is loaded");
    changed = true;
  }
  return changed;
}

namespace {

bool same_dim(const Dim& a, const Dim& b) {
  return (a.value && a.value == b.value) || (!a.value && !b.value && !a.symbol.empty() && a.symbol == b.symbol);
}

// C of a Gemm is [N], and when A is a matrix also [1, N], [M, 1] or [M, N].
bool bias_fits(const ValueType& bias, const std::vector<Dim>& a, const Dim& n) {
  if (!bias.shape) return false;
  const std::vector<Dim>& c = *bias.shape;
  if (c.size() == 1) return same_dim(c[0], n);
  if (a.size() != 2 || c.size() != 2) return false;
  const bool one_row = c[0].value == 1;
  return (one_row && same_dim(c[1], n)) || (same_dim(c[0], a[0]) && (c[1].value == 1 || same_dim(c[1], n)));
}

ValueType float_matrix(DType dtype) { return {.dtype = dtype, .shape = std::vector<Dim>(2)}; }

}  // namespace

bool matmul_add_to_gemm(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item matmul = graph.at(at);
    if (!matmul.alive || !matmul.is("MatMul") || !graph.single(at)) continue;
    const std::size_t next = graph.only_reader(at);
    const Item add = graph.at(next);
    if (!add.is("Add")) continue;
    const ValueType a = graph.type(matmul.input(0)), b = graph.type(matmul.input(1));
    if (!a.shape || !b.shape || b.shape->size() != 2) continue;
    if (a.dtype != DType::f32 && a.dtype != DType::f16) continue;
    const bool reshape = a.shape->size() != 2;
    if (reshape && (!a.static_shape() || !b.static_shape())) continue;
    const std::string& bias = add.input(add.input(0) == matmul.outputs[0] ? 1 : 0);
    if (!bias_fits(graph.type(bias), *a.shape, (*b.shape)[1])) continue;
    std::string x = matmul.input(0), y = add.outputs[0];
    graph.remove(next, "added by the Gemm that " + matmul.source.label() + " becomes");
    if (reshape) {
      const std::string shape = graph.fresh("shape");
      graph.make_constant(shape, DType::i64, Dims{2});
      const std::string flat = graph.fresh(x), result = graph.fresh(y);
      graph.set_type(flat, float_matrix(a.dtype));
      graph.set_type(result, float_matrix(a.dtype));
      graph.add({.op = "Reshape", .inputs = {x, shape}, .outputs = {flat}});
      graph.add({.op = "Reshape", .inputs = {result, shape}, .outputs = {y}});
      x = flat;
      y = result;
    }
    graph.at(at).op = "Gemm";
    graph.set_input(at, 2, bias);
    graph.set_input(at, 0, x);
    graph.set_output(at, 0, y);
    changed = true;
  }
  return changed;
}

}  // namespace onnxpress::runtime
