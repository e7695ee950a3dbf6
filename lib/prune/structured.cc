#include "prune/structured.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "depend/fold_sizes.h"
#include "depend/proof.h"
#include "depend/remove.h"
#include "prune/structured_journal.h"
#include "prune/unit_cost.h"
#include "prune/unit_scores.h"
#include "prune/unit_select.h"

namespace onnxpress {
namespace {

using Criterion = StructuredOptions::Criterion;

struct Scope {
  Graph* graph = nullptr;
  DependencyGraph dependencies;
};

// A group that may lose units.
struct Entry {
  std::size_t scope = 0, group = 0;
};

// One state of the model: its groups and how much each of their units matters.
struct Analysis {
  std::vector<Scope> scopes;
  std::vector<Entry> entries;
  std::vector<Candidate> candidates;  // of the entries

  const UnitGroup& group(std::size_t entry) const {
    return scopes[entries[entry].scope].dependencies.groups()[entries[entry].group];
  }
  const Graph& graph(std::size_t entry) const { return *scopes[entries[entry].scope].graph; }
  std::vector<ScopedGroup> scoped() const {
    std::vector<ScopedGroup> list;
    for (std::size_t i = 0; i < entries.size(); ++i) list.push_back({&graph(i), &group(i)});
    return list;
  }
};

// What is to go, proven.
struct Plan {
  std::vector<Removal> removals;  // of each scope
  double ratio = 1;               // that was asked for; 1 with a target
};

// Tells a group apart in all versions of the model: the first axis of the first thing it cuts, and how many groups have
// begun on it before (a channel split makes several of one weight).
using GroupKey = std::tuple<const Graph*, KeptAxes::Axis, std::size_t>;

struct Totals {
  std::uint64_t macs = 0, parameters = 0;
};
Totals totals_of(const Model& model) {
  const PlanCost cost(model, {});
  return {cost.macs({}), cost.parameters({})};
}

double share_of(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 1 : static_cast<double>(part) / static_cast<double>(whole);
}

class StructuredPruning {
 public:
  StructuredPruning(Model& model, PassContext& context, const StructuredOptions& options,
                    const std::set<UnitKind>& kinds)
      : model_(model), context_(context), options_(options), kinds_(kinds), original_(model.clone()) {}

  Result<Outcome> run() {
    OP_TRY(check_options());
    // Sizes that are computed although they are known hide what layers cost and tie.
    bool folded = false;
    for (Graph* graph : model_.graphs()) {
      OP_LET(const bool one, fold_known_sizes(*graph));
      folded |= one;
    }
    OP_LET(const bool changed, prune_steps());
    if (changed) journal_totals();
    if (!changed && folded) model_ = original_.clone();
    return Outcome{changed};
  }

 private:
  bool targeted() const { return options_.macs || options_.params; }

  Status check_options() const {
    if (options_.ratio && targeted())
      return fail(Code::usage, "ratio= and a target (macs=, params=) exclude each other");
    const bool needs_data = options_.criterion == Criterion::activation || options_.criterion == Criterion::obs ||
                            options_.criterion == Criterion::loss;
    if (needs_data && context_.activations == nullptr) return fail(Code::usage, "this criterion needs --data");
    if (options_.repair.repair == RepairOptions::When::on && context_.activations == nullptr)
      return fail(Code::usage, "repair=on needs --data");
    return {};
  }

  Result<bool> prune_steps() {
    before_ = totals_of(model_);
    if (options_.macs && before_.macs == 0) {
      context_.journal.warning("macs= has nothing to go by: no layer has multiply-accumulates in known shapes");
      return false;
    }
    bytes_ = constant_bytes(original_);
    bool changed = false;
    for (std::int64_t step = 1; step <= options_.steps; ++step) {
      OP_LET(const bool pruned, prune_step(step));
      if (!pruned) continue;
      changed = true;
      OP_TRY(repair_pruned(model_, original_, kept_, false, context_, options_.repair));
    }
    return changed;
  }

