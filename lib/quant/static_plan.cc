#include "quant/static_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace onnxpress {
namespace {

// ONNX Runtime turns every AveragePool between 8-bit values into QLinearAveragePool, which knows no dilations, and
// then refuses its own graph (seen with 1.21). So nothing is quantized around such a pool.
bool beside_dilated_pool(const Node& node) {
  const Node pool = node.graph().producer(node.input(0));
  return pool && pool.is("AveragePool") && pool.has_attr("dilations");
}

// The bias of a MatMul: the runtime adds it in the product's kernel.
bool is_matmul_bias(const Node& node) {
  if (!node.is("Add")) return false;
  const Graph& graph = node.graph();
  for (const std::size_t slot : {0UZ, 1UZ}) {
    const Node producer = graph.producer(node.input(slot));
    if (graph.is_constant(node.input(1 - slot)) && producer && (producer.is("MatMul") || producer.is("Gemm")))
      return true;
  }
  return false;
}

// A Mul by a constant whose values lie far apart makes a tensor that no single scale serves.
constexpr float kApart = 50;
bool spreads_values(const Node& node) {
  if (!node.is("Mul")) return false;
  for (const std::size_t slot : {0UZ, 1UZ}) {
    const auto constant = node.graph().constant(node.input(slot));
    if (!constant || !*constant || !is_float((*constant)->dtype())) continue;
    const auto values = to_floats((*constant)->view());
    if (!values) continue;
    float least = 0, most = 0;
    for (const float value : *values) {
      const float size = std::abs(value);
      if (size > 0 && (least == 0 || size < least)) least = size;
      most = std::max(most, size);
    }
    if (least > 0 && most > kApart * least) return true;
  }
  return false;
}

// Nodes without arithmetic of their own are judged by their neighbours, so a refusal is news only to plan().
std::string refusal_of(const Node& node, const PassContext& context) {
  for (const Selection* selection : context.selections)
    if (std::string refusal = selection->refusal(node); !refusal.empty()) return refusal;
  return {};
}

// Convolutions hide what follows them from the runtime's fusions until it is folded into their weights.
std::string unfolded(const Node& node) {
  const auto& uses = node.graph().uses(node.output(0));
  if (!node.is("Conv") || uses.size() != 1 || !uses[0].node) return {};
  if (uses[0].node.is("BatchNormalization")) return "BatchNormalization follows convolutions: run fold-batchnorm";
  if (uses[0].node.is("Add") && node.graph().is_constant(uses[0].node.input(1 - uses[0].slot)))
    return "biases are added behind convolutions: run fold-bias";
  return {};
}

bool works_on_images(const Node& node) {
  return node && (node.is("Conv") || node.is("MaxPool") || node.is("AveragePool") || node.is("GlobalAveragePool"));
}

// An integer node has to gain this much, for the model of costs is not exact: a share of its integer time, and
// microseconds where the codes of its result cost accuracy without saving weights.
constexpr double kMargin = 1.05;
constexpr double kWorthwhile = 0.5;

}  // namespace

std::string StaticPlan::root(const std::string& value) const {
  std::string at = value;
  for (auto next = range_of.find(at); next != range_of.end(); next = range_of.find(at)) at = next->second;
  return at;
}

StaticPlanner::StaticPlanner(Graph& graph, const StaticRules& rules, PassContext& context)
    : graph_(&graph), rules_(rules) {
  if (rules.placement == Placement::cost) costs_ = CostModel::of(rules.target);
  for (const Node& node : graph.nodes()) consider(node, context);
}

