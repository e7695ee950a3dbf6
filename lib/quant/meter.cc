#include "quant/meter.h"

#include <algorithm>
#include <set>

#include "base/interrupt.h"
#include "ir/fork.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

// Notes what would be measured, then stops the run.
class TapRecorder : public Activations {
 public:
  Status collect(const Model& model, std::span<const Tap> taps) override {
    for (const Tap& tap : taps) values.emplace_back(tap.value, scope_index(model, tap.scope));
    asked = true;
    return fail(Code::internal, "only asked for the values");
  }
  std::string description() const override { return "none"; }

  bool asked = false;
  std::vector<std::pair<std::string, std::size_t>> values;  // with the place of their scope in Model::graphs()

 private:
  static std::size_t scope_index(const Model& model, const Graph* scope) {
    const auto& graphs = model.graphs();
    const auto found = std::ranges::find(graphs, scope);
    return found == graphs.end() ? 0 : static_cast<std::size_t>(found - graphs.begin());
  }
};

// What nodes that must share a format have in common: the constant weight they read.
std::string weight_key(const Node& node) {
  const std::string weight(node.input(1));
  if (weight.empty() || !node.graph().is_constant(weight)) return "";
  const auto type = node.graph().constant_type(weight);
  return type && type->second.size() >= 2 ? weight : "";
}

}  // namespace

void assign(Recipe& recipe, const Unit& unit, NodeFormat format) {
  for (const Node& node : unit.nodes) recipe.formats[node.label()] = format;
}

Meter::Meter(const Model& model, PassContext& context, const StaticSettings& settings, Activations* compare_on)
    : model_(model),
      context_(context),
      settings_(settings),
      compare_on_(compare_on != nullptr ? compare_on : context.activations) {
  if (settings_.known != nullptr) ranges_ = *settings_.known;
}

PassContext Meter::scratch() const {
  PassContext context = context_;
  context.journal = Journal();
  return context;
}

Result<Model> Meter::apply(const Recipe& recipe, PassContext& context) {
  OP_TRY(prepare({&recipe, 1}));
  OP_LET(Model variant, fork_model(model_));
  StaticSettings settings = settings_;
  settings.known = &ranges_;
  OP_TRY(quantize_recipe(variant, context, settings, recipe));
  return variant;
}

// Stops before anything is written, so a clone that shares the model's store will do.
Result<std::vector<ValueRef>> Meter::values(const Recipe& recipe) {
  TapRecorder recorder;
  PassContext context = scratch();
  context.activations = &recorder;
  StaticSettings settings = settings_;
  settings.known = nullptr;
  Model variant = model_.clone();
  const auto changed = quantize_recipe(variant, context, settings, recipe);
  if (!changed && !recorder.asked) return std::unexpected(changed.error());
  std::vector<ValueRef> values;
  for (const auto& [value, scope] : recorder.values) {
    // Values that quantize_static() makes itself before it measures are left to it.
    const Graph* graph = scope < model_.graphs().size() ? model_.graphs()[scope] : nullptr;
    if (graph != nullptr && graph->defines(value)) values.push_back({value, scope == 0 ? nullptr : graph});
  }
  return values;
}

Status Meter::prepare(std::span<const Recipe> recipes) {
  std::vector<ValueRef> wanted;
  std::set<std::string> seen;
  for (const Recipe& recipe : recipes) {
    OP_TRY(check_interrupt());
    OP_LET(const std::vector<ValueRef> values, this->values(recipe));
    for (const ValueRef& value : values)
      if (seen.insert(range_key(value)).second) wanted.push_back(value);
  }
  if (std::ranges::all_of(wanted, [&](const ValueRef& value) { return ranges_.contains(range_key(value)); })) return {};
  PassContext context = scratch();
  OP_LET(RangeTable ranges, measure_ranges(context, model_, wanted, settings_.ranges, &ranges_));
  ranges_.merge(ranges);
  return {};
}

Result<std::vector<std::string>> Meter::values_of(const Recipe& recipe) {
  OP_LET(const std::vector<ValueRef> values, this->values(recipe));
  std::vector<std::string> keys;
  for (const ValueRef& value : values) keys.push_back(range_key(value));
  return keys;
}

Result<std::vector<Unit>> Meter::units() {
  PassContext context = scratch();
  OP_TRY(apply(Recipe{}, context));
  std::set<std::string> integer;
  for (const JournalEntry& entry : context.journal.entries())
    if (entry.done && !entry.node.empty()) integer.insert(entry.node);
  std::vector<Unit> units;
  std::map<std::string, std::size_t> by_label, by_weight;
  for (const Graph* graph : model_.graphs()) {
    for (const Node& node : graph->nodes()) {
      if (!integer.contains(node.label())) continue;
      const std::string weight = weight_key(node);
      auto place = by_label.find(node.label());
      if (place == by_label.end() && !weight.empty()) {
        place = by_weight.find(weight);
        if (place == by_weight.end()) place = by_label.end();
      }
      const std::size_t index = place == by_label.end() ? units.size() : place->second;
      if (index == units.size()) units.emplace_back();
      units[index].nodes.push_back(node);
      by_label.emplace(node.label(), index);
      if (!weight.empty()) by_weight.emplace(weight, index);
    }
  }
  return units;
}

std::int64_t Meter::growth(const Model& variant) const {
  return static_cast<std::int64_t>(weight_bytes(variant)) - static_cast<std::int64_t>(weight_bytes(model_));
}

Result<std::optional<Effect>> Meter::measure(const Recipe& recipe) {
  PassContext context = scratch();
  OP_LET(const Model variant, apply(recipe, context));
  const bool changed = std::ranges::any_of(context.journal.entries(),
                                           [](const JournalEntry& entry) { return entry.done && !entry.node.empty(); });
  if (!changed) return std::optional<Effect>();
  if (compare_on_ == nullptr) return fail(Code::usage, "comparing models needs --data");
  Effect effect;
  OP_LET(effect.error, compare_outputs(*compare_on_, model_, variant));
  effect.bytes = growth(variant);
  return std::optional(effect);
}

Result<std::int64_t> Meter::bytes(const Recipe& recipe) {
  PassContext context = scratch();
  OP_LET(const Model variant, apply(recipe, context));
  return growth(variant);
}

}  // namespace onnxpress