  Result<bool> prune_step(std::int64_t step) {
    const auto start = std::chrono::steady_clock::now();
    OP_LET(Analysis analysis, analyze(step));
    freeze_growing(analysis, step);
    const UnitSelection selection = select(analysis);
    const double planning = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    log::debug("{} groups analyzed and scored in {:.2f} s", analysis.entries.size(), planning);
    OP_LET(const Plan plan, prove(analysis, selection, step));
    DoneLines lines;
    for (std::size_t i = 0; i < analysis.entries.size(); ++i) {
      const std::size_t gone = removal_of(plan, analysis.entries[i]).size();
      const UnitGroup& group = analysis.group(i);
      const bool last = step == options_.steps;
      if (gone > 0)
        lines.add(group, analysis.graph(i), group.units - gone);
      else if (last && group.units == analysis.candidates[i].original && !whole_.contains(key_of(analysis, i)))
        journal_whole(group, analysis.graph(i), selection.why_whole(i, plan.ratio), context_);
    }
    if (lines.empty()) return false;
    return remove(analysis, plan, lines);
  }

  // The groups of all scopes, and scores for those that may be pruned. In the first step whatever may not is journaled.
  Result<Analysis> analyze(std::int64_t step) {
    Analysis analysis;
    const DependencyOptions rules{.allow_normalized = options_.allow_normalized,
                                  .refusal = [this](const Node& node) { return refusal(node); }};
    for (Graph* graph : model_.graphs()) {
      if (graph->kind() == Graph::Kind::function) {
        if (step == 1)
          context_.journal.note(
              fmt::format("function '{}' is left as it is; clean-functions inlines functions", graph->name()));
        continue;
      }
      OP_LET(DependencyGraph dependencies, DependencyGraph::analyze(*graph, rules));
      if (step == 1) journal_blocked(dependencies, context_);
      analysis.scopes.push_back({graph, std::move(dependencies)});
    }
    for (std::size_t s = 0; s < analysis.scopes.size(); ++s) OP_TRY(score(analysis, s, step));
    return analysis;
  }

  std::string refusal(const Node& node) const {
    for (const Selection* selection : context_.selections)
      if (std::string why = selection->refusal(node); !why.empty()) return why;
    return {};
  }

  // Why no unit of the group may go, whatever it scores.
  std::string refusal(const UnitGroup& group, const Graph& graph) const {
    if (!kinds_.contains(group.kind))
      return group.kind == UnitKind::heads ? "prune-heads takes them" : "this pass prunes other kinds of units";
    if (options_.inner && is_residual_stream(group, graph)) return "residual additions tie them together (inner=true)";
    return {};
  }

  Status score(Analysis& analysis, std::size_t s, std::int64_t step) {
    const Scope& scope = analysis.scopes[s];
    ScoreRequest request{.original = original_,
                         .model = model_,
                         .graph = *scope.graph,
                         .dependencies = scope.dependencies,
                         .groups = {},
                         .criterion = Criterion::group_l2,
                         .positions = static_cast<std::size_t>(options_.repair.positions),
                         .most = most_share()};
    const auto& groups = scope.dependencies.groups();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const std::string why = refusal(groups[g], *scope.graph);
      if (why.empty())
        request.groups.push_back(g);
      else if (step == 1)
        journal_whole(groups[g], *scope.graph, why, context_);
    }
    if (request.groups.empty()) return {};
    OP_LET(std::vector<UnitScores> scores, scores_for(request));
    std::map<std::string, std::size_t> notes;
    for (std::size_t i = 0; i < request.groups.size(); ++i) {
      analysis.entries.push_back({s, request.groups[i]});
      const std::size_t entry = analysis.entries.size() - 1;
      const UnitGroup& group = analysis.group(entry);
      if (!scores[i].note.empty()) ++notes[scores[i].note];
      const GroupKey key = key_of(analysis, entry);
      analysis.candidates.push_back({.units = group.units,
                                     .original = units_.try_emplace(key, group.units).first->second,
                                     .width = std::max<std::size_t>(group.width, 1),
                                     .scores = std::move(scores[i].of_unit),
                                     .pattern = group_pattern(group, *scope.graph),
                                     .frozen = whole_.contains(key)});
    }
    for (const auto& [note, count] : notes)
      if (step == 1) context_.journal.note(fmt::format("{} of {} groups: {}", count, request.groups.size(), note));
    return {};
  }

  // auto: obs costs the cube of what a reader reads, so long readers are left to the activations.
  Result<std::vector<UnitScores>> scores_for(ScoreRequest& request) {
    constexpr std::size_t kLongest = 1536;
    request.criterion = options_.criterion;
    if (options_.criterion != Criterion::automatic) return score_units(request, context_);
    if (context_.activations != nullptr && !unrunnable_) {
      request.criterion = Criterion::activation;
      request.longest = kLongest;
      auto scores = score_units(request, context_).and_then([&](std::vector<UnitScores> by_activation) {
        return reader_obs_scores(request, context_, std::move(by_activation));
      });
      if (scores || scores.error().code != Code::engine) return scores;
      unrunnable_ = true;
      context_.journal.warning("scored by group_l2, as the samples cannot be run: " + scores.error().text());
    }
    request.criterion = Criterion::group_l2;
    return score_units(request, context_);
  }

