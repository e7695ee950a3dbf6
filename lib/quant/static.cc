#include "quant/static.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <set>

#include "ir/upconvert.h"
#include "quant/qdq.h"
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
    if (found->second == NodeFormat::real) planner.keep_float(node, "it was asked to stay float");
    if (found->second == NodeFormat::int8 || found->second == NodeFormat::int4) planner.force(node);
    if (found->second != NodeFormat::int16) return;
    planner.keep_float(node, "");
    if (static_role(node, settings_.target, false) == StaticRole::kernel) wide_.push_back(node);
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
      write_values(plan, params, writers.of(*plan.graph));
      OP_TRY(write_constants(plan, writers.of(*plan.graph), rewriters.of(*plan.graph)));
      if (is_half(plan)) write_half(plan, writers.of(*plan.graph), rewriters.of(*plan.graph));
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

  using Params = std::map<std::string, CodeParams>;  // by root value

  Params params_of(const StaticPlan& plan) const {
    std::map<std::string, std::optional<Absorbed>> absorbed;
    for (const StaticNode& unit : plan.nodes)
      if (unit.quantize_output) absorbed[unit.outputs.front()] = unit.absorbed;
    Params params;
    for (const std::string& value : plan.values) {
      const std::string root = plan.root(value);
      if (params.contains(root)) continue;
      const ValueRange* range = range_of(*plan.graph, root);
      params[root] = range == nullptr ? unit_params(code_rules_) : choose_params(*range, absorbed[root], code_rules_);
    }
    return params;
  }

  bool half(const Graph& graph, const std::string& value) const {
    const SeenType* type = types_.find(graph, value);
    return type != nullptr && type->dtype == DType::f16;
  }
  bool is_half(const StaticPlan& plan) const {
    return std::ranges::any_of(plan.values, [&](const std::string& value) { return half(*plan.graph, value); });
  }

  void write_values(const StaticPlan& plan, const Params& params, QdqWriter& writer) const {
    std::set<std::string> made;  // by an integer node, so every reader takes the dequantized form
    for (const StaticNode& unit : plan.nodes)
      if (unit.quantize_output) made.insert(unit.outputs.begin(), unit.outputs.end());
    for (const std::string& value : plan.values) {
      const std::string root = plan.root(value);
      writer.quantize(value, root, params.at(root), made.contains(value), half(*plan.graph, value),
                      read_outside(plan, value));
    }
    if (resolve(settings_.target) == Target::ort_x86_vnni || resolve(settings_.target) == Target::ort_x86 ||
        resolve(settings_.target) == Target::ort_arm64)
      keep_apart(plan, params, made, writer);
    for (const StaticNode& unit : plan.nodes)
      for (const std::size_t slot : unit.data_slots) {
        const std::string value(unit.node.input(slot));
        if (!made.contains(value) || half(*plan.graph, value)) writer.read(unit.node, slot);
      }
  }

  // Whether anything but integer nodes reads the value.
  static bool read_outside(const StaticPlan& plan, const std::string& value) {
    if (plan.graph->is_output(value)) return true;
    return std::ranges::any_of(plan.graph->uses(value), [&](const Use& use) {
      const auto unit = std::ranges::find(plan.nodes, use.node, &StaticNode::node);
      return use.captured || unit == plan.nodes.end() || !std::ranges::contains(unit->data_slots, use.slot);
    });
  }

  // Between codes ONNX Runtime 1.21 and newer quantizes the float weight of a Conv or Gemm by itself, one scale for all
  // of it, and computes in integers what was to stay float.
  void keep_apart(const StaticPlan& plan, const Params& params, const std::set<std::string>& made,
                  QdqWriter& writer) const {
    if (model_.opset() < kPerChannelOpset) return;
    for (const Node& node : plan.graph->nodes()) {
      if (!node.is("Conv") && !node.is("ConvTranspose") && !node.is("Gemm")) continue;
      const std::string input(node.input(0));
      const auto weight = plan.graph->constant_type(node.input(1));
      if (!weight || weight->second.size() < 2 || !made.contains(input) || half(*plan.graph, input)) continue;
      if (std::ranges::contains(plan.nodes, node, &StaticNode::node)) continue;
      const auto activation = absorbed_activation(*plan.graph, node.output(0));
      const std::string output(activation ? activation->node.output(0) : node.output(0));
      if (!std::ranges::contains(plan.values, output)) continue;
      std::int64_t channels = weight->second[node.is("Conv") ? 1 : 0];
      if (node.is("Conv")) channels *= node.attr_int("group", 1);
      if (node.is("Gemm")) channels = weight->second[node.attr_int("transB", 0) != 0 ? 1 : 0];
      if (node.is("Gemm") && node.attr_int("transA", 0) != 0) continue;
      writer.read_per_channel(node, 0, channels, params.at(plan.root(input)));
    }
  }

  Status write_constants(const StaticPlan& plan, QdqWriter& writer, Rewriter& rewriter) const {
    for (const StaticNode& unit : plan.nodes)
      for (const std::size_t slot : unit.constant_slots) {
        const std::string name(unit.node.input(slot));
        OP_LET(const auto tensor, plan.graph->constant(name));
        OP_LET(const std::vector<float> values, to_floats(tensor->view()));
        const MinMax seen = min_max(values);
        const CodeParams params = choose_params({.min = seen.min, .max = seen.max}, {}, code_rules_);
        TensorQuantization how{
            .dtype = params.dtype, .codes = code_range(params.dtype, false), .params = {params.affine}, .axis = {}};
        OP_LET(Tensor codes, quantize_tensor(values, tensor->dims(), how));
        rewriter.set_input(unit.node, slot, writer.constant(unit.node, name, std::move(codes), params));
      }
    return {};
  }

  // Integer nodes of a half-precision model work on float.
  void write_half(const StaticPlan& plan, QdqWriter& writer, Rewriter& rewriter) const {
    for (const StaticNode& unit : plan.nodes) {
      if (!unit.quantize_output) {
        writer.to_half(unit.node);
        continue;
      }
      if (!unit.absorbed) continue;
      rewriter.forget_type(unit.node.output(0));
      const Node& activation = unit.absorbed->node;
      const std::array<std::optional<float>, 2> bounds = {unit.absorbed->low, unit.absorbed->high};
      for (std::size_t slot = 1; slot < activation.input_count(); ++slot) {
        if (activation.input(slot).empty() || !bounds[slot - 1]) continue;
        const std::string name = rewriter.fresh_value(activation.input(slot));
        rewriter.add_initializer(name, Tensor::scalar<float>(DType::f32, *bounds[slot - 1]));
        rewriter.set_input(activation, slot, name);
      }
    }
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