void StaticPlanner::consider(const Node& node, PassContext& context) {
  const StaticRole role = static_role(node, rules_.target, rules_.attention);
  if (role == StaticRole::none) return;
  StaticNode unit{.node = node, .role = role};
  const bool kernel = role == StaticRole::kernel || role == StaticRole::product;
  for (const std::size_t slot : data_slots(node, role)) {
    if (!graph_->is_constant(node.input(slot)))
      unit.data_slots.push_back(slot);
    else if (role == StaticRole::own_range)
      unit.constant_slots.push_back(slot);
  }
  if (!kernel && (unit.data_slots.empty() || is_matmul_bias(node))) return;
  if (kernel && !context.selected(node)) return;
  std::string reason = kernel ? "" : refusal_of(node, context);
  if (reason.empty()) reason = static_refusal(node, role);
  if (reason.empty() && kernel && beside_dilated_pool(node)) reason = "it reads a pool with dilations";
  if (kernel && !reason.empty()) return context.skipped(node, reason);
  if (const std::string warning = unfolded(node); !warning.empty() && warned_.insert(warning).second)
    context.journal.warning(warning + " before quant-static");
  if (spreads_values(node)) {
    context.journal.warning(fmt::format("'{}' multiplies by constants more than {} times apart: its result stays float",
                                        node.label(), kApart));
    reason = "it multiplies by constants that lie too far apart for one scale";
  }
  if (!reason.empty()) keep_float(node, reason);
  unit.outputs = node.outputs();
  std::erase(unit.outputs, "");
  if (role != StaticRole::movement && quantizes_results(rules_.target)) {
    unit.absorbed = absorbed_activation(*graph_, node.output(0));
    if (unit.absorbed) unit.outputs = {std::string(unit.absorbed->node.output(0))};
  }
  unit.quantize_output = quantizes_results(rules_.target) && !node.is("Gemm") && !node.is("MatMul");
  units_.push_back(std::move(unit));
}

std::vector<SeenTypes::Read> StaticPlanner::reads() const {
  std::vector<SeenTypes::Read> reads;
  for (const StaticNode& unit : units_) {
    for (const std::size_t slot : unit.data_slots) reads.push_back({graph_, std::string(unit.node.input(slot))});
    reads.push_back({graph_, std::string(unit.node.output(0))});
    for (const std::string& output : unit.outputs) reads.push_back({graph_, output});
  }
  return reads;
}

void StaticPlanner::set_types(const SeenTypes& types) { types_ = &types; }

void StaticPlanner::keep_float(const std::string& value, const std::string& reason) {
  std::vector<std::string> moved = {value};
  for (std::size_t i = 0; i < moved.size(); ++i) {
    if (!unfit_.emplace(moved[i], reason).second) continue;
    for (const StaticNode& unit : units_)
      if (unit.role == StaticRole::movement && unit.node.input(0) == moved[i])
        moved.insert(moved.end(), unit.outputs.begin(), unit.outputs.end());
  }
}

std::optional<std::string> StaticPlanner::obstacle(const StaticNode& unit) const {
  if (const auto kept = kept_.find(unit.node.proto()); kept != kept_.end()) return kept->second;
  const auto unfit = [&](const std::string& value) -> std::optional<std::string> {
    const auto found = unfit_.find(value);
    if (found != unfit_.end()) return found->second;
    const SeenType* type = types_->find(*graph_, value);
    if (type == nullptr) return fmt::format("'{}' was never computed on the samples", value);
    if (type->dtype == DType::f32 || type->dtype == DType::f16) return std::nullopt;
    return fmt::format("'{}' is {}, not float", value, dtype_name(type->dtype));
  };
  for (const std::size_t slot : unit.data_slots)
    if (auto reason = unfit(std::string(unit.node.input(slot)))) return reason;
  if (!unit.quantize_output) return std::nullopt;
  for (const std::string& output : unit.outputs)
    if (auto reason = unfit(output)) return reason;
  return std::nullopt;
}

struct StaticPlanner::Network {
  std::vector<CutNode> nodes;
  std::vector<CutValue> values;
  std::vector<std::optional<std::string>> obstacles;  // of the nodes
};

CutNode StaticPlanner::times_of(const StaticNode& unit) const {
  const bool kernel = unit.role == StaticRole::kernel || unit.role == StaticRole::product;
  CutNode node{.gives_float = unit.node.is("Gemm") || unit.node.is("MatMul")};
  if (costs_) {
    const auto times = costs_->node(unit.node, *types_);
    node.real = times ? times->real : 0;
    node.integer = times ? times->integer * kMargin : 0;
    if (!kernel && unit.role != StaticRole::movement) node.integer += kWorthwhile;
  } else if (kernel) {
    node.real = kForbidden;
  } else if (unit.role == StaticRole::own_range) {
    node.integer = kWorthwhile;
  }
  if (unit.node.is("Pad")) {  // has no kernel for codes: it runs on floats between two conversions
    const CutValue in = conversions_of(std::string(unit.node.input(0)), false);
    const CutValue out = conversions_of(unit.outputs.front(), false);
    node.integer = node.real + in.dequantize + out.quantize;
  }
  return node;
}

