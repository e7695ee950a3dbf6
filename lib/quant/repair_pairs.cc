// Repairs that add, move and remove QuantizeLinear and DequantizeLinear.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "calib/ranges.h"
#include "ir/rewriter.h"
#include "quant/fusion.h"
#include "quant/qdq_view.h"
#include "quant/repair.h"

namespace onnxpress::repair {
namespace {

std::vector<std::string> with_params(std::string data, const Node& like) {
  std::vector<std::string> inputs = {std::move(data), std::string(like.input(1))};
  if (!like.input(2).empty()) inputs.emplace_back(like.input(2));
  return inputs;
}

std::vector<std::pair<std::string, AttributeValue>> attributes_of(const Node& node) {
  auto attributes = node.attributes();
  return attributes ? std::move(*attributes) : std::vector<std::pair<std::string, AttributeValue>>{};
}

bool has_integer_form(const Node& node) {
  constexpr std::array<std::string_view, 12> kForms = {
      "Conv",    "MatMul",    "Gemm", "Add", "Mul", "Concat", "Sigmoid", "AveragePool", "GlobalAveragePool",
      "Softmax", "LeakyRelu", "Where"};
  return node && node.domain().empty() && std::ranges::contains(kForms, node.op());
}

// Every input that carries activations comes from a DequantizeLinear.
bool reads_codes(const Node& node) {
  const std::size_t first = node.is("Where") ? 1 : 0;
  for (std::size_t slot = first; slot < node.input_count(); ++slot) {
    if (node.input(slot).empty()) continue;
    const bool bias = slot == 2 && (node.is("Conv") || node.is("Gemm"));
    if (!bias && !dequantize_before(node, slot)) return false;
  }
  return true;
}

// The value behind the node that is quantized: its output, or that of a Relu or Clip that alone reads it.
std::string result_of(const Node& node) {
  const Node next = only_reader(node.graph(), node.output(0));
  return std::string(next && (next.is("Relu") || next.is("Clip")) ? next.output(0) : node.output(0));
}

// Q and DQ directly behind the producer, in the place of those that stood further down; every reader of `value` then
// reads what the DQ makes.
struct Placed {
  std::string codes, dequantized;
};

class Sharing {
 public:
  Sharing(Graph& graph, Rewriter& rewriter) : graph_(graph), rewriter_(rewriter) {}

  // "" when done, else why not. `quantize`: the one whose parameters hold.
  std::string share(const std::string& value, const Node& quantize, const std::vector<Node>& others) {
    for (const Node& other : others)
      if (dequantizes_of(graph_, other.output(0)).empty()) return "its codes of another scale are read elsewhere";
    const Node producer = graph_.producer(value);
    const bool output = graph_.is_output(value);
    std::string source = value, dequantized = rewriter_.fresh_value(value + "_dequantized");
    if (output) {
      source = rewriter_.fresh_value(value + "_float");
      dequantized = value;
      for (std::size_t k = 0; k < producer.output_count(); ++k)
        if (producer.output(k) == value) rewriter_.set_output(producer, k, source);
    } else if (!rewriter_.replace_uses(value, dequantized)) {
      return "a body reads its result";
    }
    rewriter_.insert_after(producer, {.op = "QuantizeLinear",
                                      .inputs = with_params(source, quantize),
                                      .outputs = {std::string(quantize.output(0))},
                                      .attributes = attributes_of(quantize),
                                      .domain = std::string(quantize.domain()),
                                      .name = std::string(quantize.name())});
    rewriter_.insert_after(producer, {.op = "DequantizeLinear",
                                      .inputs = with_params(std::string(quantize.output(0)), quantize),
                                      .outputs = {dequantized},
                                      .domain = std::string(quantize.domain()),
                                      .name = rewriter_.fresh_node(value + "_DequantizeLinear")});
    rewriter_.erase(quantize);
    for (const Node& other : others) {
      for (const Node& dq : dequantizes_of(graph_, other.output(0))) {
        if (!rewriter_.replace_uses(dq.output(0), dequantized)) return "its dequantized value is a graph output";
        rewriter_.erase(dq);
      }
      rewriter_.erase(other);
    }
    return "";
  }

