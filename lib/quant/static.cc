#include "quant/static.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "ir/upconvert.h"
#include "quant/static_emit.h"
#include "quant/static_numbers.h"
#include "quant/static_weights.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kLeastOpset = 10;       // QuantizeLinear
constexpr std::int64_t kPerChannelOpset = 13;  // its axis

// A value by the scope that defines it.
ValueRef ref_of(const Graph& scope, const std::string& value) {
  const Graph* home = scope.scope_of(value);
  return {value, home == nullptr || home->kind() == Graph::Kind::main ? nullptr : home};
}

class StaticQuantizer {
 public:
  StaticQuantizer(Model& model, PassContext& context, const StaticSettings& settings)
      : model_(model),
        context_(context),
        settings_(settings),
        code_rules_{settings.target, resolve(settings.activations, settings.target)} {}

  Result<bool> run() {
    make_planners();
    OP_TRY(look_at_types());
    OP_TRY(settle());
    return emit();
  }

 private:
  void make_planners() {
    const StaticRules rules = {settings_.target, settings_.placement, settings_.attention};
    for (Graph* graph : model_.graphs()) {
      if (in_function(*graph)) {
        for (const Node& node : graph->nodes())
          if (static_role(node, settings_.target, false) == StaticRole::kernel)
            context_.skipped(node, "it is inside a function: inline functions first");
        continue;
      }
      planners_.push_back(std::make_unique<StaticPlanner>(*graph, rules, context_));
      for (const Node& node : graph->nodes()) override(node, *planners_.back());
    }
  }

  static bool in_function(const Graph& graph) {
    const Graph* at = &graph;
    while (at->parent() != nullptr) at = at->parent();
    return at->kind() == Graph::Kind::function;
  }

  void override(const Node& node, StaticPlanner& planner) {
    const auto found = settings_.per_node.find(node.label());
    if (found == settings_.per_node.end() || !planner.knows(node)) return;
    if (found->second == NodeFormat::float32) planner.keep_float(node, "it was asked to stay float");
    if (found->second == NodeFormat::int8 || found->second == NodeFormat::int4) planner.force(node);
    if (found->second != NodeFormat::int16) return;
    planner.keep_float(node, "");
    if (static_role(node, settings_.target, false) != StaticRole::kernel) return;
    if (node.graph().type(node.input(0)).dtype == DType::f16)
      return context_.skipped(node, "half precision is finer than 16-bit codes would be");
    wide_.push_back(node);
  }

  Status look_at_types() {
    std::vector<SeenTypes::Read> reads;
    for (const auto& planner : planners_) std::ranges::move(planner->reads(), std::back_inserter(reads));
    if (reads.empty()) return {};
    OP_LET(types_, SeenTypes::look(model_, reads, context_));
    for (const auto& planner : planners_) planner->set_types(types_);
    return {};
  }

  // Plans, measures what the plan needs, keeps float what the ranges speak against, until nothing new comes up.
  Status settle() {
    while (true) {
      plans_.clear();
      for (const auto& planner : planners_) plans_.push_back(planner->plan());
      OP_TRY(measure());
      bool again = false;
      for (std::size_t i = 0; i < plans_.size(); ++i) again = object(plans_[i], *planners_[i]) || again;
      if (!again) return {};
    }
  }

  Status measure() {
    std::vector<ValueRef> wanted;
    const auto want = [&](const Graph& scope, const std::string& value) {
      const ValueRef ref = ref_of(scope, value);
      if (!ranges_.contains(range_key(ref))) wanted.push_back(ref);
    };
    for (std::size_t i = 0; i < plans_.size(); ++i) {
      const StaticPlan& plan = plans_[i];
      for (const std::string& value : plan.values)
        if (!has_fixed_range(plan.graph->producer(plan.root(value)))) want(*plan.graph, plan.root(value));
      for (const StaticNode* unit : joins(plan, *planners_[i]))
        for (const std::size_t slot : unit->data_slots)
          want(*plan.graph, plan.root(std::string(unit->node.input(slot))));
    }
    for (const Node& node : wide_) want(node.graph(), std::string(node.input(0)));
    if (wanted.empty()) return {};
    OP_LET(const RangeTable measured, measure_ranges(context_, model_, wanted, settings_.ranges, settings_.known));
    for (const auto& [key, range] : measured) ranges_.emplace(key, range);
    return {};
  }

  // Nodes whose result joins its inputs and becomes codes.
  static std::vector<const StaticNode*> joins(const StaticPlan& plan, const StaticPlanner& planner) {
    std::vector<const StaticNode*> found;
    for (const StaticNode& unit : planner.units()) {
      if (!unit.node.is("Concat") && !unit.node.is("Add")) continue;
      if (std::ranges::contains(plan.values, unit.outputs.front())) found.push_back(&unit);
    }
    return found;
  }

  // What the ranges say against the plan; true when something has to stay float that was not known to.
  bool object(const StaticPlan& plan, StaticPlanner& planner) {
    bool news = false;
    for (const std::string& value : plan.values) {
      const ValueRange* range = range_of(*plan.graph, plan.root(value));
      if (range == nullptr) continue;
      std::string reason = unfit_range(*range);
      if (reason.empty()) continue;
      planner.keep_float(value, fmt::format("'{}': {}", value, reason));
      news = true;
    }
    for (const StaticNode* unit : joins(plan, planner)) {
      std::vector<NamedRange> inputs;
      for (const std::size_t slot : unit->data_slots) {
        const std::string value(unit->node.input(slot));
        if (const ValueRange* range = range_of(*plan.graph, plan.root(value))) inputs.push_back({value, *range});
      }
      const auto bad = bad_join(unit->node, inputs);
      if (!bad) continue;
      planner.keep_float(unit->node, bad->reason);
      planner.keep_float(unit->outputs.front(),
                         fmt::format("'{}' mixes values of very different size", unit->outputs.front()));
      if (!bad->warning.empty()) context_.journal.warning(bad->warning);
      news = true;
    }
    return news;
  }

