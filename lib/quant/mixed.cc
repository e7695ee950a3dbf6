#include "quant/mixed.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.h"
#include "num/knapsack.h"

namespace onnxpress {
namespace {

constexpr int kRefinements = 4;        // knapsacks between two corners of the hull
constexpr int kBudgetCorrections = 8;  // single bytes may not add up: scales are shared between nodes
constexpr std::size_t kRescued = 8;    // layers at most
constexpr double kRescueShare = 0.03;  // of the noise: layers below it are not worth a rescue
constexpr std::size_t kIslands = 12;   // layers tried with 16-bit activations, at most
constexpr int kPatience = 3;
constexpr double kWorthwhile = 0.98;  // a repair must bring the noise down to this

// The free rungs of the rescue ladder: a value's range cut to this. Tried from the top until several in a row do not
// help: with few samples a single finer step may happen to fall worse. Cutting pays where the extremes hardly matter
// for what reads them.
constexpr std::array kRangeRungs = {0.9F, 0.8F, 0.7F, 0.6F, 0.5F, 0.35F, 0.25F, 0.15F, 0.1F, 0.05F};

std::string signed_bytes(std::int64_t bytes) {
  return human_bytes(static_cast<std::uint64_t>(bytes < 0 ? -bytes : bytes));
}

class Chooser {
 public:
  Chooser(Meter& meter, const SensitivityTable& table, const MixedBudget& budget) : meter_(meter), budget_(budget) {
    out_.table = table;
  }

  Result<MixedChoice> run(bool rescue) {
    if (!out_.table.complete)
      return fail(Code::bad_input, "the sensitivity table is not finished: run `onnxpress sensitivity` on it again");
    list_items();
    OP_TRY(prepare());
    if (budget_.bytes) {
      OP_TRY(choose_for_bytes());
    } else {
      OP_TRY(choose_for_drop(rescue));
      if (rescue) OP_TRY(make_islands());
    }
    return std::move(out_);
  }

 private:
  // One item per kernel, its options: float32 and the formats that were measured, but for int16: with the bytes of
  // int8 and less noise it would always win, and runtimes compute it in float. It is for make_islands().
  void list_items() {
    items_.clear();
    rows_.clear();
    formats_.clear();
    for (NodeSensitivity& row : out_.table.nodes) {
      if (!row.kernel) continue;
      KnapsackItem item = {{0, 0}};
      std::vector<NodeFormat> formats = {NodeFormat::float32};
      for (const auto& [format, effect] : row.alone) {
        if (format == NodeFormat::int16) continue;
        item.push_back({effect.bytes, effect.error.noise});
        formats.push_back(format);
      }
      items_.push_back(std::move(item));
      formats_.push_back(std::move(formats));
      rows_.push_back(&row);
    }
  }

  // Ranges for the largest choices in one run over the samples; few others turn up later.
  Status prepare() {
    std::vector<Recipe> recipes(1);
    for (const NodeSensitivity* row : rows_) {
      recipes.push_back(only(*row, NodeFormat::int8));
      Recipe rest;
      for (const std::string& label : row->labels()) rest.formats[label] = NodeFormat::float32;
      recipes.push_back(std::move(rest));
    }
    return meter_.prepare(recipes);
  }

  Recipe recipe_of(const KnapsackSolution& solution) const {
    Recipe recipe;
    for (std::size_t i = 0; i < rows_.size(); ++i)
      for (const std::string& label : rows_[i]->labels()) recipe.formats[label] = formats_[i][solution.choice[i]];
    return recipe;
  }

  Result<Effect> measure(const KnapsackSolution& solution) {
    const auto known = measured_.find(solution.choice);
    if (known != measured_.end()) return known->second;
    OP_LET(const auto effect, meter_.measure(recipe_of(solution)));
    ++out_.trials;
    return measured_.emplace(solution.choice, effect.value_or(Effect{})).first->second;
  }

  Result<bool> passes(const KnapsackSolution& solution) {
    OP_LET(const Effect effect, measure(solution));
    return budget_.met_by(effect, out_.table.float_bytes);
  }

  Status settle(const KnapsackSolution& solution) {
    out_.recipe = recipe_of(solution);
    out_.predicted_noise = solution.loss;
    OP_LET(out_.effect, measure(solution));
    out_.met = budget_.met_by(out_.effect, out_.table.float_bytes);
    return {};
  }

  Status choose_for_bytes() {
    const auto total = static_cast<std::int64_t>(out_.table.float_bytes);
    const auto budget = static_cast<std::int64_t>(*budget_.bytes) - total;
    std::int64_t slack = 0;
    KnapsackSolution solution;
    for (int round = 0; round < kBudgetCorrections; ++round) {
      solution = solve_knapsack(items_, budget - slack);
      OP_LET(const std::int64_t bytes, meter_.bytes(recipe_of(solution)));
      if (bytes <= budget || !solution.feasible) break;
      slack += bytes - budget;
    }
    return settle(solution);
  }

