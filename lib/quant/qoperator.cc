#include "quant/qoperator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "ir/rewriter.h"
#include "quant/fusion.h"
#include "quant/qdq_view.h"

namespace onnxpress {
namespace {

constexpr const char* kContrib = "com.microsoft";
using Attributes = std::vector<std::pair<std::string, AttributeValue>>;

// A node with its conversions.
struct Group {
  Node node;
  std::vector<Node> dequantizes;  // by slot of the node; empty handles where there is none
  std::vector<Node> quantizes;    // by output
  Node clip;                      // a Relu or Clip before the only quantize
};

class Converter {
 public:
  Converter(Graph& graph, PassContext& context) : graph_(graph), context_(context), rewriter_(graph) {}

  // "" when converted, else why not.
  Result<std::string> convert(const NodeFate& fate) {
    const Group group = group_of(fate.node);
    const std::string op = fate.kernel.substr(fate.kernel.rfind('.') + 1);
    if (op == fate.node.op()) return move(group);
    if (op == "QLinearConv") return conv(group);
    if (op == "QLinearMatMul" || op == "MatMulIntegerToFloat") return matmul(group);
    if (op == "QGemm") return fate.node.is("MatMul") ? matmul(group) : gemm(group);
    if (op.starts_with("QLinear")) return elementwise(group, op);
    return "its integer form has no operator of its own here";
  }

  // Conversions that nobody reads any more, then everything at once.
  Result<bool> finish() {
    for (const Node& node : graph_.nodes()) {
      if (!is_dequantize(node) || graph_.is_output(node.output(0))) continue;
      const auto& uses = graph_.uses(node.output(0));
      const bool read = std::ranges::any_of(
          uses, [&](const Use& use) { return !use.node || !taken_.contains({use.node.proto(), use.slot}); });
      if (!read) rewriter_.erase(node);
    }
    return rewriter_.commit();
  }

 private:
  static Group group_of(const Node& node) {
    Group group{.node = node, .dequantizes = {}, .quantizes = {}, .clip = {}};
    for (std::size_t slot = 0; slot < node.input_count(); ++slot)
      group.dequantizes.push_back(dequantize_before(node, slot));
    const Graph& graph = node.graph();
    for (std::size_t k = 0; k < node.output_count(); ++k) {
      Node next = only_reader(graph, node.output(k));
      if (next && (next.is("Relu") || next.is("Clip"))) {
        group.clip = next;
        next = only_reader(graph, next.output(0));
      }
      group.quantizes.push_back(is_quantize(next) ? next : Node());
    }
    if (group.quantizes.empty() || !group.quantizes[0]) group.clip = Node();
    return group;
  }

  static bool all_from_codes(const Group& group, std::size_t first, std::size_t count) {
    for (std::size_t slot = first; slot < first + count; ++slot)
      if (slot >= group.dequantizes.size() || !group.dequantizes[slot]) return false;
    return true;
  }

  // The name of the zero point, written down when it was left out.
  std::string zero_point(const Node& conversion) {
    if (!conversion.input(2).empty()) return std::string(conversion.input(2));
    const auto scale = graph_.constant_type(conversion.input(1));
    const DType type = codes_type(conversion);
    std::string& name = zeros_[{type, scale ? scale->second : Dims{}}];
    if (name.empty()) {
      name = rewriter_.fresh_value("zero_point");
      rewriter_.add_initializer(name, Tensor(type, scale ? scale->second : Dims{}));
    }
    return name;
  }

  void append(std::vector<std::string>& inputs, const Node& conversion, bool data) {
    if (data) inputs.emplace_back(conversion.input(0));
    inputs.emplace_back(conversion.input(1));
    inputs.push_back(zero_point(conversion));
  }

  // The node takes its new form where it stands, under its own name.
  void become(const Group& group, std::string_view op, std::string_view domain, const std::vector<std::string>& inputs,
              const Attributes& attributes) {
    const Node& node = group.node;
    for (std::size_t slot = 0; slot < node.input_count(); ++slot) taken_.insert({node.proto(), slot});
    rewriter_.set_op(node, op, domain);
    for (const auto& [key, value] : attributes) rewriter_.set_attribute(node, key, value);
    for (std::size_t slot = 0; slot < inputs.size(); ++slot) rewriter_.set_input(node, slot, inputs[slot]);
    if (inputs.size() < node.input_count()) rewriter_.remove_last_inputs(node, inputs.size());
    for (std::size_t k = 0; k < group.quantizes.size(); ++k) {
      if (!group.quantizes[k]) continue;
      rewriter_.set_output(node, k, group.quantizes[k].output(0));
      rewriter_.erase(group.quantizes[k]);
    }
    if (group.clip) rewriter_.erase(group.clip);
    uses_contrib_ = uses_contrib_ || domain == kContrib;
    const std::string kernel = domain.empty() ? std::string(op) : fmt::format("{}.{}", domain, op);
    context_.done(node, kernel == node.op() ? "on codes" : kernel);
  }

  Result<std::string> move(const Group& group) {
    const Node& node = group.node;
    if (!group.dequantizes[0]) return "its codes only come from conversions that the runtime moves: it does so itself";
    if (group.clip) return "a Relu or Clip follows";
    for (const Node& quantize : group.quantizes)
      if (!quantize && !node.is("ArgMax")) return "its conversions are ones the runtime adds: it does so itself";
    for (const Node& quantize : group.quantizes) {
      if (!quantize) continue;
      if (scalar_params(quantize) != scalar_params(group.dequantizes[0])) return "its scales differ";
    }
    OP_LET(const Attributes attributes, node.attributes());
    std::vector<std::string> inputs = node.inputs();
    inputs[0] = std::string(group.dequantizes[0].input(0));
    const std::string op(node.op());
    become(group, op, "", inputs, attributes);
    for (std::size_t slot = 1; slot < node.input_count(); ++slot) taken_.erase({node.proto(), slot});
    return "";
  }

