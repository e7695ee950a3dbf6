#include "eval/evaluate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/parallel.h"
#include "base/progress.h"
#include "base/text.h"
#include "engine/session.h"
#include "eval/tally.h"

namespace onnxpress {
namespace {

// What the batches add up to: one ModelTally per session, and the pair when there are two.
struct Totals {
  std::vector<ModelTally> models;
  PairTally pair;
  std::size_t samples = 0;
  Metric metric = Metric::automatic;
};

// Outputs both sessions have, in the order of the first.
struct SharedOutputs {
  std::vector<std::string> names;
  std::vector<std::size_t> first, second;
};

SharedOutputs shared_outputs(const Session& before, const Session& after) {
  SharedOutputs shared;
  for (std::size_t i = 0; i < before.outputs().size(); ++i) {
    const auto at = std::ranges::find(after.outputs(), before.outputs()[i].name, &ValueInfo::name);
    if (at == after.outputs().end()) continue;
    shared.names.push_back(before.outputs()[i].name);
    shared.first.push_back(i);
    shared.second.push_back(static_cast<std::size_t>(at - after.outputs().begin()));
  }
  return shared;
}

// Streams a source through one or two sessions.
class Evaluator {
 public:
  Evaluator(std::span<const std::unique_ptr<Session>> sessions, SampleSource& source, const EvalOptions& options)
      : sessions_(sessions), source_(source), options_(options) {
    if (sessions.size() == 2) shared_ = shared_outputs(*sessions[0], *sessions[1]);
  }
  const SharedOutputs& shared() const { return shared_; }

  Result<Totals> run() {
    OP_TRY(source_.rewind());
    totals_ = {};
    totals_.models.resize(sessions_.size());
    slots_.assign(ordered_slots(options_.jobs), {});
    Progress progress("evaluation", source_.size());
    OP_TRY(run_ordered(options_.jobs, {.fetch = [this](std::size_t slot) { return fetch(slots_[slot]); },
                                       .work = [this](std::size_t slot) { return work(slots_[slot]); },
                                       .commit =
                                           [&](std::size_t slot) {
                                             progress.tick(slots_[slot].batch.samples);
                                             return commit(slots_[slot]);
                                           }}));
    if (totals_.samples == 0) return fail(Code::bad_input, "{}: no samples", source_.description());
    return std::move(totals_);
  }

 private:
  struct Slot {
    Batch batch;
    std::vector<ModelTally> models;
    PairTally pair;
  };

  Result<bool> fetch(Slot& slot) {
    OP_LET(auto batch, source_.next());
    if (!batch) return false;
    slot.batch = std::move(*batch);
    return true;
  }

  Status work(Slot& slot) const {
    slot.models.assign(sessions_.size(), {});
    slot.pair = {};
    std::vector<std::vector<Tensor>> outputs(sessions_.size());
    for (std::size_t k = 0; k < sessions_.size(); ++k) {
      OP_LET(outputs[k], sessions_[k]->run(slot.batch.inputs));
      OP_TRY(
          slot.models[k].add(slot.batch, sessions_[k]->outputs(), outputs[k], options_.metric == Metric::perplexity));
    }
    if (sessions_.size() == 2) {
      std::vector<const Tensor*> before, after;
      for (std::size_t i = 0; i < shared_.names.size(); ++i) {
        before.push_back(&outputs[0][shared_.first[i]]);
        after.push_back(&outputs[1][shared_.second[i]]);
      }
      OP_TRY(slot.pair.add(slot.batch, shared_.names, before, after, options_.metric == Metric::agreement));
    }
    return {};
  }

  Status commit(Slot& slot) {
    for (std::size_t k = 0; k < slot.models.size(); ++k) totals_.models[k].merge(slot.models[k]);
    totals_.pair.merge(slot.pair);
    // A metric that cannot be had is refused after the first batch, not after the last.
    if (totals_.samples == 0) {
      const PairTally* pair = sessions_.size() == 2 ? &totals_.pair : nullptr;
      totals_.metric = options_.metric;
      for (const ModelTally& model : totals_.models) {
        OP_LET(totals_.metric, resolve_metric(totals_.metric, source_.has_labels(), model, pair));
      }
    }
    totals_.samples += slot.batch.samples;
    slot = {};
    return {};
  }