  double most_share() const {
    const bool known = options_.scope == StructuredOptions::Scope::local && !targeted();
    return known ? std::min(options_.max_ratio, 1.5 * options_.ratio.value_or(0.5)) : options_.max_ratio;
  }

  static GroupKey key_of(const Analysis& analysis, std::size_t entry) {
    const Entry& place = analysis.entries[entry];
    return key_of(analysis.scopes[place.scope], place.group);
  }
  static GroupKey key_of(const Scope& scope, std::size_t group) {
    const auto axis_of = [](const UnitGroup& each) {
      return KeptAxes::Axis(each.members.front().tensor, each.members.front().axis);
    };
    const std::vector<UnitGroup>& groups = scope.dependencies.groups();
    const KeptAxes::Axis axis = axis_of(groups[group]);
    const auto before = std::count_if(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(group),
                                      [&](const UnitGroup& each) { return axis_of(each) == axis; });
    return {scope.graph, axis, static_cast<std::size_t>(before)};
  }

  UnitSelection select(const Analysis& analysis) const {
    return UnitSelection(analysis.candidates,
                         {options_.scope, options_.round_to, options_.max_ratio, options_.min_keep});
  }

  // The share that is to be gone after this step.
  double ratio_after(std::int64_t step) const {
    return options_.ratio.value_or(0.5) * static_cast<double>(step) / static_cast<double>(options_.steps);
  }

  // The copies that readers of a shared constant need for themselves can outweigh what a group gives.
  void freeze_growing(Analysis& analysis, std::int64_t step) {
    const PlanCost cost(model_, analysis.scoped());
    Counts kept = select(analysis).kept(ratio_after(step));
    std::uint64_t parameters = cost.parameters(kept);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const std::size_t units = analysis.group(i).units;
      if (kept[i] == units) continue;
      const std::size_t fewer = std::exchange(kept[i], units);
      const std::uint64_t without = cost.parameters(kept);
      if (without > parameters) {
        kept[i] = fewer;
        continue;
      }
      parameters = without;
      analysis.candidates[i].frozen = true;
      whole_.insert(key_of(analysis, i));
      journal_whole(analysis.group(i), analysis.graph(i),
                    "copies of the constants it shares with others would take as much as it gives", context_);
    }
  }

  // How much of the original is to be left after this step, and what that takes.
  Plan choose(const Analysis& analysis, const UnitSelection& selection, std::int64_t step) const {
    const double done = static_cast<double>(step) / static_cast<double>(options_.steps);
    Plan plan{.removals = {}, .ratio = targeted() ? 1 : ratio_after(step)};
    Counts kept;
    if (targeted()) {
      const PlanCost cost(model_, analysis.scoped());
      const auto budget = [&](double share, std::uint64_t all) {
        return std::max(1.0, (1 - (1 - share) * done) * static_cast<double>(all));
      };
      kept = selection
                 .kept_within([&](const Counts& counts) {
                   double load = 0;
                   if (options_.macs)
                     load = static_cast<double>(cost.macs(counts)) / budget(*options_.macs, before_.macs);
                   if (options_.params)
                     load = std::max(load, static_cast<double>(cost.parameters(counts)) /
                                               budget(*options_.params, before_.parameters));
                   return load;
                 })
                 .kept;
    } else {
      kept = selection.kept(plan.ratio);
    }
    for (const Scope& scope : analysis.scopes) plan.removals.emplace_back(scope.dependencies.groups().size());
    for (std::size_t i = 0; i < kept.size(); ++i)
      plan.removals[analysis.entries[i].scope][analysis.entries[i].group] = selection.removed(i, kept[i]);
    return plan;
  }

  static const Indices& removal_of(const Plan& plan, const Entry& entry) {
    static const Indices none;
    const Removal& removal = plan.removals[entry.scope];
    return entry.group < removal.size() ? removal[entry.group] : none;
  }