  Status choose_for_drop(bool rescue) {
    std::vector<KnapsackSolution> hull = knapsack_hull(items_);
    OP_LET(const bool smallest_passes, passes(hull.front()));
    if (smallest_passes) return settle(hull.front());
    if (rescue) {
      OP_LET(const bool repaired, climb(in_int8()));
      if (repaired) {
        hull = knapsack_hull(items_);
        OP_LET(const bool now_passes, passes(hull.front()));
        if (now_passes) return settle(hull.front());
      }
    }
    std::size_t low = 0, high = hull.size() - 1;  // low misses the budget; the last one has no noise
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      OP_LET(const bool good, passes(hull[middle]));
      (good ? high : low) = middle;
    }
    if (hull.size() == 1) return settle(hull.front());
    return refine(hull[low], hull[high]);
  }

  // Every item in int8: what activation ranges cost shows here, not behind the noise of 4-bit weights.
  KnapsackSolution in_int8() const {
    KnapsackSolution all;
    all.feasible = true;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const auto found = std::ranges::find(formats_[i], NodeFormat::int8);
      const auto at = found == formats_[i].end() ? 0 : static_cast<std::size_t>(found - formats_[i].begin());
      all.choice.push_back(at);
      all.cost += items_[i][at].cost;
      all.loss += items_[i][at].loss;
    }
    return all;
  }

  // Between two corners the knapsack has choices that are on no corner.
  Status refine(const KnapsackSolution& bad, KnapsackSolution good) {
    std::int64_t low = bad.cost;
    for (int round = 0; round < kRefinements && good.cost - low > 1; ++round) {
      const std::int64_t middle = low + (good.cost - low) / 2;
      KnapsackSolution between = solve_knapsack(items_, middle);
      if (between.cost <= low) {
        low = middle;
        continue;
      }
      OP_LET(const bool fits, passes(between));
      if (fits)
        good = std::move(between);
      else
        low = middle;
    }
    return settle(good);
  }

  // The free rungs, for the layers that make most of the noise of `base`: a repair stays when the noise of the whole
  // falls. True when one did; items and table are then measured anew where it matters.
  Result<bool> climb(const KnapsackSolution& base) {
    OP_LET(Effect best, measure(base));
    const Recipe recipe = recipe_of(base);
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < items_.size(); ++i)
      if (items_[i][base.choice[i]].loss > kRescueShare * base.loss) order.push_back(i);
    std::ranges::stable_sort(order, std::greater<>(), [&](std::size_t i) { return items_[i][base.choice[i]].loss; });
    if (order.size() > kRescued) order.resize(kRescued);
    std::vector<std::string> changed;
    for (const std::size_t i : order) {
      OP_LET(const auto keys, meter_.values_of(only(*rows_[i], formats_[i][base.choice[i]])));
      for (const std::string& key : keys) {
        if (std::ranges::contains(changed, key) || !meter_.ranges().contains(key)) continue;
        OP_LET(const std::string what, cut_range(recipe, key, best));
        if (what.empty()) continue;
        changed.push_back(key);
        std::string& repair = out_.repairs[rows_[i]->node];
        repair += fmt::format("{}'{}': {}", repair.empty() ? "" : ", ", key, what);
      }
    }
    if (changed.empty()) return false;
    measured_.clear();
    return remeasure(changed).transform([] { return true; });
  }

  // What was done to the range, "" when nothing helps.
  Result<std::string> cut_range(const Recipe& recipe, const std::string& key, Effect& best) {
    const ValueRange whole = meter_.ranges().at(key);
    ValueRange kept = whole;
    std::string what;
    int misses = 0;
    for (const float rung : kRangeRungs) {
      ValueRange& range = meter_.ranges().at(key);
      range.min = whole.min * rung;
      range.max = whole.max * rung;
      OP_LET(const auto effect, meter_.measure(recipe));
      ++out_.trials;
      if (!effect) break;
      if (effect->error.noise > kWorthwhile * best.error.noise) {
        if (++misses == kPatience) break;
        continue;
      }
      misses = 0;
      best = *effect;
      kept = range;
      what = fmt::format("range cut to {:.0f} %", 100 * rung);
    }
    meter_.ranges().at(key) = kept;
    return what;
  }

  // The rung before float32: a layer that would stay float gets 16-bit activations, where the budget bears it. Least
  // noise for the bytes first.
  Status make_islands() {
    std::vector<NodeSensitivity*> order;
    for (NodeSensitivity* row : rows_)
      if (out_.recipe.of(row->node) == NodeFormat::float32 && row->alone.contains(NodeFormat::int16) &&
          row->alone.at(NodeFormat::int16).bytes < 0)
        order.push_back(row);
    std::ranges::stable_sort(order, {}, [](const NodeSensitivity* row) {
      const Effect& effect = row->alone.at(NodeFormat::int16);
      return effect.error.noise / -static_cast<double>(effect.bytes);
    });
    if (order.size() > kIslands) order.resize(kIslands);
    for (const NodeSensitivity* row : order) {
      Recipe recipe = out_.recipe;
      for (const std::string& label : row->labels()) recipe.formats[label] = NodeFormat::int16;
      OP_LET(const auto effect, meter_.measure(recipe));
      ++out_.trials;
      if (!effect || !budget_.met_by(*effect, out_.table.float_bytes) || effect->bytes >= out_.effect.bytes) continue;
      out_.recipe = std::move(recipe);
      out_.effect = *effect;
      out_.predicted_noise += row->alone.at(NodeFormat::int16).error.noise;
    }
    return {};
  }

  // The single noises of the nodes that use one of these ranges.
  Status remeasure(const std::vector<std::string>& keys) {
    for (NodeSensitivity* row : rows_) {
      for (auto& [format, effect] : row->alone) {
        const Recipe recipe = only(*row, format);
        OP_LET(const auto used, meter_.values_of(recipe));
        if (std::ranges::none_of(used, [&](const std::string& key) { return std::ranges::contains(keys, key); }))
          continue;
        OP_LET(const auto again, meter_.measure(recipe));
        ++out_.trials;
        if (again) effect = *again;
      }
    }
    list_items();
    return {};
  }

  static Recipe only(const NodeSensitivity& row, NodeFormat format) {
    Recipe recipe;
    recipe.others = NodeFormat::float32;
    for (const std::string& label : row.labels()) recipe.formats[label] = format;
    return recipe;
  }

  Meter& meter_;
  const MixedBudget& budget_;
  MixedChoice out_;
  std::vector<KnapsackItem> items_;
  std::vector<std::vector<NodeFormat>> formats_;  // of the options of each item
  std::vector<NodeSensitivity*> rows_;
  std::map<std::vector<std::size_t>, Effect> measured_;
};

}  // namespace