  const ValueRange* range_of(const Graph& scope, const std::string& value) const {
    const auto found = ranges_.find(range_key(ref_of(scope, value)));
    return found == ranges_.end() ? nullptr : &found->second;
  }

  Result<bool> emit() {
    Rewriters rewriters(model_);
    QdqWriters writers(rewriters);
    StaticWeights weights(model_, settings_);
    for (const StaticPlan& plan : plans_) {
      if (plan.nodes.empty()) continue;
      const auto params = params_of(plan);
      for (const StaticNode& unit : plan.nodes) {
        if (unit.role != StaticRole::kernel) continue;
        const float scale = params.at(plan.root(std::string(unit.node.input(0)))).affine.scale;
        OP_TRY(weights.add(unit, scale, weight_format(unit.node)));
      }
      OP_TRY(emit_codes(plan, params, types_, code_rules_, wide_, writers.of(*plan.graph), rewriters.of(*plan.graph)));
    }
    for (const StaticPlan& plan : plans_)
      for (const StaticLeft& left : plan.left) {
        const bool kernel = static_role(left.node, settings_.target, false) == StaticRole::kernel;
        if (left.reason.empty() || (left.too_slow && settings_.store && kernel && weights.add_stored(left.node)))
          continue;
        context_.skipped(left.node, left.reason);
      }
    for (const Node& node : wide_) {
      const ValueRange* range = range_of(node.graph(), std::string(node.input(0)));
      if (range == nullptr) continue;
      const CodeRules rules = {settings_.target, ActivationFormat::uint16};
      writers.of(node.graph()).read_privately(node, 0, choose_params(*range, {}, rules));
      OP_TRY(weights.add_wide(node));
    }
    if (weights.empty() && std::ranges::all_of(plans_, [](const StaticPlan& plan) { return plan.nodes.empty(); }))
      return false;
    OP_TRY(weights.write(writers, rewriters, context_));
    for (const StaticPlan& plan : plans_)
      for (const StaticNode& unit : plan.nodes)
        if (unit.role != StaticRole::kernel) context_.done(unit.node, "runs on codes between integer nodes");
    OP_LET(const bool changed, rewriters.commit());
    const bool wide = bit_width(activation_dtype(code_rules_.format)) == 16 || !wide_.empty();
    if (wide && model_.opset() < 21 && model_.opset("com.microsoft") == 0) model_.set_opset("com.microsoft", 1);
    return changed;
  }

  WeightFormat weight_format(const Node& node) const {
    const auto found = settings_.per_node.find(node.label());
    if (found == settings_.per_node.end()) return settings_.weights;
    return found->second == NodeFormat::int4 ? WeightFormat::int4 : WeightFormat::int8;
  }

  RootParams params_of(const StaticPlan& plan) const {
    std::map<std::string, std::optional<Absorbed>> absorbed;
    for (const StaticNode& unit : plan.nodes)
      if (unit.quantize_output) absorbed[unit.outputs.front()] = unit.absorbed;
    RootParams params;
    for (const std::string& value : plan.values) {
      const std::string root = plan.root(value);
      if (params.contains(root)) continue;
      const ValueRange* range = range_of(*plan.graph, root);
      params[root] = range == nullptr ? unit_params(code_rules_) : choose_params(*range, absorbed[root], code_rules_);
    }
    return params;
  }

  Model& model_;
  PassContext& context_;
  const StaticSettings& settings_;
  CodeRules code_rules_;
  std::vector<std::unique_ptr<StaticPlanner>> planners_;
  std::vector<StaticPlan> plans_;  // of the planners
  std::vector<Node> wide_;         // nodes asked to have 16-bit activations
  SeenTypes types_;
  RangeTable ranges_;
};

// Whether quantization has something to work on, so that a conversion of the model to another opset is worth it.
bool has_kernels(const Model& model, const PassContext& context, const StaticSettings& settings) {
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes()) {
      const StaticRole role = static_role(node, settings.target, settings.attention);
      if (role != StaticRole::kernel && role != StaticRole::product) continue;
      const bool selected = std::ranges::all_of(
          context.selections, [&](const Selection* selection) { return selection->refusal(node).empty(); });
      if (selected && static_refusal(node, role).empty()) return true;
    }
  return false;
}

}  // namespace

Result<bool> quantize_static(Model& model, PassContext& context, const StaticSettings& settings) {
  context.journal.note("target: " + target_name(resolve(settings.target)));
  const std::int64_t needed = settings.per_channel ? kPerChannelOpset : kLeastOpset;
  if (model.opset() >= needed || !has_kernels(model, context, settings))
    return StaticQuantizer(model, context, settings).run();
  Model converted = model.clone();
  if (const auto raised = upconvert(converted, kPerChannelOpset); !raised) {
    if (raised.error().code != Code::unsupported) return std::unexpected(raised.error());
    context.journal.warning(fmt::format("{} needs opset {}, the model has {} and cannot be converted: {}",
                                        model.opset() < kLeastOpset ? "QuantizeLinear" : "one scale per channel",
                                        needed, model.opset(), raised.error().what));
    if (model.opset() < kLeastOpset) return false;
    return StaticQuantizer(model, context, settings).run();
  }
  OP_LET(const bool changed, StaticQuantizer(converted, context, settings).run());
  if (!changed) return false;
  context.journal.note(fmt::format("opset {} -> {}", model.opset(), converted.opset()));
  model = std::move(converted);
  return true;
}

}  // namespace onnxpress
