#include "quant/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/progress.h"
#include "base/text.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

constexpr std::array<std::size_t, 3> kSkipSizes = {1, 2, 4};

class Measuring {
 public:
  Measuring(const Model& model, Meter& meter, const SensitivityRun& run) : meter_(meter), run_(run) {
    table_.key = run.key;
    table_.samples = run.samples;
    table_.float_bytes = weight_bytes(model);
  }

  Result<SensitivityTable> run() {
    OP_LET(units_, meter_.units());
    OP_TRY(list_nodes());
    const Status status = measure_all();
    table_.complete = status.has_value();
    // What an interrupted run has found is kept.
    if (run_.save) OP_TRY(run_.save(table_, true));
    if (!status) return std::unexpected(status.error());
    return std::move(table_);
  }

 private:
  // The rows, with what is known of them from an earlier run.
  Status list_nodes() {
    if (run_.known != nullptr) table_.all = run_.known->all;
    for (const Unit& unit : units_) {
      NodeSensitivity row{.node = unit.first().label(), .op = std::string(unit.first().op())};
      for (const Node& node : unit.nodes)
        if (node.label() != row.node && !std::ranges::contains(row.with, node.label()))
          row.with.push_back(node.label());
      // A node that alone is not quantized lives between others.
      OP_LET(const auto values, meter_.values_of(alone(unit, NodeFormat::int8)));
      row.kernel = !values.empty();
      if (const NodeSensitivity* known = known_row(row)) {
        row.alone = known->alone;
        row.rest = known->rest;
      }
      table_.nodes.push_back(std::move(row));
    }
    return {};
  }

  const NodeSensitivity* known_row(const NodeSensitivity& row) const {
    if (run_.known == nullptr) return nullptr;
    const auto found = std::ranges::find(run_.known->nodes, row.node, &NodeSensitivity::node);
    const bool same = found != run_.known->nodes.end() && found->with == row.with && found->kernel == row.kernel;
    return same ? &*found : nullptr;
  }

  Status measure_all() {
    std::vector<Recipe> recipes;
    for (const Unit& unit : units_) {
      recipes.push_back(alone(unit, NodeFormat::int8));
      recipes.push_back(rest(unit));
    }
    OP_TRY(meter_.prepare(recipes));
    const std::size_t formats = recipe_formats().size();
    Progress progress("sensitivity", formats + units_.size() * (formats + 1) + kSkipSizes.size());
    for (const NodeFormat format : recipe_formats()) {
      if (!table_.all.contains(format)) {
        OP_LET(table_.all[format], measured(everything(format)));
        OP_TRY(save());
      }
      progress.tick();
    }
    for (std::size_t i = 0; i < units_.size(); ++i) OP_TRY(measure_node(units_[i], table_.nodes[i], progress));
    return measure_skips(progress);
  }

  Status measure_node(const Unit& unit, NodeSensitivity& row, Progress& progress) {
    for (const NodeFormat format : recipe_formats()) {
      if (row.kernel && !row.alone.contains(format)) {
        OP_LET(const Effect effect, measured(alone(unit, format)));
        row.alone.emplace(format, effect);
        OP_TRY(save());
      }
      progress.tick();
    }
    if (!row.rest) {
      OP_LET(row.rest, measured(rest(unit)));
      OP_TRY(save());
    }
    progress.tick();
    return {};
  }

  Status measure_skips(Progress& progress) {
    const std::vector<const NodeSensitivity*> order = by_gain(table_);
    for (const std::size_t size : kSkipSizes) {
      progress.tick();
      if (size > order.size()) continue;
      Recipe recipe;
      SkipSet set;
      for (const NodeSensitivity* row : std::span(order).first(size)) {
        for (const std::string& label : row->labels()) {
          recipe.formats[label] = NodeFormat::float32;
          set.nodes.push_back(label);
        }
      }
      if (const SkipSet* known = known_skips(set.nodes)) {
        set.effect = known->effect;
      } else if (size == 1) {
        set.effect = *order.front()->rest;
      } else {
        OP_LET(set.effect, measured(recipe));
      }
      table_.skips.push_back(std::move(set));
      OP_TRY(save());
    }
    return {};
  }

  const SkipSet* known_skips(const std::vector<std::string>& nodes) const {
    if (run_.known == nullptr) return nullptr;
    const auto found = std::ranges::find(run_.known->skips, nodes, &SkipSet::nodes);
    return found == run_.known->skips.end() ? nullptr : &*found;
  }

  // Where nothing is left to quantize there is no error, and no byte saved.
  Result<Effect> measured(const Recipe& recipe) {
    OP_LET(const std::optional<Effect> effect, meter_.measure(recipe));
    return effect.value_or(Effect{});
  }

  Status save() const { return run_.save ? run_.save(table_, false) : Status(); }

  static Recipe alone(const Unit& unit, NodeFormat format) {
    Recipe recipe{.others = NodeFormat::float32};
    assign(recipe, unit, format);
    return recipe;
  }
  static Recipe rest(const Unit& unit) {
    Recipe recipe;
    assign(recipe, unit, NodeFormat::float32);
    return recipe;
  }
  Recipe everything(NodeFormat format) const {
    Recipe recipe;
    for (std::size_t i = 0; i < units_.size(); ++i)
      if (table_.nodes[i].kernel && format != NodeFormat::int8) assign(recipe, units_[i], format);
    return recipe;
  }

  Meter& meter_;
  const SensitivityRun& run_;
  std::vector<Unit> units_;
  SensitivityTable table_;
};

}  // namespace

std::vector<std::string> NodeSensitivity::labels() const {
  std::vector<std::string> labels = {node};
  labels.insert(labels.end(), with.begin(), with.end());
  return labels;
}

Result<SensitivityTable> measure_sensitivity(const Model& model, Meter& meter, const SensitivityRun& run) {
  return Measuring(model, meter, run).run();
}

std::vector<const NodeSensitivity*> by_gain(const SensitivityTable& table) {
  std::vector<const NodeSensitivity*> rows;
  for (const NodeSensitivity& row : table.nodes)
    if (row.rest) rows.push_back(&row);
  std::ranges::stable_sort(rows, {}, [](const NodeSensitivity* row) { return row->rest->error.noise; });
  return rows;
}

std::string settings_text(const StaticSettings& settings) {
  std::vector<std::string> formats;
  for (const NodeFormat format : recipe_formats()) formats.emplace_back(node_format_name(format));
  return fmt::format("per_channel={} target={} formats=[{}]", settings.per_channel ? "true" : "false",
                     target_name(resolve(settings.target)), join(formats, ","));
}

}  // namespace onnxpress
