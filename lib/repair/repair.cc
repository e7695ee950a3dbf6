#include "repair/repair.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "calib/levels.h"
#include "repair/compensate.h"
#include "repair/refit.h"
#include "repair/repair_layers.h"

namespace onnxpress {
namespace {

// Squared error over power of an output, on the samples that are held out.
class HeldOutError : public PairAccumulator {
 public:
  std::any reduce(const TensorView& a, const TensorView& b) const override {
    Part part;
    const auto x = to_floats(a), y = to_floats(b);
    if (!x || !y || !std::ranges::equal(a.dims, b.dims) || a.dims.empty() || a.dims[0] < 1) return part;
    part.samples.resize(static_cast<std::size_t>(a.dims[0]));
    const std::size_t each = x->size() / part.samples.size();
    for (std::size_t i = 0; i < each * part.samples.size(); ++i) {
      const double wanted = static_cast<double>((*x)[i]), got = static_cast<double>((*y)[i]);
      part.samples[i / each].first += (wanted - got) * (wanted - got);
      part.samples[i / each].second += wanted * wanted;
    }
    return part;
  }
  void merge(std::any partial) override {
    const Part part = std::any_cast<Part>(std::move(partial));
    usable_ = usable_ && !part.samples.empty();
    for (const auto& [error, power] : part.samples) {
      if (!held_out(seen_++)) continue;
      error_ += error;
      power_ += power;
    }
  }
  // nullopt: its shape is not the same in both, or there is nothing to compare with.
  std::optional<double> value() const {
    return usable_ && power_ > 0 && std::isfinite(power_) ? std::optional(error_ / power_) : std::nullopt;
  }

 private:
  struct Part {
    std::vector<std::pair<double, double>> samples = {};  // error and power
  };
  bool usable_ = true;
  std::uint64_t seen_ = 0;
  double error_ = 0, power_ = 0;
};

// The mean over the float outputs; nullopt when none can be compared.
Result<std::optional<double>> output_error(const Model& original, const Model& model, PassContext& context) {
  std::vector<HeldOutError> errors(model.main().outputs().size());
  std::vector<PairTap> taps;
  for (std::size_t i = 0; i < errors.size(); ++i) {
    const std::string output = model.main().outputs()[i];
    if (original.main().producer(output) && model.main().producer(output) && original.main().is_output(output) &&
        is_float(original.main().type(output).dtype))
      taps.push_back({output, output, &errors[i]});
  }
  if (taps.empty()) return std::nullopt;
  OP_TRY(context.activations->collect_pairs(original, model, taps));
  double sum = 0;
  std::size_t count = 0;
  for (const HeldOutError& error : errors)
    if (const auto value = error.value()) {
      sum += *value;
      ++count;
    }
  return count == 0 ? std::nullopt : std::optional(sum / static_cast<double>(count));
}

class Repair {
 public:
  Repair(Model& model, const Model& original, bool keep_zeros, PassContext& context, const RepairOptions& options)
      : model_(model),
        original_(original),
        context_(context),
        options_(options),
        refitter_(context, options, keep_zeros) {}

  Result<bool> run(std::vector<std::vector<RepairLayer>> levels) {
    for (const auto& level : levels) layers_ += level.size();
    const auto compared = output_error(original_, model_, context_);
    // A model that nothing can run is pruned all the same, unless the user insists.
    if (!compared && compared.error().code == Code::engine && options_.repair == RepairOptions::When::automatic) {
      context_.journal.warning("not repaired, as the samples cannot be run: " + compared.error().text());
      return false;
    }
    OP_TRY(compared);
    const std::optional<double> before = *compared;
    Model backup = model_.clone();
    // The targets of as many levels as fit, at once: the original runs seldom.
    for (std::size_t first = 0, last = 0; first < levels.size(); first = last) {
      std::uint64_t bytes = 0;
      for (last = first; last < levels.size(); ++last) {
        for (const RepairLayer& layer : levels[last]) bytes += target_bytes(layer);
        if (last > first && (samples_ == 0 || bytes > refitter_.budget())) break;
      }
      OP_LET(Targets targets, collect_targets(std::span(levels).subspan(first, last - first)));
      std::size_t next = 0;
      for (std::size_t at = first; at < last; ++at) {
        OP_TRY(refit_level(levels[at], std::span(targets).subspan(next, levels[at].size())));
        next += levels[at].size();
      }
    }
    if (done_.empty()) return false;
    OP_LET(const auto after, output_error(original_, model_, context_));
    return conclude(before, after, backup);
  }

 private:
  using Targets = std::vector<RowsOfLayer>;

  std::uint64_t target_bytes(const RepairLayer& layer) const {
    return samples_ * refitter_.positions() * layer.regression.shape.outputs * sizeof(float);
  }
  std::uint64_t input_bytes(const RepairLayer& layer) const {
    const PatchShape& shape = layer.regression.shape;
    return samples_ * refitter_.input_positions(layer, samples_) * shape.groups * shape.length * sizeof(float) +
           target_bytes(layer);
  }

  // One for each layer of the levels, in their order.
  Result<Targets> collect_targets(std::span<const std::vector<RepairLayer>> levels) {
    Targets targets;
    std::vector<Tap> taps;
    for (const auto& level : levels)
      for (const RepairLayer& layer : level) {
        targets.push_back(refitter_.output_rows(layer, layer.channels));
        taps.push_back({layer.target, targets.back().get()});
      }
    OP_TRY(collect_up_to(*context_.activations, original_, taps));
    for (const auto& target : targets) samples_ = std::max<std::uint64_t>(samples_, target->samples().size());
    return targets;
  }