 private:
  Graph& graph_;
  Rewriter& rewriter_;
};

}  // namespace

Result<bool> share_codes(Graph& graph, PassContext& context) {
  bool changed = false;
  for (std::size_t at = 0; at < graph.nodes().size(); ++at) {
    const Node node = graph.nodes()[at];
    if (!has_integer_form(node) || !reads_codes(node)) continue;
    const std::string value = result_of(node);
    std::vector<Node> quantizes;
    std::size_t readers = graph.is_output(value) ? 1 : 0;
    bool captured = false;
    for (const Use& use : graph.uses(value)) {
      captured = captured || use.captured || !use.node;
      if (!use.captured && is_quantize(use.node))
        quantizes.push_back(use.node);
      else
        ++readers;
    }
    if (quantizes.empty() || (readers == 0 && quantizes.size() == 1) || !context.selected(node)) continue;
    if (captured) {
      context.skipped(node, "a body reads its result");
      continue;
    }
    const bool dequantized_output = std::ranges::any_of(quantizes, [&](const Node& q) {
      return std::ranges::any_of(graph.uses(q.output(0)),
                                 [&](const Use& use) { return use.node && graph.is_output(use.node.output(0)); });
    });
    if (quantizes.size() > 1 && dequantized_output) {
      context.skipped(node, "it is quantized more than once, and one of the results is a graph output");
      continue;
    }
    const Node first = quantizes.front();
    quantizes.erase(quantizes.begin());
    Rewriter rewriter(graph);
    const std::string why = Sharing(graph, rewriter).share(value, first, quantizes);
    if (!why.empty()) {
      context.skipped(node, why);
      continue;
    }
    context.done(node, "all readers of its result take the dequantized value (rounded to codes)");
    OP_LET(const bool one, rewriter.commit());
    changed = changed || one;
  }
  return changed;
}

namespace {

// The Q that follows behind data movement only: its parameters hold for the movement's input too (rounding and clamping
// commute with choosing and moving values, and with the maximum).
Node quantize_behind_movement(const Graph& graph, const std::string& value) {
  Node next = only_reader(graph, value);
  while (is_movement(next) && !next.is("Resize")) next = only_reader(graph, next.output(0));
  return is_quantize(next) ? next : Node();
}

void insert_pair(Graph& graph, Rewriter& rewriter, const std::string& value, const std::string& scale,
                 const std::string& zero_point) {
  const Node producer = graph.producer(value);
  std::string source = value, dequantized = rewriter.fresh_value(value + "_dequantized");
  if (!rewriter.replace_uses(value, dequantized)) {
    source = rewriter.fresh_value(value + "_float");
    dequantized = value;
    for (std::size_t k = 0; k < producer.output_count(); ++k)
      if (producer.output(k) == value) rewriter.set_output(producer, k, source);
  }
  const std::string codes = rewriter.fresh_value(value + "_quantized");
  rewriter.insert_after(producer, {.op = "QuantizeLinear",
                                   .inputs = {source, scale, zero_point},
                                   .outputs = {codes},
                                   .name = rewriter.fresh_node(value + "_QuantizeLinear")});
  rewriter.insert_after(producer, {.op = "DequantizeLinear",
                                   .inputs = {codes, scale, zero_point},
                                   .outputs = {dequantized},
                                   .name = rewriter.fresh_node(value + "_DequantizeLinear")});
}

struct Missing {
  Node node;
  std::string value;
};

Result<bool> quantize_measured(Graph& graph, Rewriter& rewriter, const std::vector<Missing>& missing,
                               PassContext& context) {
  const bool main = graph.kind() == Graph::Kind::main;
  std::vector<ValueRef> values;
  for (const Missing& each : missing) values.push_back({each.value, main ? nullptr : &graph});
  OP_LET(const RangeTable ranges, measure_ranges(context, graph.model(), values, RangeSettings{}));
  for (std::size_t i = 0; i < missing.size(); ++i) {
    const ValueRange& range = ranges.at(range_key(values[i]));
    const DType type = codes_type(dequantize_before(missing[i].node, 0));
    const AffineParams params = choose_affine(range.min, range.max, type, false);
    const std::string scale = rewriter.fresh_value(missing[i].value + "_scale");
    const std::string zero = rewriter.fresh_value(missing[i].value + "_zero_point");
    rewriter.add_initializer(scale, Tensor::scalar<float>(DType::f32, params.scale));
    rewriter.add_initializer(zero, code_scalar(type, params.zero_point));
    insert_pair(graph, rewriter, missing[i].value, scale, zero);
    context.done(missing[i].node,
                 fmt::format("its result is quantized to the measured range [{:.4g}, {:.4g}]", range.min, range.max));
  }
  return !missing.empty();
}

}  // namespace

Result<bool> quantize_outputs(Graph& graph, PassContext& context) {
  Rewriter rewriter(graph);
  std::vector<Missing> missing;
  for (const Node& node : graph.nodes()) {
    if (!node.is("Conv") || !reads_codes(node)) continue;
    const std::string value = result_of(node);
    const auto& uses = graph.uses(value);
    if (std::ranges::any_of(uses, [](const Use& use) { return is_quantize(use.node); })) continue;
    if (!context.selected(node)) continue;
    if (const Node behind = quantize_behind_movement(graph, value); behind && !behind.input(2).empty()) {
      insert_pair(graph, rewriter, value, std::string(behind.input(1)), std::string(behind.input(2)));
      context.done(node, "its result is quantized as it is behind the data movement that follows");
    } else if (context.activations != nullptr) {
      missing.push_back({node, value});
    } else {
      context.skipped(node, "its output is not quantized, and without --data its range is not known");
    }
  }
  if (!missing.empty()) OP_TRY(quantize_measured(graph, rewriter, missing, context));
  return rewriter.commit();
}

Result<bool> drop_useless_pairs(Graph& graph, PassContext& context, bool int8_activations) {
  std::map<const onnx::NodeProto*, Fate> fates;
  for (const NodeFate& fate : predict_fusion(graph.model(), {.int8_activations = int8_activations}))
    fates[fate.node.proto()] = fate.fate;
  Rewriter rewriter(graph);
  for (const Node& node : graph.nodes()) {
    if (!is_quantize(node) || fates[node.proto()] != Fate::boundary || graph.is_constant(node.input(0))) continue;
    const std::vector<Node> behind = dequantizes_of(graph, node.output(0));
    const bool all_float = std::ranges::all_of(behind, [&](const Node& dq) {
      return fates[dq.proto()] == Fate::boundary && scalar_params(dq) == scalar_params(node);
    });
    if (behind.empty() || !all_float || !context.selected(node)) continue;
    bool dropped = true;
    for (const Node& dq : behind) {
      if (!rewriter.replace_uses(dq.output(0), node.input(0))) {
        dropped = false;
        continue;
      }
      rewriter.erase(dq);
    }
    if (!dropped) {
      context.skipped(node, "no kernel uses its codes, but the dequantized value is a graph output");
      continue;
    }
    rewriter.erase(node);
    context.done(node, "removed with the DequantizeLinear behind it: no integer kernel uses its codes");
  }
  return rewriter.commit();
}

}  // namespace onnxpress::repair
