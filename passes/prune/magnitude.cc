// Unstructured magnitude pruning: the weights nearest to zero become zero.
//
//   x ─► Conv(W, b) ─► y      =>      x ─► Conv(W', b) ─► y        W'[i] = 0 where |W[i]| is among the k smallest
//
// k = floor(sparsity * n) over each weight tensor (scope=local), or over all of them together by one common threshold
// of |w| (global), of |w| / ||W||_2 (normalized) or of w_i^2 / sum of w_j^2 over |w_j| >= |w_i| (lamp). With
// pattern=N:M the M - N smallest of every M in a row. Zeros that are there already count, and ties go to the first in
// (tensor, index) order: the sparsity reached is exact.
// Sources: Han et al., "Learning both Weights and Connections for Efficient Neural Networks" (arXiv 1506.02626); Lee et
// al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (arXiv 2010.07611).
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "base/parallel.h"
#include "num/channels.h"
#include "num/select.h"
#include "pass/pass.h"
#include "repair/repair.h"
#include "sparse/mask_file.h"
#include "sparse/prunable.h"
#include "sparse/sparsity.h"
#include "sparse/weight_scores.h"

namespace onnxpress {
namespace {

enum class Criterion { magnitude, random };
enum class Scope { local, global, normalized, lamp };

struct Options {
  SparsityTarget target;
  Criterion criterion = Criterion::magnitude;
  Scope scope = Scope::local;
  std::optional<double> threshold = {};
  std::string mask;
  std::vector<std::string> ops = common_weight_ops();
  RepairOptions repair = {};
};

struct Pruned {
  Tensor tensor;
  std::optional<Tensor> scores;  // when they are not the magnitudes of `tensor`: 0 where it is to be 0
  std::uint64_t zeros = 0;       // there before

  Tensor& scored() { return scores ? *scores : tensor; }
};

// One weight and how it is pruned.
struct Job {
  PrunableWeight weight;
  std::size_t ordinal = 0;
  std::optional<double> share = {};  // of layers=; none: what all others get
  std::vector<bool> keep = {};       // of mask=
};

class PruneMagnitude final : public Pass {
 public:
  explicit PruneMagnitude(Options options) : options_(std::move(options)) {}

  static void describe(Schema<Options>& schema) {
    schema.add_part(&Options::target)
        .add("criterion", &Options::criterion, {{"magnitude", Criterion::magnitude}, {"random", Criterion::random}},
             "which weights go: the smallest (for single weights L1 and L2 are the same), or any, drawn with the seed")
        .add("scope", &Options::scope,
             {{"local", Scope::local},
              {"global", Scope::global},
              {"normalized", Scope::normalized},
              {"lamp", Scope::lamp}},
             "reach the sparsity in every tensor, or over all of them by one common threshold: of magnitudes, of those "
             "over the norm of their tensor, or of LAMP scores")
        .add("threshold", &Options::threshold, "instead of sparsity: weights with |w| below this become zero", {0, {}})
        .add("mask", &Options::mask,
             "file .npz of weight name -> array of the same shape with 0 where the weight is to become zero; weights "
             "without a mask stay")
        .add("ops", &Options::ops,
             "operators whose weights are pruned, of Conv, ConvTranspose, DeformConv, Gemm, MatMul, LSTM, GRU, RNN and "
             "Gather")
        .add_part(&Options::repair);
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    OP_TRY(check_options());
    OP_LET(const std::vector<Job> jobs, plan(model, context));
    std::optional<Model> original;
    if (context.activations != nullptr) original = model.clone();
    OP_LET(const bool changed, prune_all(jobs, model, context));
    if (changed && original) OP_TRY(repair_pruned(model, *original, {}, /*keep_zeros=*/true, context, options_.repair));
    return Outcome{changed};
  }

 private:
  Status check_options() const {
    const bool pooled = options_.scope != Scope::local, pattern = options_.target.pattern.given();
    if (options_.threshold && (pooled || pattern || options_.criterion == Criterion::random))
      return fail(Code::usage, "threshold= goes with criterion=magnitude scope=local and without pattern=");
    if (pattern && pooled) return fail(Code::usage, "pattern= is reached in every row: scope= has no meaning with it");
    const bool shares = std::ranges::any_of(options_.target.layers.items, &LayerShares::Item::share);
    if (!options_.mask.empty() &&
        (pooled || pattern || shares || options_.threshold || options_.criterion == Criterion::random))
      return fail(
          Code::usage,
          "mask= says itself what goes: no pattern=, scope=, threshold=, criterion= or share of a layer beside it");
    if (options_.criterion == Criterion::random &&
        (options_.scope == Scope::lamp || options_.scope == Scope::normalized))
      return fail(Code::usage, "scope=lamp and scope=normalized are of magnitudes, not of criterion=random");
    return check_weight_ops(options_.ops, weight_ops());
  }

