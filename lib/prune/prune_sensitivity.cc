#include "prune/prune_sensitivity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/interrupt.h"
#include "base/progress.h"
#include "calib/divergence.h"
#include "depend/remove.h"
#include "ir/fork.h"
#include "ir/rewriters.h"
#include "num/knapsack.h"
#include "num/select.h"
#include "prune/unit_cost.h"
#include "prune/unit_scores.h"
#include "prune/unit_select.h"
#include "sparse/prunable.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kMinElements = 256;

class Measuring {
 public:
  Measuring(const Model& model, PassContext& context, Activations& compare_on, std::vector<double> ratios)
      : model_(model), context_(context), compare_on_(compare_on), ratios_(std::move(ratios)) {}

  Result<PruneSensitivityTable> magnitude() {
    const std::vector<PrunableWeight> weights = plan_weights(model_, context_, common_weight_ops(), kMinElements);
    PruneSensitivityTable table = start(PruneMethod::magnitude, {});
    Progress progress("sensitivity", weights.size() * ratios_.size());
    for (const PrunableWeight& weight : weights) {
      const Node& reader = weight.readers.front().node;
      PruneSensitivity part{.name = reader.label(),
                            .kind = fmt::format("{} {}", reader.op(), dims_text(weight.dims)),
                            .size = weight.size()};
      OP_LET(const Tensor dense, weight.read());
      for (const double ratio : ratios_) {
        const std::uint64_t zeros = fraction_of(ratio, weight.size());
        OP_LET(const Model variant, without_smallest(weight, dense, zeros));
        OP_LET(const double divergence, measured(variant));
        part.effects.push_back({ratio, weight.size() - zeros, divergence, table.macs, table.parameters});
        progress.tick();
      }
      table.parts.push_back(std::move(part));
    }
    return table;
  }

  Result<PruneSensitivityTable> channels() {
    const Graph& graph = model_.main();
    OP_LET(const DependencyGraph dependencies, DependencyGraph::analyze(graph));
    const auto& groups = dependencies.groups();
    std::vector<ScopedGroup> scoped;
    ScoreRequest request{
        .original = model_, .model = model_, .graph = graph, .dependencies = dependencies, .groups = {}};
    for (std::size_t g = 0; g < groups.size(); ++g) {
      request.groups.push_back(g);
      scoped.push_back({&graph, &groups[g]});
    }
    PruneSensitivityTable table = start(PruneMethod::channels, scoped);
    if (groups.empty()) return table;
    OP_LET(const std::vector<UnitScores> scores, score_units(request, context_));
    const PlanCost cost(model_, scoped);
    Counts whole;
    for (const UnitGroup& group : groups) whole.push_back(group.units);
    Progress progress("sensitivity", groups.size() * ratios_.size());
    for (std::size_t g = 0; g < groups.size(); ++g) {
      PruneSensitivity part{.name = groups[g].name, .kind = unit_kind_name(groups[g].kind), .size = groups[g].units};
      const UnitSelection selection(
          {{.units = groups[g].units, .original = groups[g].units, .scores = scores[g].of_unit}},
          {.round_to = 1, .max_ratio = 1});
      for (const double ratio : ratios_) {
        progress.tick();
        Counts kept = whole;
        kept[g] = selection.kept(ratio).front();
        Removal removal(groups.size());
        removal[g] = selection.removed(0, kept[g]);
        if (removal[g].empty()) continue;
        Model variant = model_.clone();
        if (const auto cut = remove_units(variant, variant.main(), kept_axes(dependencies, removal), context_.jobs);
            !cut) {
          part.refusal = cut.error().text();
          break;
        }
        OP_LET(const double divergence, measured(variant));
        part.effects.push_back({ratio, kept[g], divergence, cost.macs(kept), cost.parameters(kept)});
      }
      if (part.effects.empty() && part.refusal.empty()) part.refusal = "no ratio takes one of its units";
      table.parts.push_back(std::move(part));
    }
    return table;
  }