  // Chooses and proves; with a target, what a group that failed does not give is looked for elsewhere.
  Result<Plan> prove(Analysis& analysis, const UnitSelection& first, std::int64_t step) {
    constexpr int kAttempts = 3;
    UnitSelection selection = first;
    for (int attempt = 1;; ++attempt) {
      Plan plan = choose(analysis, selection, step);
      const std::size_t failed = whole_.size();
      for (std::size_t s = 0; s < analysis.scopes.size(); ++s) {
        const bool any = std::ranges::any_of(plan.removals[s], [](const Indices& units) { return !units.empty(); });
        if (any) OP_TRY(prove_scope(analysis, s, plan.removals[s]));
      }
      if (whole_.size() == failed || !targeted() || attempt == kAttempts) return plan;
      for (std::size_t i = 0; i < analysis.entries.size(); ++i)
        analysis.candidates[i].frozen = whole_.contains(key_of(analysis, i));
      selection = select(analysis);
    }
  }

  Status prove_scope(const Analysis& analysis, std::size_t s, Removal& removal) {
    const Scope& scope = analysis.scopes[s];
    OP_LET(Proof proof, prove_removal(model_, *scope.graph, scope.dependencies, removal, context_));
    for (const Proof::Failure& failure : proof.failures) {
      const UnitGroup& group = scope.dependencies.groups()[failure.group];
      whole_.insert(key_of(scope, failure.group));
      context_.journal.warning(fmt::format("group {} was not pruned: {}", group.name, failure.reason));
      journal_whole(group, *scope.graph, failure.reason, context_);
    }
    if (!proof.unproven.empty())
      context_.journal.warning("not proven: " + proof.unproven);
    else if (!proof.weak.empty())
      context_.journal.warning(
          fmt::format("the proof (outputs differ by {:.1e} at most) means little: {}", proof.error, proof.weak));
    else
      context_.journal.note(fmt::format(
          "proven: relative to the original with these units silent, outputs differ by {:.1e} at most", proof.error));
    removal = std::move(proof.removal);
    return {};
  }

  Result<bool> remove(const Analysis& analysis, const Plan& plan, const DoneLines& lines) {
    bool changed = false;
    KeptAxes kept = kept_;
    for (std::size_t s = 0; s < analysis.scopes.size(); ++s) {
      const Scope& scope = analysis.scopes[s];
      const KeptAxes left = kept_axes(scope.dependencies, plan.removals[s]);
      if (left.empty()) continue;
      OP_LET(const bool cut, remove_units(model_, *scope.graph, left, context_.jobs));
      changed |= cut;
      if (scope.graph == &model_.main()) kept = kept.then(left);
    }
    if (changed && constant_bytes(model_) >= bytes_) {
      model_ = original_.clone();
      context_.journal.note("nothing was pruned: the file would not become smaller");
      return false;
    }
    kept_ = std::move(kept);
    lines.journal(context_);
    return changed;
  }

  void journal_totals() {
    const Totals after = totals_of(model_);
    const double macs = share_of(after.macs, before_.macs), parameters = share_of(after.parameters, before_.parameters);
    std::string note =
        fmt::format("parameters {} -> {} ({:.1f} %)", before_.parameters, after.parameters, 100 * parameters);
    if (before_.macs > 0)
      note += fmt::format(", multiply-accumulates {} -> {} ({:.1f} %)", before_.macs, after.macs, 100 * macs);
    context_.journal.note(note);
    const auto missed = [&](const char* name, const std::optional<double>& target, double reached) {
      if (target && reached > *target)
        context_.journal.warning(
            fmt::format("{}={} was not reached but {:.3f}: the guards, round_to and what must stay "
                        "allow no less",
                        name, *target, reached));
    };
    missed("macs", options_.macs, macs);
    missed("params", options_.params, parameters);
  }

  Model& model_;
  PassContext& context_;
  const StructuredOptions& options_;
  const std::set<UnitKind>& kinds_;
  Model original_;
  Totals before_;
  std::uint64_t bytes_ = 0;
  bool unrunnable_ = false;                // the samples, by the runtime
  KeptAxes kept_;                          // of the main graph, in terms of original_
  std::map<GroupKey, std::size_t> units_;  // of each group when it was first seen
  std::set<GroupKey> whole_;               // groups that stay so: the proof failed, or they would not save anything
};

}  // namespace

Result<Outcome> prune_structured(Model& model, PassContext& context, const StructuredOptions& options,
                                 const std::set<UnitKind>& kinds) {
  return StructuredPruning(model, context, options, kinds).run();
}

}  // namespace onnxpress
