// Depth pruning: takes whole residual blocks, or layers of a transformer, out of the network.
//
//        x ─┬─► F ─► y ─┬► Add ─► out ─► next        =>        x ─► next
//           └───────────┘
//
// Which one goes is decided by what the outputs lose: each candidate is taken out of a copy, the copy runs over the
// calibration samples, and the one with the least KL(original || copy) goes. What is left is then fitted to the
// original, layer by layer (lib/prune/stream.h), and all that remain are tried again. Source: Song et al., "SLEB:
// Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks" (arXiv 2402.09025), with the
// divergence of all outputs in place of perplexity, so that no labels are needed.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "base/interrupt.h"
#include "calib/divergence.h"
#include "pass/pass.h"
#include "prune/depth_scores.h"
#include "prune/residual_blocks.h"
#include "prune/stream.h"
#include "repair/repair.h"

namespace onnxpress {
namespace {

enum class Criterion { divergence, perplexity, once, influence, random };
enum class Unit { layer, sublayer };

struct Options {
  std::optional<std::int64_t> count = {};
  std::optional<double> ratio = {};
  Criterion criterion = Criterion::divergence;
  Unit unit = Unit::layer;
  std::int64_t keep_first = 0, keep_last = 0;
  std::optional<double> max_divergence = {};
  RepairOptions repair = {};
};

// Blocks that go together, in graph order.
struct Candidate {
  std::vector<ResidualBlock> blocks;

  const Node& last() const { return blocks.back().add; }
  std::string key() const { return std::string(last().output(0)); }
  std::string input() const { return std::string(blocks.front().add.input(blocks.front().shortcut)); }
  bool convolves() const {
    return std::ranges::any_of(blocks.front().nodes, [](const Node& node) { return node.is("Conv"); });
  }
};

std::vector<Candidate> candidates_of(const ResidualBlocks& found, Unit unit) {
  std::vector<Candidate> candidates;
  if (unit == Unit::sublayer) {
    for (const ResidualBlock& block : found.blocks) candidates.push_back({{block}});
    return candidates;
  }
  for (const std::vector<std::size_t>& layer : residual_layers(found.blocks)) {
    Candidate& candidate = candidates.emplace_back();
    for (const std::size_t block : layer) candidate.blocks.push_back(found.blocks[block]);
  }
  return candidates;
}

Status remove(Model& model, const std::set<std::string>& sums) {
  for (const ResidualBlock& block : find_residual_blocks(model.main()).blocks)
    if (sums.contains(std::string(block.add.output(0)))) OP_TRY(remove_residual_block(block));
  return {};
}

std::set<std::string> sums_of(const Candidate& candidate) {
  std::set<std::string> sums;
  for (const ResidualBlock& block : candidate.blocks) sums.emplace(block.add.output(0));
  return sums;
}

// One run of the pass.
class DepthPruning {
 public:
  DepthPruning(Model& model, PassContext& context, const Options& options)
      : model_(model), context_(context), options_(options), original_(model.clone()), random_(context.seed) {}

  // A model whose outputs the criterion says nothing about stays as it is.
  Result<Outcome> run() {
    Result<Outcome> outcome = prune();
    if (outcome || outcome.error().code != Code::unsupported || removed_ > 0) return outcome;
    context_.journal.warning("nothing is removed: " + outcome.error().what);
    return Outcome{};
  }

 private:
  static constexpr double kRefused = std::numeric_limits<double>::infinity();

  Result<Outcome> prune() {
    OP_LET(std::vector<Candidate> candidates, prepare());
    const std::size_t wanted = target();
    while (removed_ < wanted && !candidates.empty()) {
      OP_TRY(check_interrupt());
      OP_LET(const std::vector<double> scores, score(candidates));
      OP_LET(const bool taken, take_least(candidates, scores));
      if (!taken) break;
      candidates = remaining();
    }
    if (removed_ < wanted && total_ > 0)
      context_.journal.note(fmt::format("{} of the {} wanted are removed", removed_, wanted));
    for (const Candidate& candidate : candidates) context_.skipped(candidate.last(), "kept" + last_score(candidate));
    return Outcome{removed_ > 0};
  }