 private:
  PruneSensitivityTable start(PruneMethod method, const std::vector<ScopedGroup>& groups) const {
    const PlanCost cost(model_, groups);
    Counts whole;
    for (const ScopedGroup& scoped : groups) whole.push_back(scoped.group->units);
    return {.method = method,
            .macs = cost.macs(whole),
            .parameters = cost.parameters(whole),
            .ratios = ratios_,
            .parts = {}};
  }

  // A copy of the model in which the smallest elements of one weight are zero.
  Result<Model> without_smallest(const PrunableWeight& weight, const Tensor& dense, std::uint64_t zeros) const {
    Tensor pruned = dense;
    const MagnitudeCut cut = smallest_magnitudes(pruned.view(), zeros);
    zero_below(pruned, cut);
    zero_ties(pruned, cut, cut.ties);
    Model variant = model_.clone();
    Graph& graph = scope_in(variant, *weight.scope);
    Rewriter rewriter(graph);
    if (const Initializer initializer = graph.initializer(weight.name)) {
      rewriter.set_initializer(initializer, std::move(pruned));
    } else {
      rewriter.set_attribute(graph.producer(weight.name), "value", std::move(pruned));
    }
    OP_TRY(rewriter.commit());
    return variant;
  }

  Result<double> measured(const Model& variant) {
    OP_TRY(check_interrupt());
    return output_divergence(model_, variant, compare_on_);
  }

  const Model& model_;
  PassContext& context_;
  Activations& compare_on_;
  std::vector<double> ratios_;
};

// Divergence of the part at a share, up to its largest ratio: it never falls; between two ratios it is a power of the
// share, below the first its square.
double divergence_at(const PruneSensitivity& part, double share) {
  double before = 0, below = 0;
  for (const PruneEffect& effect : part.effects) {
    const double divergence = std::max(effect.divergence, below);
    if (share >= effect.ratio) {
      before = effect.ratio;
      below = divergence;
      continue;
    }
    if (share <= before || divergence == below) return below;
    if (below == 0) return divergence * std::pow(share / effect.ratio, 2);
    return below * std::pow(share / before, std::log(divergence / below) / std::log(effect.ratio / before));
  }
  return share <= before ? below : std::numeric_limits<double>::infinity();
}

}  // namespace

const char* prune_method_name(PruneMethod method) {
  return method == PruneMethod::magnitude ? "prune-magnitude" : "prune-channels";
}

Result<PruneSensitivityTable> measure_prune_sensitivity(const Model& model, PassContext& context, PruneMethod method,
                                                        std::vector<double> ratios, Activations& compare_on) {
  std::ranges::sort(ratios);
  ratios.erase(std::ranges::unique(ratios).begin(), ratios.end());
  if (ratios.empty() || std::ranges::any_of(ratios, [](double ratio) { return !(ratio > 0 && ratio < 1); }))
    return fail(Code::usage, "ratios lie between 0 and 1, such as 0.25,0.5,0.75");
  Measuring measuring(model, context, compare_on, std::move(ratios));
  return method == PruneMethod::magnitude ? measuring.magnitude() : measuring.channels();
}

std::vector<double> least_divergence_shares(const PruneSensitivityTable& table, double share) {
  constexpr int kSteps = 50;  // of a share
  std::vector<KnapsackItem> items;
  double budget = 0;
  for (const PruneSensitivity& part : table.parts) {
    const auto size = static_cast<double>(part.size);
    KnapsackItem& item = items.emplace_back();
    for (int step = 0; step <= kSteps; ++step) {
      const double gone = static_cast<double>(step) / kSteps, loss = divergence_at(part, gone);
      if (std::isfinite(loss)) item.push_back({.cost = std::llround(size * (1 - gone)), .loss = loss});
    }
    budget += size * (1 - share);
  }
  if (items.empty()) return {};
  std::vector<double> shares;
  for (const std::size_t step : solve_knapsack(items, std::llround(budget)).choice)
    shares.push_back(static_cast<double>(step) / kSteps);
  return shares;
}

}  // namespace onnxpress