  std::span<const std::unique_ptr<Session>> sessions_;
  SampleSource& source_;
  const EvalOptions& options_;
  SharedOutputs shared_;
  std::vector<Slot> slots_;
  Totals totals_;
};

// In the order of the model's outputs.
std::vector<OutputCloseness> in_output_order(const std::map<std::string, Closeness>& tallies, const Session& session) {
  std::vector<OutputCloseness> list;
  for (const ValueInfo& output : session.outputs())
    if (const auto at = tallies.find(output.name); at != tallies.end() && at->second.elements > 0)
      list.push_back({output.name, at->second});
  return list;
}

void warn_of(const ModelTally& tally, std::string_view which, std::vector<std::string>& warnings) {
  for (const auto& [name, count] : tally.nans)
    warnings.push_back(fmt::format("output {}{}: {} NaN values", escape_control(name), which, count));
  for (const auto& [name, count] : tally.misfits)
    warnings.push_back(
        fmt::format("output {}{}: not compared with the expected output in {} batches (another shape, "
                    "or not numeric)",
                    escape_control(name), which, count));
}

}  // namespace

const ScorePair* Comparison::headline() const {
  const auto at = std::ranges::find(scores, metric, &ScorePair::metric);
  return at == scores.end() ? nullptr : &*at;
}

std::optional<double> Comparison::worst_sqnr() const {
  std::optional<double> worst;
  for (const OutputCloseness& output : outputs) {
    const double sqnr = output.closeness.sqnr_db();
    if (std::isnan(sqnr)) return sqnr;
    worst = std::min(worst.value_or(std::numeric_limits<double>::infinity()), sqnr);
  }
  return worst;
}

Result<Evaluation> evaluate(const Model& model, SampleSource& source, const EvalOptions& options) {
  std::vector<std::unique_ptr<Session>> sessions(1);
  OP_LET(sessions[0], Session::open(model, {.threads = 1}));
  OP_LET(const Totals totals, Evaluator(sessions, source, options).run());
  Evaluation result;
  result.metric = totals.metric;
  result.samples = totals.samples;
  result.scores = model_scores(totals.metric, totals.models[0]);
  result.expected = in_output_order(totals.models[0].expected, *sessions[0]);
  warn_of(totals.models[0], "", result.warnings);
  return result;
}

Result<Comparison> compare(const Model& before, const Model& after, SampleSource& source, const EvalOptions& options) {
  std::vector<std::unique_ptr<Session>> sessions(2);
  OP_LET(sessions[0], Session::open(before, {.threads = 1}));
  OP_LET(sessions[1], Session::open(after, {.threads = 1}));
  Evaluator evaluator(sessions, source, options);
  const auto& shared = evaluator.shared().names;
  if (shared.empty()) return fail(Code::bad_input, "the two models have no output of the same name");
  OP_LET(const Totals totals, evaluator.run());
  Comparison result;
  result.metric = totals.metric;
  result.samples = totals.samples;
  result.scores = pair_scores(totals.metric, totals.models[0], totals.models[1], totals.pair);
  result.outputs = in_output_order(totals.pair.outputs, *sessions[0]);
  result.expected_before = in_output_order(totals.models[0].expected, *sessions[0]);
  result.expected_after = in_output_order(totals.models[1].expected, *sessions[1]);
  for (std::size_t k = 0; k < sessions.size(); ++k) {
    const std::string_view which = k == 0 ? " before" : " after";
    for (const ValueInfo& output : sessions[k]->outputs())
      if (std::ranges::find(shared, output.name) == shared.end())
        result.warnings.push_back(
            fmt::format("output {} exists only in the model{}; not compared", escape_control(output.name), which));
    warn_of(totals.models[k], which, result.warnings);
  }
  for (const auto& [name, count] : totals.pair.misfits)
    result.warnings.push_back(fmt::format("output {}: not compared in {} batches (different shapes, or not numeric)",
                                          escape_control(name), count));
  return result;
}

}  // namespace onnxpress