  Result<std::string> conv(const Group& group) {
    const Node& node = group.node;
    if (!all_from_codes(group, 0, 2) || !group.quantizes[0]) return incomplete();
    const bool bias = !node.input(2).empty();
    if (bias && !group.dequantizes[2]) return float_bias();
    std::vector<std::string> inputs;
    append(inputs, group.dequantizes[0], true);
    append(inputs, group.dequantizes[1], true);
    append(inputs, group.quantizes[0], false);
    if (bias) inputs.emplace_back(group.dequantizes[2].input(0));
    OP_LET(const Attributes attributes, node.attributes());
    become(group, "QLinearConv", "", inputs, attributes);
    return "";
  }

  Result<std::string> matmul(const Group& group) {
    if (!all_from_codes(group, 0, 2)) return incomplete();
    const Node &a = group.dequantizes[0], &b = group.dequantizes[1];
    std::vector<std::string> inputs;
    if (group.quantizes[0]) {
      append(inputs, a, true);
      append(inputs, b, true);
      append(inputs, group.quantizes[0], false);
      become(group, "QLinearMatMul", "", inputs, {});
      return "";
    }
    inputs = {std::string(a.input(0)), std::string(b.input(0)), std::string(a.input(1)),
              std::string(b.input(1)), zero_point(a),           zero_point(b)};
    become(group, "MatMulIntegerToFloat", kContrib, inputs, {});
    return "";
  }

  Result<std::string> gemm(const Group& group) {
    const Node& node = group.node;
    if (!all_from_codes(group, 0, 2)) return incomplete();
    const bool bias = !node.input(2).empty();
    if (bias && !group.dequantizes[2]) return float_bias();
    std::vector<std::string> inputs;
    append(inputs, group.dequantizes[0], true);
    append(inputs, group.dequantizes[1], true);
    if (bias || group.quantizes[0]) inputs.push_back(bias ? std::string(group.dequantizes[2].input(0)) : "");
    if (group.quantizes[0]) append(inputs, group.quantizes[0], false);
    Attributes attributes = {{"alpha", node.attr_float("alpha", 1)},
                             {"transA", node.attr_int("transA", 0)},
                             {"transB", node.attr_int("transB", 0)}};
    become(group, "QGemm", kContrib, inputs, attributes);
    return "";
  }

  Result<std::string> elementwise(const Group& group, const std::string& op) {
    const Node& node = group.node;
    const bool where = node.is("Where");
    const std::size_t first = where ? 1 : 0;
    if (!all_from_codes(group, first, node.input_count() - first) || !group.quantizes[0]) return incomplete();
    std::vector<std::string> inputs;
    if (where) inputs.emplace_back(node.input(0));
    if (node.is("Concat")) append(inputs, group.quantizes[0], false);
    for (std::size_t slot = first; slot < node.input_count(); ++slot) append(inputs, group.dequantizes[slot], true);
    if (!node.is("Concat")) append(inputs, group.quantizes[0], false);
    OP_LET(Attributes attributes, node.attributes());
    if (node.is("Softmax")) {
      const std::int64_t opset = graph_.model().opset();
      if (!node.has_attr("axis")) attributes.emplace_back("axis", std::int64_t{opset < 13 ? 1 : -1});
      attributes.emplace_back("opset", std::int64_t{opset < 11 ? 1 : opset < 13 ? 11 : 13});
    }
    become(group, op, kContrib, inputs, attributes);
    if (where) taken_.erase({node.proto(), 0});
    return "";
  }

  static std::string incomplete() {
    return "some of its conversions are only made by the runtime itself: run quant-repair first";
  }
  static std::string float_bias() { return "its bias is float: run quant-repair first"; }

 public:
  bool uses_contrib() const { return uses_contrib_; }

 private:
  Graph& graph_;
  PassContext& context_;
  Rewriter rewriter_;
  std::map<std::pair<DType, Dims>, std::string> zeros_;
  std::set<std::pair<const onnx::NodeProto*, std::size_t>> taken_;  // reads that the new forms no longer do
  bool uses_contrib_ = false;
};

bool in_function(const Graph& graph) {
  const Graph* at = &graph;
  while (at->parent() != nullptr) at = at->parent();
  return at->kind() == Graph::Kind::function;
}

// Written as an integer kernel, or data movement between conversions.
bool is_to_convert(const NodeFate& fate) {
  if (fate.fate != Fate::integer || is_integer_kernel(fate.node.op(), fate.node.domain())) return false;
  return fate.kernel != fate.node.op() || dequantize_before(fate.node, 0);
}

}  // namespace

Result<bool> to_qoperator(Model& model, PassContext& context, bool int8_activations) {
  const std::vector<NodeFate> fates = predict_fusion(model, {.int8_activations = int8_activations});
  bool changed = false, uses_contrib = false;
  for (Graph* graph : std::vector<Graph*>(model.graphs())) {
    if (in_function(*graph)) continue;
    Converter converter(*graph, context);
    for (const NodeFate& fate : fates) {
      if (&fate.node.graph() != graph || !is_to_convert(fate) || !context.selected(fate.node)) continue;
      OP_LET(const std::string why, converter.convert(fate));
      if (!why.empty()) context.skipped(fate.node, why);
    }
    OP_LET(const bool one, converter.finish());
    changed = changed || one;
    uses_contrib = uses_contrib || converter.uses_contrib();
  }
  if (uses_contrib && model.opset(kContrib) == 0) model.set_opset(kContrib, 1);
  return changed;
}

}  // namespace onnxpress