CutValue StaticPlanner::conversions_of(const std::string& value, bool float_reader) const {
  const SeenType* type = types_->find(*graph_, value);
  if (type == nullptr) return {.float_reader = float_reader};
  if (!costs_) {
    const double time = 1 + static_cast<double>(type->elements()) * 1e-3;
    return {time, time, float_reader};
  }
  const Node producer = graph_->producer(value);
  const auto& uses = graph_->uses(value);
  const bool read_by_image = std::ranges::any_of(uses, [](const Use& use) { return works_on_images(use.node); });
  const bool made_by_image = works_on_images(producer);
  return {costs_->quantize(*type, read_by_image, made_by_image),
          costs_->dequantize(*type, made_by_image, read_by_image), float_reader};
}

StaticPlanner::Network StaticPlanner::network() const {
  Network network;
  std::map<std::string, std::size_t> index;
  std::unordered_map<const onnx::NodeProto*, const StaticNode*> members;
  for (const StaticNode& unit : units_) members[unit.node.proto()] = &unit;
  const auto value_of = [&](const std::string& name) {
    const auto [place, fresh] = index.try_emplace(name, network.values.size());
    if (fresh) {
      const bool float_reader = graph_->is_output(name) || std::ranges::any_of(graph_->uses(name), [&](const Use& use) {
                                  const auto member = use.node ? members.find(use.node.proto()) : members.end();
                                  return use.captured || member == members.end() ||
                                         !std::ranges::contains(member->second->data_slots, use.slot);
                                });
      network.values.push_back(conversions_of(name, float_reader));
    }
    return place->second;
  };
  for (const StaticNode& unit : units_) {
    network.obstacles.push_back(obstacle(unit));
    CutNode node = times_of(unit);
    if (forced_.contains(unit.node.proto())) node.real = kForbidden;
    if (network.obstacles.back()) {
      node.integer = kForbidden;
      if (std::isinf(node.real)) node.real = 0;
    }
    for (const std::size_t slot : unit.data_slots) node.reads.push_back(value_of(std::string(unit.node.input(slot))));
    for (const std::string& output : unit.outputs) node.makes.push_back(value_of(output));
    network.nodes.push_back(std::move(node));
  }
  return network;
}

// A reason for a node that could be integer and is not; "" when there is no news in it: no integer node is near.
std::string StaticPlanner::why_float(const Network& network, const std::vector<bool>& integer, std::size_t unit) const {
  const StaticNode& one = units_[unit];
  const bool kernel = one.role == StaticRole::kernel || one.role == StaticRole::product;
  const auto is_made_integer = [&](std::size_t value) {
    for (std::size_t n = 0; n < network.nodes.size(); ++n)
      if (integer[n] && std::ranges::contains(network.nodes[n].makes, value)) return true;
    return false;
  };
  const bool fed =
      !network.nodes[unit].reads.empty() && std::ranges::all_of(network.nodes[unit].reads, is_made_integer);
  if (!kernel && !fed) return {};
  if (network.obstacles[unit]) return *network.obstacles[unit];
  if (!costs_) return "no integer node reads its result";
  std::vector<bool> with = integer;
  with[unit] = true;
  const double gain =
      choice_time(network.nodes, network.values, integer) - choice_time(network.nodes, network.values, with);
  return fmt::format("integers do not pay: {:.1f} us as float, {:.1f} us with conversions by the cost model of {}",
                     network.nodes[unit].real, network.nodes[unit].real - gain, target_name(resolve(rules_.target)));
}

// ONNX Runtime takes a float node that stands between codes for an integer one, whatever it was meant to be: pools and
// glue go to their integer kernels. So such a node is not left alone among integers. (Kernels are kept apart by
// emit_codes().)
std::vector<std::size_t> StaticPlanner::surrounded(const Network& network, const std::vector<bool>& integer) const {
  std::vector<bool> made(network.values.size()), read(network.values.size()), read_as_float(network.values.size());
  for (std::size_t v = 0; v < network.values.size(); ++v) read_as_float[v] = network.values[v].float_reader;
  for (std::size_t n = 0; n < network.nodes.size(); ++n) {
    for (const std::size_t v : network.nodes[n].reads) (integer[n] ? read : read_as_float)[v] = true;
    if (integer[n])
      for (const std::size_t v : network.nodes[n].makes) made[v] = true;
  }
  std::vector<std::size_t> found;
  for (std::size_t n = 0; n < network.nodes.size(); ++n) {
    const CutNode& node = network.nodes[n];
    const bool glue = units_[n].role == StaticRole::own_range || units_[n].role == StaticRole::movement;
    if (!glue || integer[n] || network.obstacles[n] || node.reads.empty() || units_[n].node.is("Pad")) continue;
    const bool before = std::ranges::all_of(node.reads, [&](std::size_t v) { return made[v]; });
    const bool behind = std::ranges::all_of(node.makes, [&](std::size_t v) { return read[v] && !read_as_float[v]; });
    if (before && behind) found.push_back(n);
  }
  return found;
}