bool MixedBudget::met_by(const Effect& effect, std::uint64_t float_bytes) const {
  if (bytes) return static_cast<std::int64_t>(float_bytes) + effect.bytes <= static_cast<std::int64_t>(*bytes);
  if (min_sqnr) return effect.error.sqnr_db() >= *min_sqnr;
  return effect.error.drop() <= max_drop.value_or(0);
}

std::string MixedBudget::text() const {
  if (bytes) return fmt::format("at most {} of weights", human_bytes(*bytes));
  if (min_sqnr) return fmt::format("an SQNR of at least {} dB", number_text(*min_sqnr));
  return fmt::format("a drop of at most {} %", number_text(max_drop.value_or(0)));
}

Result<MixedChoice> choose_mixed(Meter& meter, const SensitivityTable& table, const MixedBudget& budget, bool rescue) {
  return Chooser(meter, table, budget).run(rescue);
}

std::string explain(const MixedChoice& choice, const NodeSensitivity& row) {
  const NodeFormat format = choice.recipe.of(row.node);
  const auto of = [&](NodeFormat other) {
    const auto found = row.alone.find(other);
    return found == row.alone.end() ? Effect{} : found->second;  // float32: no noise, no bytes
  };
  const Effect now = of(format);
  std::string text(node_format_name(format));
  if (format != NodeFormat::float32)
    text += fmt::format(": {:.1f} dB alone, {} {}", now.error.sqnr_db(), now.bytes <= 0 ? "saves" : "costs",
                        signed_bytes(now.bytes));
  std::vector<NodeFormat> others;
  for (const auto& [each, name] : kNodeFormats)
    if (each != format && (each == NodeFormat::float32 || row.alone.contains(each))) others.push_back(each);
  for (const NodeFormat other : others) {
    const Effect then = of(other);
    const std::int64_t bytes = then.bytes - now.bytes;
    const double before = choice.predicted_noise;
    const double after = std::max(before - now.error.noise + then.error.noise, 0.0);
    std::string change = fmt::format("leave {:.1f} dB", -10 * std::log10(after));
    if (before > 0 && after > 0) {
      const double db = 10 * std::log10(after / before);
      change = fmt::format("{} {:.2f} dB", db > 0 ? "lose" : "gain", std::abs(db));
    }
    text += fmt::format("; {} would {} and {} {}", node_format_name(other), change, bytes <= 0 ? "save" : "cost",
                        signed_bytes(bytes));
  }
  const auto repair = choice.repairs.find(row.node);
  if (repair != choice.repairs.end()) text += "; rescued: " + repair->second;
  return text;
}

}  // namespace onnxpress