  Result<std::vector<Job>> plan(const Model& model, PassContext& context) const {
    std::vector<PrunableWeight> weights = plan_weights(model, context, options_.ops, options_.target.min_elements);
    if (!options_.target.ends) drop_ends(weights, context);
    std::optional<MaskFile> masks;
    if (!options_.mask.empty()) {
      std::vector<std::string> names;
      for (const PrunableWeight& weight : weights) names.push_back(weight.name);
      OP_LET(masks, MaskFile::open(options_.mask, names));
    }
    std::vector<Job> jobs;
    for (PrunableWeight& weight : weights) {
      const auto skip = [&](std::string_view why) {
        for (const Use& reader : weight.readers) context.skipped(reader.node, std::string(why));
      };
      const Node& first = weight.readers.front().node;
      Job job{.weight = {}, .ordinal = jobs.size(), .share = options_.target.layers.of(first)};
      const bool one_view = std::ranges::all_of(
          weight.readers, [&](const Use& use) { return rows_of(use.node, use.slot, weight.dims) == weight.rows; });
      if (job.share == 0.0) {
        skip("layers= leaves it");
      } else if (masks && !masks->has(weight.name)) {
        skip(fmt::format("there is no mask for weight '{}'", weight.name));
      } else if (options_.target.pattern.given() && !job.share && !one_view) {
        skip(fmt::format("readers of weight '{}' sum over different axes", weight.name));
      } else {
        if (masks) {
          OP_LET(job.keep, masks->read(weight.name, weight.dims));
        }
        job.weight = std::move(weight);
        jobs.push_back(std::move(job));
      }
    }
    return jobs;
  }

  static void drop_ends(std::vector<PrunableWeight>& weights, PassContext& context) {
    const auto drop = [&](auto at, std::string_view which) {
      for (const Use& reader : at->readers)
        context.skipped(reader.node, fmt::format("ends=false: it is the {} layer", which));
      weights.erase(at);
    };
    if (!weights.empty()) drop(weights.begin(), "first");
    if (!weights.empty()) drop(std::prev(weights.end()), "last");
  }

  Result<bool> prune_all(const std::vector<Job>& jobs, Model& model, PassContext& context) const {
    std::uint64_t largest = 0;
    for (const Job& job : jobs)
      largest = std::max(largest, job.weight.size() * (plain() ? bit_width(job.weight.dtype) / 8 : sizeof(double)));
    // Two slots per job, each with the bytes as read and the copy that is changed, or scores beside them.
    const unsigned threads = weight_jobs(context.jobs, 4 * largest, context.memory_limit);
    std::optional<MagnitudeCut> common;
    if (options_.scope != Scope::local) {
      OP_LET(common, common_cut(jobs, threads, context.seed));
    }
    std::uint64_t ties = common ? common->ties : 0;
    Rewriters rewriters(model);
    OP_TRY(execute_and_commit<Pruned>(
        jobs.size(), threads, [&](std::size_t i) { return prune(jobs[i], common, context.seed); },
        [&](std::size_t i, Pruned pruned) -> Status {
          if (common && !jobs[i].share) ties -= zero_ties(pruned.scored(), *common, ties);
          commit(jobs[i].weight, std::move(pruned), rewriters, context);
          return {};
        }));
    return rewriters.commit();
  }

  // Magnitudes are compared as they are stored, without a copy.
  bool plain() const {
    return options_.criterion == Criterion::magnitude && !options_.target.pattern.given() &&
           (options_.scope == Scope::local || options_.scope == Scope::global);
  }

  Result<Tensor> scores_of(const Job& job, const Tensor& tensor, std::uint64_t seed) const {
    WeightScore score = WeightScore::magnitude;
    if (options_.criterion == Criterion::random) score = WeightScore::random;
    if (options_.scope == Scope::normalized) score = WeightScore::normalized;
    if (options_.scope == Scope::lamp) score = WeightScore::lamp;
    return weight_scores(tensor, score, seed * 0x10001 + job.ordinal);
  }

  // One cut over all weights, from histograms only: the weights are read once per round and not kept.
  Result<MagnitudeCut> common_cut(const std::vector<Job>& jobs, unsigned threads, std::uint64_t seed) const {
    std::uint64_t elements = 0;
    bool wide = !plain();
    for (const Job& job : jobs) {
      if (!job.share) elements += job.weight.size();
      wide = wide || job.weight.dtype == DType::f64;
    }
    MagnitudeSelect select(fraction_of(options_.target.sparsity, elements), wide);
    while (!select.done()) {
      OP_TRY(execute_and_commit<MagnitudeSelect::Histogram>(
          jobs.size(), threads,
          [&](std::size_t i) -> Result<MagnitudeSelect::Histogram> {
            if (jobs[i].share) return MagnitudeSelect::Histogram();
            OP_LET(Tensor tensor, jobs[i].weight.read());
            if (!plain()) {
              OP_LET(tensor, scores_of(jobs[i], tensor, seed));
            }
            return select.count(tensor.view());
          },
          [&](std::size_t, const MagnitudeSelect::Histogram& counts) -> Status {
            if (!counts.empty()) select.add(counts);
            return {};
          }));
      select.end_round();
    }
    return select.cut();
  }