  // All candidates that may go; says why the others stay.
  Result<std::vector<Candidate>> prepare() {
    const ResidualBlocks found = find_residual_blocks(model_.main());
    for (const RefusedAdd& refused : found.refused)
      context_.skipped(refused.add, "no residual block: " + refused.reason);
    std::vector<Candidate> all = candidates_of(found, options_.unit);
    total_ = all.size();
    OP_TRY(measure_influence(all));
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::string reason;
      if (i < static_cast<std::size_t>(options_.keep_first)) reason = "kept: one of the first (keep_first)";
      if (i + static_cast<std::size_t>(options_.keep_last) >= total_) reason = "kept: one of the last (keep_last)";
      if (reason.empty()) reason = shape_doubt(all[i]);
      if (!reason.empty()) context_.skipped(all[i].last(), reason);
      if (reason.empty() && selected(all[i])) eligible_.merge(sums_of(all[i]));
    }
    std::vector<Candidate> candidates = remaining();
    context_.journal.note(fmt::format("{} residual blocks in {} {}, {} of which may go", found.blocks.size(), total_,
                                      options_.unit == Unit::layer ? "layers" : "sublayers", candidates.size()));
    return candidates;
  }

  // No layer the user has excluded is removed. Constants go by what reads them.
  bool selected(const Candidate& candidate) {
    return std::ranges::all_of(candidate.blocks, [&](const ResidualBlock& block) {
      return context_.selected(block.add) && std::ranges::all_of(block.nodes, [&](const Node& node) {
               return node.is("Constant") || context_.selected(node);
             });
    });
  }

  std::vector<Candidate> remaining() const {
    std::vector<Candidate> candidates = candidates_of(find_residual_blocks(model_.main()), options_.unit);
    std::erase_if(candidates, [&](const Candidate& candidate) {
      return !std::ranges::all_of(sums_of(candidate), [&](const auto& sum) { return eligible_.contains(sum); });
    });
    return candidates;
  }

  std::size_t target() const {
    if (options_.ratio) return static_cast<std::size_t>(*options_.ratio * static_cast<double>(total_) + 1e-9);
    return static_cast<std::size_t>(options_.count.value_or(1));
  }

  // Block influence of all, in one run; on the way, whether shapes that types leave open are the same.
  Status measure_influence(const std::vector<Candidate>& candidates) {
    const bool needed =
        options_.criterion == Criterion::influence || std::ranges::any_of(candidates, [](const Candidate& candidate) {
          return !std::ranges::all_of(candidate.blocks, &ResidualBlock::same_shape);
        });
    if (!needed || context_.activations == nullptr) return {};
    std::vector<PairTap> taps;
    for (const Candidate& candidate : candidates) {
      auto& influence = influence_[candidate.key()] = std::make_unique<Influence>(candidate.convolves());
      taps.push_back({candidate.input(), candidate.key(), influence.get()});
    }
    return context_.activations->collect_pairs(original_, original_, taps);
  }

  std::string shape_doubt(const Candidate& candidate) const {
    if (std::ranges::all_of(candidate.blocks, &ResidualBlock::same_shape)) return {};
    const auto measured = influence_.find(candidate.key());
    if (measured == influence_.end()) return "its input and output may have different shapes; samples would tell";
    return measured->second->same_shape() ? "" : "its input and output have different shapes";
  }

  Result<std::vector<double>> score(const std::vector<Candidate>& candidates) {
    std::vector<double> scores;
    for (const Candidate& candidate : candidates) {
      const auto known = scores_.find(candidate.key());
      const bool greedy = options_.criterion == Criterion::divergence || options_.criterion == Criterion::perplexity;
      double value = 0;
      if (known != scores_.end() && (!greedy || known->second == kRefused)) {
        value = known->second;
      } else if (options_.criterion == Criterion::influence) {
        value = influence_.at(candidate.key())->value();
      } else if (options_.criterion == Criterion::random) {
        value = static_cast<double>(random_() >> 11) * 0x1p-53;
      } else {
        OP_LET(value, loss_without(candidate, options_.criterion == Criterion::perplexity));
      }
      scores_[candidate.key()] = value;
      scores.push_back(value);
    }
    return scores;
  }

