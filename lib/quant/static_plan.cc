#include "quant/static_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "pass/weights.h"

namespace onnxpress {
namespace {

constexpr std::array<std::string_view, 3> kKernels = {"Conv", "Gemm", "MatMul"};
// With an integer kernel of their own (QLinear*).
constexpr std::array<std::string_view, 7> kOwnRange = {
    "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu"};
// Values pass through unchanged, or a subset of them, or their maximum: one set of parameters on both sides. Pad has
// no integer kernel, but costs one conversion each way only where both neighbours are integer.
constexpr std::array<std::string_view, 12> kMovement = {"Reshape",   "Transpose", "Flatten",      "Squeeze",
                                                        "Unsqueeze", "Slice",     "Gather",       "Expand",
                                                        "Tile",      "MaxPool",   "DepthToSpace", "Pad"};

bool contains(std::span<const std::string_view> list, std::string_view op) {
  return std::ranges::find(list, op) != list.end();
}

StaticRole role_of(const Node& node) {
  if (!node.domain().empty()) return StaticRole::none;
  if (contains(kKernels, node.op())) return StaticRole::kernel;
  if (contains(kOwnRange, node.op())) return StaticRole::own_range;
  if (contains(kMovement, node.op())) return StaticRole::movement;
  return StaticRole::none;
}

// Why a Conv, Gemm or MatMul cannot run in integers; "" when it can.
std::string kernel_refusal(const Node& node) {
  const Graph& graph = node.graph();
  const auto weight = graph.constant_type(node.input(1));
  if (!weight) return not_constant_reason(node, 1);
  if (weight->first != DType::f32) return fmt::format("its weight is {}, not float", dtype_name(weight->first));
  if (graph.is_constant(node.input(0))) return "its data input is a constant: run fold-constants";
  if (node.is("MatMul") && weight->second.size() != 2) return "its weight is not a matrix";
  if (node.is("Gemm") && node.attr_int("transA", 0) != 0) return "transA has no integer form";
  const std::string_view bias = node.input(2);
  if (bias.empty()) return {};
  const auto bias_type = graph.constant_type(bias);
  if (!bias_type) return "its bias is not a constant";
  if (bias_type->first != DType::f32) return "its bias is not float";
  const auto channels = weight->second[node.is("Gemm") && node.attr_int("transB", 0) == 0 ? 1 : 0];
  const auto elements = static_cast<std::int64_t>(element_count(bias_type->second).value_or(0));
  const bool per_channel = !bias_type->second.empty() && bias_type->second.back() == channels && elements == channels;
  return per_channel || elements == 1 ? "" : "its bias is not one value per output channel";
}

// Why a node with an integer form but without weights stays float, judged by itself; "" when nothing is in the way.
std::string glue_refusal(const Node& node, const Model& model) {
  if (node.is("MaxPool") && model.opset() < 12) return "MaxPool on 8-bit values needs opset 12";
  if (node.is("MaxPool") && !node.output(1).empty()) return "its Indices output is used";
  if (node.is("AveragePool") && node.has_attr("dilations")) return "dilations have no integer form";
  if (node.is("Pad") && node.attr_string("mode", "constant") == "constant") {
    // Padding with anything but 0 could lie outside the range of the input.
    if (model.opset() < 11) return node.attr_float("value", 0) == 0 ? "" : "it pads with a value that is not 0";
    if (node.input(2).empty()) return {};
    const auto value = node.graph().constant(node.input(2));
    if (!value || !*value || (*value)->dtype() != DType::f32 || (*value)->size() != 1 || (*value)->as<float>()[0] != 0)
      return "it pads with a value that is not 0";
  }
  return {};
}

std::vector<std::size_t> data_slots(const Node& node) {
  if (node.is("Add") || node.is("Mul")) return {0, 1};
  if (!node.is("Concat")) return {0};
  std::vector<std::size_t> all(node.input_count());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

// A Relu, or a Clip whose lower bound is 0, that alone reads `value`: the runtime drops it, because the codes of a
// non-negative range start at 0 and the measured maximum never exceeds the upper bound.
Node absorbed_activation(const Graph& graph, const std::string& value) {
  const auto& uses = graph.uses(value);
  if (graph.is_output(value) || uses.size() != 1 || !uses[0].node || uses[0].captured || uses[0].slot != 0) return {};
  const Node next = uses[0].node;
  if (next.is("Relu")) return next;
  if (!next.is("Clip")) return {};
  if (graph.model().opset() < 11) return next.attr_float("min", -1) == 0 ? next : Node();
  const auto low = graph.constant(next.input(1));
  const bool from_zero =
      low && *low && (*low)->dtype() == DType::f32 && (*low)->size() == 1 && (*low)->as<float>()[0] == 0;
  return from_zero && (next.input(2).empty() || graph.is_constant(next.input(2))) ? next : Node();
}

class Planner {
 public:
  Planner(const Model& model, PassContext& context) : model_(model), graph_(model.main()), context_(context) {}

  StaticPlan run() {
    for (const Node& node : graph_.nodes()) consider(node);
    keep_useful();
    collect();
    journal_scopes();
    return std::move(plan_);
  }

 private:
  // Forward: kernels, and glue all of whose data inputs come from integer nodes.
  void consider(const Node& node) {
    const StaticRole role = role_of(node);
    if (role == StaticRole::none) return;
    StaticNode item{node, role, data_slots(node), std::string(node.output(0)), false};
    if (role == StaticRole::kernel) {
      if (!context_.selected(node)) return;
      if (const std::string reason = kernel_refusal(node); !reason.empty()) return context_.skipped(node, reason);
      if (follows_dilated_pool(node))
        return context_.skipped(node, "it reads a pool with dilations between 8-bit values");
      warn_about_batchnorm(node);
      item.quantize_output = node.is("Conv");
    } else {
      const bool fed = std::ranges::all_of(
          item.data_slots, [&](std::size_t slot) { return available_.contains(std::string(node.input(slot))); });
      if (!fed) return;  // between float nodes: no candidate, no news
      if (!context_.selected(node)) return;
      if (const std::string reason = glue_refusal(node, model_); !reason.empty()) return context_.skipped(node, reason);
    }
    if (role != StaticRole::movement)
      if (const Node activation = absorbed_activation(graph_, item.output))
        item.output = std::string(activation.output(0));
    available_.insert(item.output);
    candidates_.push_back(std::move(item));
  }

  // ONNX Runtime turns every AveragePool between 8-bit values into QLinearAveragePool, which knows no dilations, and
  // then refuses its own graph (seen with 1.21). So nothing is quantized behind such a pool.
  bool follows_dilated_pool(const Node& node) const {
    const Node pool = graph_.producer(node.input(0));
    if (!pool || !pool.is("AveragePool") || !pool.has_attr("dilations")) return false;
    const Node source = graph_.producer(pool.input(0));
    return available_.contains(std::string(pool.input(0))) || (source && source.is("DequantizeLinear"));
  }

  void warn_about_batchnorm(const Node& node) {
    const auto& uses = graph_.uses(node.output(0));
    if (uses.size() == 1 && uses[0].node && uses[0].node.is("BatchNormalization") && !warned_) {
      context_.journal.warning("BatchNormalization follows convolutions: run fold-batchnorm before quant-static");
      warned_ = true;
    }
  }

  // Backward: glue stays only where an integer node reads its result.
  void keep_useful() {
    std::unordered_set<std::string> wanted;
    std::vector<StaticNode> kept;
    for (auto item = candidates_.rbegin(); item != candidates_.rend(); ++item) {
      const bool read = wanted.contains(item->output);
      if (item->role != StaticRole::kernel && !read) {
        context_.skipped(item->node, "no integer node reads its result");
        continue;
      }
      item->quantize_output = item->quantize_output || read;
      for (const std::size_t slot : item->data_slots) wanted.emplace(item->node.input(slot));
      kept.push_back(std::move(*item));
    }
    std::ranges::reverse(kept);
    plan_.nodes = std::move(kept);
  }

  void collect() {
    std::unordered_set<std::string> seen;
    const auto add = [&](const std::string& value) {
      if (seen.insert(value).second) plan_.values.push_back(value);
    };
    for (const StaticNode& item : plan_.nodes) {
      for (const std::size_t slot : item.data_slots) add(std::string(item.node.input(slot)));
      if (item.quantize_output) add(item.output);
      if (item.role == StaticRole::movement) plan_.range_of[item.output] = std::string(item.node.input(0));
    }
  }

  void journal_scopes() {
    for (const Graph* graph : model_.graphs())
      if (graph != &graph_)
        for (const Node& node : graph->nodes())
          if (role_of(node) == StaticRole::kernel)
            context_.skipped(node, "it is inside a body or a function, which is not calibrated");
  }

  const Model& model_;
  const Graph& graph_;
  PassContext& context_;
  std::vector<StaticNode> candidates_;
  std::unordered_set<std::string> available_;  // values that come from an integer node
  StaticPlan plan_;
  bool warned_ = false;
};

}  // namespace

std::string StaticPlan::root(const std::string& value) const {
  std::string at = value;
  for (auto next = range_of.find(at); next != range_of.end(); next = range_of.find(at)) at = next->second;
  return at;
}

StaticPlan plan_static(const Model& model, PassContext& context) { return Planner(model, context).run(); }

}  // namespace onnxpress
