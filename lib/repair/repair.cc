#include "repair/repair.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "ir/extract.h"
#include "repair/compensate.h"
#include "repair/repair_layers.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kRowBytes = std::uint64_t{1} << 30;  // of rows without --memory-limit
constexpr std::uint64_t kSumBytes = std::uint64_t{4} << 30;  // of one layer's sums without it

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
      : model_(model), original_(original), keep_zeros_(keep_zeros), context_(context), options_(options) {
    budget_ = context.memory_limit == 0 ? kRowBytes : context.memory_limit / 4;
  }

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
        if (last > first && (samples_ == 0 || bytes > budget_)) break;
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
  using Targets = std::vector<std::unique_ptr<RowsAccumulator>>;

  std::uint64_t target_bytes(const RepairLayer& layer) const {
    return samples_ * positions() * layer.regression.shape.outputs * sizeof(float);
  }
  std::size_t positions() const { return static_cast<std::size_t>(options_.positions); }

  // Few positions where many rows would not fit.
  std::size_t input_positions(const RepairLayer& layer) const {
    const std::uint64_t row = layer.regression.shape.groups * layer.regression.shape.length * sizeof(float);
    const std::uint64_t fit = budget_ / std::max<std::uint64_t>(1, samples_ * row);
    return static_cast<std::size_t>(std::clamp<std::uint64_t>(fit, 1, positions()));
  }
  std::uint64_t input_bytes(const RepairLayer& layer) const {
    const PatchShape& shape = layer.regression.shape;
    return samples_ * input_positions(layer) * shape.groups * shape.length * sizeof(float) + target_bytes(layer);
  }

  std::unique_ptr<RowsAccumulator> channel_sink(const RepairLayer& layer, const Indices& channels) const {
    return std::make_unique<RowsAccumulator>(
        [axis = layer.axis, channels, positions = positions(), seed = context_.seed](const TensorView& value) {
          return channel_rows(axis, value, positions, seed, channels);
        });
  }

  // One for each layer of the levels, in their order.
  Result<Targets> collect_targets(std::span<const std::vector<RepairLayer>> levels) {
    Targets targets;
    std::vector<Tap> taps;
    std::vector<std::string> values;
    for (const auto& level : levels)
      for (const RepairLayer& layer : level) {
        targets.push_back(channel_sink(layer, layer.channels));
        taps.push_back({layer.target, targets.back().get()});
        values.push_back(layer.target);
      }
    OP_TRY(context_.activations->collect(extract_prefix(original_, values), taps));
    for (const auto& target : targets) samples_ = std::max<std::uint64_t>(samples_, target->samples().size());
    return targets;
  }

  Status refit_level(std::span<RepairLayer> level, std::span<std::unique_ptr<RowsAccumulator>> targets) {
    for (std::size_t begin = 0, end = 0; begin < level.size(); begin = end) {
      std::uint64_t bytes = 0;
      for (end = begin; end < level.size(); ++end) {
        bytes += input_bytes(level[end]);
        if (bytes > budget_ && end > begin) break;
      }
      OP_TRY(refit_group(level.subspan(begin, end - begin), targets.subspan(begin, end - begin)));
    }
    return {};
  }

  Status refit_group(std::span<RepairLayer> group, std::span<std::unique_ptr<RowsAccumulator>> targets) {
    Targets inputs, shortcuts;
    std::vector<Tap> taps;
    std::vector<std::string> values;
    for (const RepairLayer& layer : group) {
      const auto cut = [shape = layer.regression.shape, normalizes = layer.normalizes,
                        positions = input_positions(layer), seed = context_.seed](const TensorView& value) {
        return normalizes ? channel_rows(1, value, positions, seed) : patch_rows(shape, value, positions, seed);
      };
      inputs.push_back(std::make_unique<RowsAccumulator>(cut));
      taps.push_back({layer.input, inputs.back().get()});
      values.push_back(layer.input);
      shortcuts.push_back(layer.shortcut.empty() ? nullptr : channel_sink(layer, {}));
      if (layer.shortcut.empty()) continue;
      taps.push_back({layer.shortcut, shortcuts.back().get()});
      values.push_back(layer.shortcut);
    }
    OP_TRY(context_.activations->collect(extract_prefix(model_, values), taps));
    Rewriter rewriter(model_.main());
    for (std::size_t i = 0; i < group.size(); ++i) {
      group[i].regression.input = inputs[i].get();
      group[i].regression.target = targets[i].get();
      group[i].regression.shortcut = shortcuts[i].get();
      group[i].regression.seed = context_.seed;
      OP_TRY(refit(group[i], rewriter));
      targets[i].reset();
      inputs[i].reset();
    }
    OP_TRY(rewriter.commit());
    return {};
  }

  Status refit(const RepairLayer& layer, Rewriter& rewriter) {
    // Sums, their centered copy and the factor.
    const std::uint64_t sums = 3 * gram_bytes(layer.regression.shape);
    if (sums > (context_.memory_limit == 0 ? kSumBytes : context_.memory_limit)) {
      context_.skipped(layer.node, fmt::format("not refitted: sums over its {} inputs would take {} MB",
                                               layer.regression.shape.length, sums >> 20));
      return {};
    }
    OP_LET(const LinearWeights now, read_weights(layer));
    const auto result = reconstruct(layer.regression, now,
                                    {.ridge = options_.ridge,
                                     .keep_zeros = keep_zeros_ && !layer.normalizes,
                                     .can_shift = layer.can_shift,
                                     .jobs = context_.jobs});
    if (!result && result.error().code == Code::unsupported) {
      context_.skipped(layer.node, "not refitted: " + result.error().what);
      return {};
    }
    if (!result) return rethrow(result.error(), "node '" + layer.node.label() + "'");
    const bool weights = result->change == Reconstruction::Change::weights;
    if (result->change == Reconstruction::Change::exact) {
      context_.skipped(layer.node, "not refitted: its output is the original's as it is");
      return {};
    }
    if (result->change == Reconstruction::Change::none) {
      context_.skipped(layer.node, fmt::format("not refitted: on held-out samples nothing does better than its output "
                                               "error of {:.2g} %",
                                               100 * result->error_before));
      return {};
    }
    OP_LET(const bool written, write_weights(layer, result->weights, weights, rewriter));
    if (!written) {
      context_.skipped(layer.node, "not refitted: the new numbers do not fit its type");
      return {};
    }
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
  bool keep_zeros_;
  PassContext& context_;
  const RepairOptions& options_;
  std::uint64_t budget_ = 0, samples_ = 0;
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