  // Of the model without it: the loss, or the divergence of the outputs. Infinity when it does not run.
  Result<double> loss_without(const Candidate& candidate, bool of_tokens) {
    Model trial = model_.clone();
    OP_TRY(remove(trial, sums_of(candidate)));
    auto loss = of_tokens ? next_token_loss(original_, trial, *context_.activations)
                          : output_divergence(original_, trial, *context_.activations);
    if (loss || loss.error().code != Code::engine) return loss;
    context_.skipped(candidate.last(), "without it the model does not run: " + loss.error().text());
    return kRefused;
  }

  // Removes the candidate with the least score (the first of equals); one that does not run without it is refused.
  // False when none is left, or the limit is in the way.
  Result<bool> take_least(const std::vector<Candidate>& candidates, const std::vector<double>& scores) {
    const auto least = static_cast<std::size_t>(std::ranges::min_element(scores) - scores.begin());
    const Candidate& chosen = candidates[least];
    if (!(scores[least] < kRefused)) return false;
    double divergence = scores[least];
    if (context_.activations != nullptr && options_.criterion != Criterion::divergence) {
      OP_LET(divergence, loss_without(chosen, false));
      scores_[chosen.key()] = divergence < kRefused ? scores[least] : kRefused;
      if (!(divergence < kRefused)) return true;
    }
    if (options_.max_divergence && divergence > *options_.max_divergence) {
      context_.journal.note(fmt::format("stopped: without '{}' the divergence would be {:.4g}, more than {:.4g}",
                                        chosen.last().label(), divergence, *options_.max_divergence));
      return false;
    }
    std::vector<std::string> others;
    for (std::size_t i = 0; i < candidates.size(); ++i)
      if (i != least) others.push_back(fmt::format("{} {:.4g}", candidates[i].last().label(), scores[i]));
    std::string text = fmt::format("removed, {} {:.4g}", criterion_name(), scores[least]);
    if (context_.activations != nullptr) text += fmt::format(", divergence of the outputs {:.4g}", divergence);
    if (!others.empty()) text += fmt::format("; the others: {}", fmt::join(others, ", "));
    for (const ResidualBlock& block : chosen.blocks) {
      context_.done(block.add, fmt::format("{}{}", text, block.add == chosen.last() ? "" : " (of the whole layer)"));
      gaps_.push_back({std::string(block.add.input(block.shortcut)), std::string(block.add.output(0))});
    }
    ++removed_;
    OP_TRY(remove(model_, sums_of(chosen)));
    OP_TRY(repair());
    return true;
  }

  const char* criterion_name() const {
    switch (options_.criterion) {
      case Criterion::divergence:
        return "divergence";
      case Criterion::perplexity:
        return "loss of the next token";
      case Criterion::once:
        return "divergence when it alone goes";
      case Criterion::influence:
        return "influence";
      case Criterion::random:
        return "drawn";
    }
    return "";
  }
  std::string last_score(const Candidate& candidate) const {
    const auto found = scores_.find(candidate.key());
    return found == scores_.end() ? "" : fmt::format(": {} {:.4g}", criterion_name(), found->second);
  }

  // Stays only when it brings the outputs on held-out samples nearer to the original's.
  Status repair() {
    if (options_.repair.repair == RepairOptions::When::off || context_.activations == nullptr) return {};
    OP_LET(const double before, held_out(model_));
    Model trial = model_.clone();
    PassContext context = context_;
    OP_LET(const bool changed, refit_stream(trial, original_, gaps_, context, options_.repair));
    if (!changed) return {};
    OP_LET(const double after, held_out(trial));
    const bool better = after < before;
    (better ? context : context_)
        .journal.note(fmt::format("layers refitted to the original: divergence on held-out samples {:.4g} -> {:.4g}{}",
                                  before, after, better ? "" : "; taken back"));
    if (!better) return {};
    model_ = std::move(trial);
    context_.journal = std::move(context.journal);
    return {};
  }

  Result<double> held_out(const Model& model) const {
    OP_LET(const Divergence divergence, measure_divergence(original_, model, *context_.activations));
    return divergence.held_out;
  }

