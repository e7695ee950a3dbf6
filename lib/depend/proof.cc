#include "depend/proof.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/text.h"
#include "depend/blank.h"
#include "depend/random_run.h"
#include "depend/remove.h"
#include "ir/fork.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

// Enough to find half a dozen groups at fault among a hundred.
constexpr std::size_t kMostTrials = 64;

bool ours(const Error& error) { return error.code == Code::io || error.code == Code::resource; }

// Whether sums are rounded coarsely somewhere.
bool computes_coarsely(const Graph& graph) {
  return std::ranges::any_of(graph.nodes(), [&](const Node& node) {
    if (node.is("QuantizeLinear") || node.is("DynamicQuantizeLinear")) return true;
    const DType dtype = graph.type(node.output(0)).dtype;
    return is_float(dtype) && bit_width(dtype) < 32;
  });
}

struct Trial {
  bool passed = false;
  std::string reason;
  double error = 0, effect = 0;
};

class Prover {
 public:
  Prover(const Model& model, const Graph& graph, const DependencyGraph& dependencies, PassContext& context)
      : model_(model), graph_(graph), dependencies_(dependencies), context_(context) {
    tolerance_ = std::ranges::any_of(model.graphs(), [](const Graph* scope) { return computes_coarsely(*scope); })
                     ? kCoarseTolerance
                     : kProofTolerance;
  }

  // Why nothing can be run; "" when the model as it is runs.
  Result<std::string> start() {
    if (context_.runner == nullptr) return "no engine";
    const std::uint64_t bytes = weight_bytes(model_);
    if (context_.memory_limit != 0 && bytes > context_.memory_limit)
      return fmt::format("a copy of the model needs {}, more than the memory limit", human_bytes(bytes));
    auto run = run_randomly(model_, *context_.runner, context_.seed);
    if (!run && ours(run.error())) return std::unexpected(std::move(run).error());
    if (!run) return "the model does not run: " + run.error().text();
    originals_.push_back(std::move(*run));
    if (!has_switches(model_)) return "";
    auto other = run_randomly(model_, *context_.runner, context_.seed, true);
    if (other) originals_.push_back(std::move(*other));
    return "";
  }

  // The groups of `which`, all at once.
  Result<Trial> test(const Removal& removal, std::span<const std::size_t> which) {
    ++trials_;
    Removal part(removal.size());
    for (const std::size_t group : which) part[group] = removal[group];
    const KeptAxes kept = kept_axes(dependencies_, part);
    auto narrow = run_changed([&](Model& copy, Graph& scope) -> Status {
      OP_TRY(remove_units(copy, scope, kept, context_.jobs));
      return {};
    });
    if (!narrow) return refused(std::move(narrow).error());
    auto silenced =
        run_changed([&](Model& copy, Graph& scope) { return blank_units(copy, scope, kept, context_.jobs); });
    if (silenced && !finite(*silenced) && finite(*narrow)) {  // divided by something silent: silence only the readers
      const KeptAxes readers = reading(kept);
      silenced =
          run_changed([&](Model& copy, Graph& scope) { return blank_units(copy, scope, readers, context_.jobs); });
    }
    if (!silenced) return refused(std::move(silenced).error());
    Trial trial;
    for (std::size_t i = 0; i < originals_.size(); ++i) {
      trial.error = std::max(trial.error, distance((*silenced)[i], (*narrow)[i]));
      trial.effect = std::max(trial.effect, distance(originals_[i].outputs, (*narrow)[i]));
    }
    trial.passed = trial.error <= tolerance_;
    if (!trial.passed) trial.reason = describe(trial.error);
    return trial;
  }

  // Which of the groups pass, by halving; reasons of the others go to `failures`.
  Result<std::vector<std::size_t>> passing(const Removal& removal, std::span<const std::size_t> groups,
                                           std::vector<Proof::Failure>& failures) {
    if (groups.empty()) return std::vector<std::size_t>();
    if (trials_ >= kMostTrials) {
      for (const std::size_t group : groups)
        failures.push_back({group, fmt::format("not told apart from others that fail, after {} trials", trials_)});
      return std::vector<std::size_t>();
    }
    OP_LET(const Trial trial, test(removal, groups));
    if (trial.passed) return std::vector<std::size_t>(groups.begin(), groups.end());
    if (groups.size() == 1) {
      failures.push_back({groups.front(), trial.reason});
      return std::vector<std::size_t>();
    }
    return halves(removal, groups, failures);
  }

