#include "quant/fusion.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <unordered_map>

#include "quant/runtime_steps.h"

namespace onnxpress {
namespace {

using runtime::Item;

constexpr int kMostRounds = 10;  // the runtime's own limit for each level

// The order of the runtime matters: what an early step merges, a later one no longer finds.
void optimize(RuntimeGraph& graph, const RuntimeProfile& profile) {
  bool changed = true;
  for (int round = 0; round < kMostRounds && changed; ++round) {
    changed = runtime::drop_identities(graph);
    changed |= runtime::merge_double_pairs(graph);
    changed |= runtime::merge_equal_nodes(graph);
    changed |= runtime::fold_constants(graph);
    changed |= runtime::matmul_add_to_gemm(graph);
    changed |= runtime::propagate_pairs(graph);
    changed |= runtime::quantize_weights_and_biases(graph);
    changed |= runtime::unique_dequantize(graph);
  }
  changed = true;
  for (int round = 0; round < kMostRounds && changed; ++round) {
    changed = runtime::drop_redundant_clips(graph);
    if (!profile.int8_activations) changed |= runtime::int8_to_uint8(graph);
    changed |= runtime::select_groups(graph, profile.int8_activations);
    changed |= runtime::fuse_dynamic_matmuls(graph);
    changed |= runtime::add_bias_to_matmul_nbits(graph);
    changed |= runtime::drop_requantization(graph);
  }
}

// Ops that have no integer form, though 8-bit values around them suggest one.
struct NoForm {
  std::string_view op, advice;
};
constexpr std::array kNoForm = {
    NoForm{"ConvTranspose", "ConvTranspose has no int8 kernel"},
    NoForm{"BatchNormalization", "BatchNormalization has no integer kernel: run fold-batchnorm before quantizing"},
    NoForm{"LSTM", "LSTM stays float: quant-dynamic has an integer form"},
    NoForm{"GRU", "GRU stays float: the runtime has no integer form"},
    NoForm{"RNN", "RNN stays float: the runtime has no integer form"},
};

bool next_to_codes(const RuntimeGraph& graph, const Item& item) {
  for (const std::string& input : item.inputs)
    if (const std::size_t from = graph.producer(input);
        from != RuntimeGraph::kNone && runtime::is_dequantize(graph.at(from)))
      return true;
  return std::ranges::any_of(item.outputs, [&](const std::string& output) {
    return std::ranges::any_of(graph.readers(output),
                               [&](const auto& reader) { return runtime::is_quantize(graph.at(reader.item)); });
  });
}

bool on_codes(const RuntimeGraph& graph, const Item& item) {
  const std::size_t from = graph.producer(item.input(0));
  DType type = graph.type(item.input(0)).dtype;
  if (from != RuntimeGraph::kNone && runtime::is_quantize(graph.at(from)))
    type = runtime::codes_type(graph, graph.at(from));
  return type == DType::u8 || type == DType::i8 || type == DType::u16 || type == DType::i16;
}

// Whether the text of a blocker is worth telling: there is something quantized about the node.
std::string blocker_of(const RuntimeGraph& graph, const Item& item) {
  for (const NoForm& none : kNoForm)
    if (item.is(none.op)) return std::string(none.advice);
  const auto found = graph.blockers.find(item.origin);
  const bool quantized = next_to_codes(graph, item);
  if (found != graph.blockers.end()) {
    const bool kernel = item.is("Conv") || item.is("MatMul") || item.is("Gemm");
    return quantized || kernel ? found->second : "";
  }
  return quantized ? item.op + " has no integer kernel: the conversions around it are executed" : "";
}

NodeFate fate_of(const RuntimeGraph& graph, const Item& item) {
  NodeFate out{.node = item.source};
  const bool made_up = item.outputs.empty() || item.outputs[0].contains('\x01');
  if (runtime::is_quantize(item) || runtime::is_dequantize(item)) {
    out.fate = Fate::boundary;
  } else if (is_integer_kernel(item.op, item.domain) || item.op != out.node.op()) {
    out.fate = is_integer_kernel(item.op, item.domain) ? Fate::integer : Fate::floating;
    if (out.fate == Fate::floating) out.why = blocker_of(graph, item);
  } else if (on_codes(graph, item) && item.domain.empty()) {
    out.fate = Fate::integer;
  } else {
    out.why = blocker_of(graph, item);
  }
  if (out.fate == Fate::integer) {
    out.kernel = item.domain.empty() ? item.op : item.domain + "." + item.op;
    if (!made_up) out.value = item.outputs[0];
  }
  return out;
}

// Gathers on codes that between them take every index of an axis, and are alone in reading the value: the runtime makes
// them one Split with a Squeeze each. By their index in Graph::nodes().
std::set<std::size_t> gathers_of_splits(const RuntimeGraph& graph) {
  std::map<std::pair<std::string, std::int64_t>, std::vector<std::size_t>> groups;
  for (std::size_t at = 0; at < graph.size(); ++at) {
    const Item& item = graph.at(at);
    if (item.alive && item.origin != RuntimeGraph::kNone && item.is("Gather") && on_codes(graph, item))
      groups[{item.input(0), item.source.attr_int("axis", 0)}].push_back(at);
  }
  std::set<std::size_t> found;
  for (const auto& [group, members] : groups) {
    const Node& first = graph.at(members.front()).source;
    const auto shape = first.graph().type(first.input(0)).shape;
    if (!shape || graph.readers(group.first).size() != members.size()) continue;
    const auto rank = static_cast<std::int64_t>(shape->size());
    const std::int64_t axis = group.second < 0 ? group.second + rank : group.second;
    if (axis < 0 || axis >= rank) continue;
    const auto size = (*shape)[static_cast<std::size_t>(axis)].value;
    std::set<std::int64_t> taken;
    for (const std::size_t at : members) {
      const auto index = graph.scalar(graph.at(at).input(1));
      const auto values = index ? to_int64s(index->view()) : Result<std::vector<std::int64_t>>();
      if (size && values && values->size() == 1)
        taken.insert(values->front() < 0 ? values->front() + *size : values->front());
    }
    if (!size || taken.size() != members.size() || static_cast<std::int64_t>(taken.size()) != *size) continue;
    for (const std::size_t at : members) found.insert(graph.at(at).origin);
  }
  return found;
}

void predict(const Graph& scope, const RuntimeProfile& profile, std::vector<NodeFate>& out) {
  RuntimeGraph graph(scope);
  optimize(graph, profile);
  const std::vector<Node>& nodes = scope.nodes();
  std::vector<NodeFate> fates;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const auto gone = graph.gone.find(i);
    // Which of two equal float nodes stays is of no consequence.
    const bool converts = nodes[i].op() == "QuantizeLinear" || nodes[i].op() == "DequantizeLinear";
    if (graph.twins.contains(i) && !converts && !is_integer_kernel(nodes[i].op(), nodes[i].domain())) {
      fates.push_back({.node = nodes[i]});
      continue;
    }
    fates.push_back({.node = nodes[i], .fate = Fate::absorbed, .why = gone == graph.gone.end() ? "" : gone->second});
  }
  // A DequantizeLinear has become one per reader.
  std::set<std::size_t> taken;
  for (std::size_t at = 0; at < graph.size(); ++at) {
    const Item& item = graph.at(at);
    if (item.origin == RuntimeGraph::kNone) continue;
    if (item.alive)
      fates[item.origin] = fate_of(graph, item);
    else if (runtime::is_dequantize(item))
      taken.insert(item.origin);
  }
  for (const std::size_t i : taken) fates[i].partly = fates[i].fate == Fate::boundary;
  for (const std::size_t i : gathers_of_splits(graph))
    fates[i] = {.node = nodes[i], .fate = Fate::absorbed, .why = "part of a Split on codes"};
  std::ranges::move(fates, std::back_inserter(out));
}

}  // namespace

std::vector<NodeFate> predict_fusion(const Model& model, const RuntimeProfile& profile) {
  std::vector<NodeFate> out;
  for (const Graph* graph : model.graphs()) predict(*graph, profile, out);
  return out;
}

bool is_integer_kernel(std::string_view op, std::string_view domain) {
  if (op.starts_with("QLinear")) return true;
  if (domain.empty()) return op == "MatMulInteger" || op == "ConvInteger" || op == "DynamicQuantizeLinear";
  constexpr std::array<std::string_view, 13> kContrib = {"QGemm",
                                                         "MatMulIntegerToFloat",
                                                         "DynamicQuantizeMatMul",
                                                         "DynamicQuantizeLSTM",
                                                         "MatMulNBits",
                                                         "MatMulBnb4",
                                                         "QAttention",
                                                         "GatherBlockQuantized",
                                                         "MatMulInteger16",
                                                         "QEmbedLayerNormalization",
                                                         "QOrderedMatMul",
                                                         "QOrderedGelu",
                                                         "ReduceSumInteger"};
  return domain == "com.microsoft" && std::ranges::contains(kContrib, op);
}

}  // namespace onnxpress