  Model& model_;
  PassContext& context_;
  const Options& options_;
  const Model original_;
  std::mt19937_64 random_;
  std::size_t total_ = 0, removed_ = 0;
  std::set<std::string> eligible_;  // sums of the blocks that may go
  std::map<std::string, std::unique_ptr<Influence>> influence_;
  std::map<std::string, double> scores_;  // the latest
  std::vector<RemovedBlock> gaps_;
};

class PruneLayers final : public Pass {
 public:
  explicit PruneLayers(const Options& options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("count", &Options::count, "how many go; 1 when ratio is not given either", {1, {}})
        .add("ratio", &Options::ratio, "share of them that goes, rounded down", {0, 1})
        .add("criterion", &Options::criterion,
             {{"divergence", Criterion::divergence},
              {"perplexity", Criterion::perplexity},
              {"once", Criterion::once},
              {"influence", Criterion::influence},
              {"random", Criterion::random}},
             "which goes first: the least divergence of the outputs without it, measured anew after each removal; the "
             "least loss of the samples' next token, anew; the divergence measured once; the least change of direction "
             "from its input to its output; drawn with the seed")
        .add("unit", &Options::unit, {{"layer", Unit::layer}, {"sublayer", Unit::sublayer}},
             "attention and the MLP behind it as one, or each residual block by itself")
        .add("keep_first", &Options::keep_first, "so many at the front stay", {0, {}})
        .add("keep_last", &Options::keep_last, "so many at the end stay", {0, {}})
        .add("max_divergence", &Options::max_divergence, "stop before the divergence of the outputs exceeds it",
             {0, {}})
        .add_part(&Options::repair);
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (options_.count && options_.ratio) return fail(Code::usage, "count and ratio exclude each other");
    if (context.activations == nullptr) {
      if (options_.criterion != Criterion::random)
        return fail(Code::usage, "only criterion=random does without --data");
      if (options_.max_divergence) return fail(Code::usage, "max_divergence needs --data");
      if (options_.repair.repair == RepairOptions::When::on) return fail(Code::usage, "repair=on needs --data");
    }
    return DepthPruning(model, context, options_).run();
  }

 private:
  Options options_;
};

}  // namespace

PassInfo info_prune_layers() {
  return describe_pass<PruneLayers, Options>({
      .summary = "Remove the residual blocks or layers that matter least",
      .description =
          "out = Add(x, F(x))  =>  out = x   for whole blocks F, which go with all their nodes and weights\n\n"
          "Candidates are residual blocks of the main graph: F is entered at x alone (masks, position tables and sizes "
          "that others read too are no entry), nothing inside it is read elsewhere or returned, x has the shape of the "
          "sum. Attention, MLP, convolution blocks with identity shortcut, pre-norm and post-norm (the norm stays, on "
          "x), gates and layer scales included. unit=layer takes attention and the MLP behind it together. Blocks with "
          "projection or stride in the shortcut stay, and those that hold key/value caches that are inputs or "
          "outputs.\n\n"
          "criterion=divergence is greedy: after each removal all that remain are tried again, each as one run over "
          "the samples against the outputs of the original: the Kullback-Leibler divergence of class scores or "
          "tokens, the relative squared error of other outputs.\n\n"
          "With data, the Conv, Gemm and MatMul from the one before the first gap on are fitted anew after each "
          "removal, "
          "front to back by least squares: those that add to the stream so that it becomes that of the original, the "
          "others so that they make what they did; taken back when the outputs on every fifth sample, which is held "
          "out, get no nearer. only= and skip= say what may be removed, not what may be refitted. A removed layer "
          "saves "
          "its share of the time at any batch size on any hardware.",
      .example = "prune-layers{count=2 keep_first=1}",
      .references = {"Song et al., SLEB: Streamlining LLMs through Redundancy Verification and Elimination of "
                     "Transformer Blocks, arXiv 2402.09025",
                     "Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, arXiv "
                     "2403.03853",
                     "Shopkhoev et al., ReplaceMe: Network Simplification via Depth Pruning and Transformer Block "
                     "Linearization, arXiv 2505.02819"},
      .idempotent = false,
      .lossy = true,
      .needs_data = true,
      .spares_data =
          [](const void* options) { return static_cast<const Options*>(options)->criterion == Criterion::random; },
  });
}

}  // namespace onnxpress