  Result<std::vector<std::size_t>> halves(const Removal& removal, std::span<const std::size_t> groups,
                                          std::vector<Proof::Failure>& failures) {
    OP_LET(std::vector<std::size_t> left, passing(removal, groups.first(groups.size() / 2), failures));
    OP_LET(const std::vector<std::size_t> right, passing(removal, groups.subspan(groups.size() / 2), failures));
    left.insert(left.end(), right.begin(), right.end());
    return left;
  }

  std::size_t trials() const { return trials_; }
  double tolerance() const { return tolerance_; }

 private:
  // Results of a changed copy, for each of the inputs.
  using Outputs = std::vector<std::vector<Tensor>>;
  Result<Outputs> run_changed(const std::function<Status(Model& copy, Graph& scope)>& change) {
    OP_LET(Model copy, fork_model(model_));
    OP_TRY(change(copy, scope_in(copy, graph_)));
    Outputs outputs;
    for (const RandomRun& original : originals_) {
      OP_LET(outputs.emplace_back(), context_.runner->run(copy, original.inputs));
    }
    return outputs;
  }

  static bool finite(const Outputs& outputs) {
    return std::ranges::all_of(outputs, [](const std::vector<Tensor>& tensors) { return all_finite(tensors); });
  }

  static Result<Trial> refused(Error error) {
    if (ours(error)) return std::unexpected(std::move(error));
    Trial trial;
    trial.reason = error.text();
    return trial;
  }

  static std::string describe(double error) {
    if (error == std::numeric_limits<double>::infinity()) return "outputs differ in shape, or are not finite";
    return fmt::format("outputs differ by {:.2g} of their range", error);
  }

  // Only what reads the units.
  KeptAxes reading(const KeptAxes& kept) const {
    KeptAxes readers;
    for (const UnitGroup& group : dependencies_.groups())
      for (const GroupMember& member : group.members)
        if (const Indices* indices = kept.find(member.tensor, member.axis);
            indices != nullptr && (member.role == AxisRole::consumes || !member.tensor.is_constant()))
          readers.set(member.tensor, member.axis, *indices);
    return readers;
  }

  const Model& model_;
  const Graph& graph_;
  const DependencyGraph& dependencies_;
  PassContext& context_;
  double tolerance_ = kProofTolerance;
  std::vector<RandomRun> originals_;  // the model as it is, on one or two choices of inputs
  std::size_t trials_ = 0;
};

void take_out(const std::vector<std::size_t>& kept, Removal& removal) {
  for (std::size_t group = 0; group < removal.size(); ++group)
    if (!std::ranges::contains(kept, group)) removal[group].clear();
}

}  // namespace

Result<Proof> prove_removal(const Model& model, const Graph& graph, const DependencyGraph& dependencies,
                            Removal removal, PassContext& context) {
  Proof proof;
  proof.removal = std::move(removal);
  std::vector<std::size_t> groups;
  for (std::size_t group = 0; group < proof.removal.size(); ++group)
    if (!proof.removal[group].empty()) groups.push_back(group);
  if (groups.empty()) return proof;
  Prover prover(model, graph, dependencies, context);
  OP_LET(proof.unproven, prover.start());
  if (!proof.unproven.empty()) return proof;
  OP_LET(Trial all, prover.test(proof.removal, groups));
  while (!all.passed && !groups.empty()) {
    const std::size_t failures_before = proof.failures.size();
    OP_LET(groups, groups.size() == 1 ? prover.passing(proof.removal, groups, proof.failures)
                                      : prover.halves(proof.removal, groups, proof.failures));
    take_out(groups, proof.removal);
    if (groups.empty()) break;
    OP_LET(all, prover.test(proof.removal, groups));
    if (!all.passed && proof.failures.size() == failures_before) {  // each is fine, together they are not
      proof.failures.push_back({groups.back(), "together with others: " + all.reason});
      groups.pop_back();
      take_out(groups, proof.removal);
    }
  }
  std::ranges::sort(proof.failures, {}, &Proof::Failure::group);
  proof.trials = prover.trials();
  if (groups.empty()) return proof;
  proof.error = all.error;
  proof.effect = all.effect;
  if (all.effect <= prover.tolerance()) proof.weak = "the outputs do not depend on what was removed";
  return proof;
}

}  // namespace onnxpress