  Status refit_level(std::span<RepairLayer> level, std::span<RowsOfLayer> targets) {
    for (std::size_t begin = 0, end = 0; begin < level.size(); begin = end) {
      std::uint64_t bytes = 0;
      for (end = begin; end < level.size(); ++end) {
        bytes += input_bytes(level[end]);
        if (bytes > refitter_.budget() && end > begin) break;
      }
      OP_TRY(refit_group(level.subspan(begin, end - begin), targets.subspan(begin, end - begin)));
    }
    return {};
  }

  Status refit_group(std::span<RepairLayer> group, std::span<RowsOfLayer> targets) {
    Targets inputs, shortcuts;
    std::vector<Tap> taps;
    for (const RepairLayer& layer : group) {
      inputs.push_back(refitter_.input_rows(layer, samples_));
      taps.push_back({layer.input, inputs.back().get()});
      shortcuts.push_back(layer.shortcut.empty() ? nullptr : refitter_.output_rows(layer, {}));
      if (!layer.shortcut.empty()) taps.push_back({layer.shortcut, shortcuts.back().get()});
    }
    OP_TRY(collect_up_to(*context_.activations, model_, taps));
    Rewriter rewriter(model_.main());
    for (std::size_t i = 0; i < group.size(); ++i) {
      OP_TRY(note(group[i], refitter_.refit(group[i], *inputs[i], *targets[i], shortcuts[i].get(), rewriter)));
      targets[i].reset();
      inputs[i].reset();
    }
    OP_TRY(rewriter.commit());
    return {};
  }

  Status note(const RepairLayer& layer, const Result<Reconstruction>& result) {
    if (!result && result.error().code != Code::unsupported) return std::unexpected(result.error());
    if (!result) {
      context_.skipped(layer.node, "not refitted: " + result.error().what);
      return {};
    }
    const bool weights = result->change == Reconstruction::Change::weights;
    if (weights && result->rows < 2 * layer.regression.shape.length) {
      if (starved_ == 0) first_starved_ = layer.node.label();
      ++starved_;
    }
    done_.push_back(
        {layer.node, fmt::format("{}: output error {:.2f} % -> {:.2f} % on held-out samples{}",
                                 weights ? "refitted" : "bias refitted", 100 * result->error_before,
                                 100 * result->error_after, weights ? fmt::format(", ridge {}", result->ridge) : "")});
    return {};
  }

  bool conclude(std::optional<double> before, std::optional<double> after, Model& backup) {
    const bool worse = before && after && !(*after < *before);
    for (const auto& [node, what] : done_) {
      if (worse)
        context_.skipped(node, "taken back, the outputs came no closer to the original's: " + what);
      else
        context_.done(node, what);
    }
    if (worse) {
      context_.journal.warning(
          fmt::format("repair taken back: error of the outputs on held-out samples {:.2f} % without, {:.2f} % with it",
                      100 * *before, 100 * *after));
      model_ = std::move(backup);
      return false;
    }
    if (starved_ > 0)
      context_.journal.warning(fmt::format(
          "{} layers ('{}' first) were refitted to fewer rows than twice their inputs: more samples would do better",
          starved_, first_starved_));
    std::string note = fmt::format("repair: {} of {} layers refitted", done_.size(), layers_);
    if (before && after)
      note +=
          fmt::format("; error of the outputs on held-out samples {:.2f} % -> {:.2f} %", 100 * *before, 100 * *after);
    context_.journal.note(note);
    return true;
  }

  Model& model_;
  const Model& original_;
  PassContext& context_;
  const RepairOptions& options_;
  Refitter refitter_;
  std::uint64_t samples_ = 0;
  std::size_t layers_ = 0, starved_ = 0;
  std::string first_starved_;
  std::vector<std::pair<Node, std::string>> done_;
};

}  // namespace

void RepairOptions::describe(Schema<RepairOptions>& schema) {
  schema
      .add("repair", &RepairOptions::repair, {{"auto", When::automatic}, {"on", When::on}, {"off", When::off}},
           "fit what is left to what the original computes; auto does with --data, and without shifts biases where "
           "BatchNormalization tells by how much")
      .add("ridge", &RepairOptions::ridge,
           "how strongly refitted weights are tied to what they were, relative to the power of their inputs; not "
           "given: what does best on every fifth sample",
           {0, {}})
      .add("behind", &RepairOptions::behind,
           "also refit the layers behind those that were cut, whose inputs are not the original's any more")
      .add("positions", &RepairOptions::positions,
           "output positions of a sample that repair looks at, drawn with the seed", {1, {}});
}

Result<bool> repair_pruned(Model& model, const Model& original, const KeptAxes& kept, bool keep_zeros,
                           PassContext& context, const RepairOptions& options) {
  if (options.repair == RepairOptions::When::off) return false;
  if (context.activations == nullptr) {
    if (options.repair == RepairOptions::When::on) return fail(Code::usage, "repair=on needs --data");
    return compensate_means(model, original, kept, context);
  }
  OP_LET(auto levels, repair_levels(model, original, kept, keep_zeros, options.behind, context));
  if (levels.empty()) return false;
  return Repair(model, original, keep_zeros, context, options).run(std::move(levels));
}

}  // namespace onnxpress