StaticPlan StaticPlanner::plan() const {
  if (units_.empty()) return {.graph = graph_};
  if (!quantizes_results(rules_.target)) return plan_inputs();
  Network network = this->network();
  std::vector<bool> integer = cheapest_choice(network.nodes, network.values);
  for (auto alone = surrounded(network, integer); !alone.empty(); alone = surrounded(network, integer)) {
    for (const std::size_t n : alone) network.nodes[n].real = kForbidden;
    integer = cheapest_choice(network.nodes, network.values);
  }
  if (costs_ && forced_.empty()) {
    const Network plain = this->network();
    const std::vector<bool> none(integer.size());
    if (choice_time(plain.nodes, plain.values, none) <= choice_time(plain.nodes, plain.values, integer)) integer = none;
    network.nodes = plain.nodes;
  }
  std::vector<StaticNode> chosen;
  for (std::size_t n = 0; n < units_.size(); ++n)
    if (integer[n]) chosen.push_back(units_[n]);
  StaticPlan plan = finish(std::move(chosen));
  for (std::size_t n = 0; n < units_.size(); ++n) {
    if (integer[n]) continue;
    if (std::string reason = why_float(network, integer, n); !reason.empty())
      plan.left.push_back({units_[n].node, std::move(reason), costs_.has_value() && !network.obstacles[n]});
  }
  return plan;
}

// Targets that want codes on what a layer reads and nothing else: kernels, and the other input of an Add behind one
// (they compute the Add in the kernel before it).
StaticPlan StaticPlanner::plan_inputs() const {
  std::vector<StaticNode> chosen;
  std::vector<StaticLeft> left;
  for (const StaticNode& unit : units_) {
    const auto reason = obstacle(unit);
    const bool kernel = unit.role == StaticRole::kernel || unit.role == StaticRole::product;
    if (kernel && reason && !reason->empty()) left.push_back({unit.node, *reason});
    if (reason) continue;
    StaticNode one = unit;
    if (!kernel) {
      const auto joins = [&](std::size_t slot) {
        const std::string_view value = unit.node.input(slot);
        const Node producer = graph_->producer(value);
        return std::ranges::any_of(chosen, [&](const StaticNode& other) { return other.node == producer; }) &&
               graph_->uses(value).size() == 1 && !graph_->is_output(value);
      };
      const auto fused = std::ranges::find_if(one.data_slots, joins);
      if (fused == one.data_slots.end() || one.data_slots.size() != 2) continue;
      one.data_slots.erase(fused);
    }
    chosen.push_back(std::move(one));
  }
  StaticPlan plan = finish(std::move(chosen));
  plan.left = std::move(left);
  return plan;
}

StaticPlan StaticPlanner::finish(std::vector<StaticNode> chosen) const {
  StaticPlan plan{.graph = graph_};
  std::unordered_set<std::string> read, seen;
  for (const StaticNode& unit : chosen)
    for (const std::size_t slot : unit.data_slots) read.emplace(unit.node.input(slot));
  const auto add = [&](const std::string& value) {
    if (seen.insert(value).second) plan.values.push_back(value);
  };
  for (StaticNode& unit : chosen) {
    for (const std::size_t slot : unit.data_slots) add(std::string(unit.node.input(slot)));
    if (quantizes_results(rules_.target))
      unit.quantize_output = unit.quantize_output || read.contains(unit.outputs.front());
    if (!unit.quantize_output) continue;
    for (const std::string& output : unit.outputs) {
      add(output);
      if (unit.role == StaticRole::movement) plan.range_of[output] = std::string(unit.node.input(0));
    }
  }
  plan.nodes = std::move(chosen);
  return plan;
}

}  // namespace onnxpress