  Result<Pruned> prune(const Job& job, const std::optional<MagnitudeCut>& common, std::uint64_t seed) const {
    Pruned out;
    OP_LET(out.tensor, job.weight.read());
    out.zeros = count_zeros(out.tensor.view());
    if (!job.keep.empty()) {
      out.scores = Tensor(DType::f64, job.weight.dims);
      std::ranges::copy(job.keep, out.scores->as_mutable<double>().begin());
      return out;
    }
    if (!plain()) {
      OP_LET(out.scores, scores_of(job, out.tensor, seed));
    }
    if (options_.target.pattern.given() && !job.share) {
      by_pattern(*out.scores, job.weight.rows);
    } else if (options_.threshold && !job.share) {
      zero_below(out.tensor, {.key = std::bit_cast<std::uint64_t>(std::abs(*options_.threshold)), .wide = true});
    } else if (common && !job.share) {
      zero_below(out.scored(), *common);  // ties are shared out in order
    } else {
      const std::uint64_t wanted = fraction_of(job.share.value_or(options_.target.sparsity), out.tensor.size());
      const MagnitudeCut cut = smallest_magnitudes(out.scored().view(), wanted);
      zero_below(out.scored(), cut);
      zero_ties(out.scored(), cut, cut.ties);
    }
    return out;
  }

  void by_pattern(Tensor& scores, const RowView& view) const {
    const auto values = scores.as_mutable<double>();
    std::vector<double> rows(values.size());
    view.each([&](std::size_t row, std::size_t at) { rows[row] = values[at]; });
    keep_pattern(rows, view.length, options_.target.pattern);
    view.each([&](std::size_t row, std::size_t at) { values[at] = rows[row]; });
  }

  static void commit(const PrunableWeight& weight, Pruned pruned, Rewriters& rewriters, PassContext& context) {
    if (pruned.scores) zero_where_zero(pruned.tensor, pruned.scores->as<double>());
    const std::uint64_t after = count_zeros(pruned.tensor.view());
    const std::string what = fmt::format("weight '{}' {}", weight.name, dims_text(weight.dims));
    for (const Use& reader : weight.readers) {
      if (after == pruned.zeros)
        context.skipped(reader.node,
                        fmt::format("{} is sparse enough: {}", what, sparsity_text(pruned.zeros, weight.size())));
      else
        context.done(reader.node,
                     fmt::format("{}: sparsity {:.2f} -> {}", what,
                                 100 * static_cast<double>(pruned.zeros) / static_cast<double>(weight.size()),
                                 sparsity_text(after, weight.size())));
    }
    if (after != pruned.zeros) weight.write(std::move(pruned.tensor), rewriters);
  }

  Options options_;
};

}  // namespace

PassInfo info_prune_magnitude() {
  return describe_pass<PruneMagnitude, Options>({
      .summary = "Zero the weights of smallest magnitude",
      .description =
          "W' = W with its k smallest |W[i]| set to zero, k = floor(sparsity * n): per tensor with scope=local, over "
          "all weights together by plain |w| with scope=global, by |w| / ||W||_2 with scope=normalized, by w_i^2 / sum "
          "of w_j^2 over |w_j| >= |w_i| with scope=lamp. pattern=2:4 zeroes the two smallest of every four in a row. "
          "Existing zeros count, and ties go to the first in tensor and index order, so that the sparsity is reached "
          "exactly and a second run changes nothing (but with threshold=, after a repair).\n\n"
          "Pruned are the weight inputs of the operators in ops, in bodies of If/Loop/Scan and functions too; a shared "
          "weight once. Never touched: biases, norm parameters, one-axis tensors, integer weights, weights that are "
          "graph inputs or outputs, and weights that something else reads as well.\n\n"
          "With --data what is left is repaired without training: it is fitted to what the layers gave before, zeros "
          "stay zero (repair=off to leave it).\n\n"
          "The graph stays the same: zeros make the file smaller once it is compressed or stored sparse. Dense "
          "runtimes do not run faster for it.",
      .example = "prune-magnitude{sparsity=0.3 scope=global}",
      .references =
          {"Han et al., Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626",
           "Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, arXiv 2010.07611"},
      .idempotent = false,  // weights that were fitted can lie below threshold=
      .lossy = true,
  });
}

}  // namespace onnxpress
