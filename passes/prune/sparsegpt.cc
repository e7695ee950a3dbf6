// prune-sparsegpt: weights become zero where the others can make up for them.
//
//   x ─► Conv(W, b) ─► y     =>     x^ ─► Conv(W', b') ─► y^      W', b'  =  argmin  sum over samples ||y - y^||^2
//                                                                 with floor(sparsity * n) zeros in W', or N:M
//
// y is what the original model gives, x^ what the layer reads once those before it are pruned: front to back, every
// layer makes up for the errors so far. The error is a quadratic form of W' with H = sum x^ x^' (a Conv by its
// patches), so no sample is kept. Which weights go, the inverse of H says (w^2 / [H^-1]_jj, lib/sparse/sparse_solve.h):
// one at a time in layers where that is affordable, else in one sweep over the columns, in blocks. What stays is fitted
// exactly. scope=global shares the zeros out so that the relative errors of all layers add up to the least. Sources:
// Frantar and Alistarh, "SparseGPT" (arXiv 2301.00774) and "Optimal Brain Compression" (arXiv 2208.11580).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "calib/levels.h"
#include "num/knapsack.h"
#include "num/select.h"
#include "pass/pass.h"
#include "repair/repair.h"
#include "sparse/layer_moments.h"
#include "sparse/prunable.h"
#include "sparse/sparse_layer.h"
#include "sparse/sparse_prune.h"

namespace onnxpress {
namespace {

enum class Scope { local, global };

struct Options {
  SparsityTarget target;
  Scope scope = Scope::local;
  std::vector<std::string> ops = {"Conv", "Gemm", "MatMul"};
  MaskSearch search = MaskSearch::automatic;
  double damping = 0.01;
  std::int64_t block = 128;
  bool residual = true;
  RepairOptions repair = {};
};

std::string decibel(double relative_error) {
  return relative_error > 0 ? fmt::format("{:.1f} dB", -10 * std::log10(relative_error)) : "exact";
}

class PruneSparseGpt final : public Pass {
 public:
  explicit PruneSparseGpt(Options options) : options_(std::move(options)) {}

  static void describe(Schema<Options>& schema) {
    schema.add_part(&Options::target)
        .add("scope", &Options::scope, {{"local", Scope::local}, {"global", Scope::global}},
             "reach the sparsity in every layer, or over all of them, more where it costs less")
        .add("ops", &Options::ops, "operators whose weights are pruned, of Conv, Gemm and MatMul")
        .add("search", &Options::search,
             {{"auto", MaskSearch::automatic}, {"sweep", MaskSearch::sweep}, {"eliminate", MaskSearch::eliminate}},
             "which weights go: by SparseGPT's sweep over blocks of columns, or one weight at a time (slower, better); "
             "auto: the latter where it takes seconds")
        .add("damping", &Options::damping, "added to the diagonal of H while weights are chosen, over its mean",
             {1e-6, {}})
        .add("block", &Options::block, "columns of a block of the sweep", {1, {}})
        .add("residual", &Options::residual,
             "a layer whose output is added to another branch makes up for the errors of that branch as well")
        .add_part(&Options::repair);
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (context.activations == nullptr) return fail(Code::usage, "it needs --data");
    const std::vector<std::string> known = {"Conv", "Gemm", "MatMul"};
    OP_TRY(check_weight_ops(options_.ops, known));
    if (options_.scope == Scope::global && options_.target.pattern.given())
      return fail(Code::usage, "pattern= is reached in every row: scope= has no meaning with it");
    const Model original = model.clone();
    const auto levels = sparse_levels(model, context, options_.ops, options_.target, true);
    std::map<std::string, double> shares;
    if (options_.scope == Scope::global) {
      OP_LET(shares, global_shares(original, levels, context));
    }
    Outcome outcome;
    for (const std::vector<SparseLayer>& level : levels) {
      OP_LET(const bool changed, in_groups<SparseLayer>(level, budget(context), bytes_of(context),
                                                        [&](std::span<const SparseLayer> layers) {
                                                          return prune_group(model, original, layers, shares, context);
                                                        }));
      outcome.changed |= changed;
    }
    if (outcome.changed) OP_TRY(repair_pruned(model, original, {}, /*keep_zeros=*/true, context, options_.repair));
    return outcome;
  }

 private:
  static std::uint64_t budget(const PassContext& context) {
    return context.memory_limit == 0 ? kSums : context.memory_limit;
  }
  std::function<std::uint64_t(const SparseLayer&)> bytes_of(const PassContext& context) const {
    return [jobs = context.jobs, residual = options_.residual](const SparseLayer& layer) {
      return moments_bytes(layer, residual) + sparsify_bytes(layer, jobs);
    };
  }

  std::size_t positions() const { return static_cast<std::size_t>(options_.repair.positions); }

  SparsePruneSettings settings(const PassContext& context) const {
    return {.share = options_.target.sparsity,
            .pattern = options_.target.pattern,
            .search = options_.search,
            .damping = options_.damping,
            .block = options_.block,
            .jobs = context.jobs};
  }

  Result<bool> prune_group(Model& model, const Model& original, std::span<const SparseLayer> layers,
                           const std::map<std::string, double>& shares, PassContext& context) const {
    OP_LET(std::vector<LayerMoments> moments,
           collect_moments(context, original, model, layers, positions(), options_.residual));
    Rewriter rewriter(model.main());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto own = shares.find(layers[i].output());
      SparsePruneSettings how = settings(context);
      if (own != shares.end()) how.share = own->second;
      if (layers[i].share) how.share = *layers[i].share;
      if (layers[i].share) how.pattern = {};
      const auto done = prune_one(layers[i], moments[i], how, rewriter, context);
      if (!done) return rethrow(done.error(), "node '" + layers[i].node().label() + "'");
      moments[i] = {};
    }
    return rewriter.commit();
  }

  static Status prune_one(const SparseLayer& layer, const LayerMoments& moments, const SparsePruneSettings& how,
                          Rewriter& rewriter, PassContext& context) {
    if (!moments.trouble.empty()) {
      context.skipped(layer.node(), moments.trouble);
      return {};
    }
    OP_LET(const LayerRows before, read_rows(layer));
    if (sparse_enough(layer, before, how.share, how.pattern)) {
      context.skipped(layer.node(),
                      fmt::format("it is sparse enough: {}", sparsity_text(zeros_of(before), layer.size())));
      return {};
    }
    OP_LET(const SparsePruneResult result, sparsify(layer, before, *moments.fitted, *moments.held_out, how));
    OP_LET(const bool written, write_rows(layer, before, result.rows, rewriter));
    if (!written) {
      context.skipped(layer.node(), "its new weights do not fit their type");
      return {};
    }
    context.done(layer.node(),
                 fmt::format("{}, output SQNR {} with zeros only, {} {}", sparsity_change(layer, before, result.rows),
                             decibel(result.error_zeroed), decibel(result.error),
                             result.refitted ? "with the others fitted anew" : "as nothing else did better"));
    return {};
  }

  // How sparse each layer becomes, by its output.
  Result<std::map<std::string, double>> global_shares(const Model& original,
                                                      const std::vector<std::vector<SparseLayer>>& levels,
                                                      PassContext& context) const {
    std::vector<SparseLayer> layers;
    for (const auto& level : levels)
      for (const SparseLayer& layer : level)
        if (!layer.share) layers.push_back(layer);
    std::vector<double> grid;
    for (int step = 0; step < kGrid; ++step) grid.push_back(static_cast<double>(step) / kGrid);
    std::vector<KnapsackItem> items;
    std::int64_t weights = 0;
    const auto work = [&](std::span<const SparseLayer> group) -> Result<bool> {
      OP_LET(std::vector<LayerMoments> moments, collect_moments(context, original, original, group, positions(), true));
      for (std::size_t i = 0; i < group.size(); ++i) {
        OP_LET(KnapsackItem item, curve(group[i], moments[i], grid, context));
        weights += item.front().cost;
        items.push_back(std::move(item));
        moments[i] = {};
      }
      return false;
    };
    OP_TRY(in_groups<SparseLayer>(layers, budget(context), bytes_of(context), work));
    const auto zeros =
        static_cast<std::int64_t>(fraction_of(options_.target.sparsity, static_cast<std::uint64_t>(weights)));
    const KnapsackSolution best = solve_knapsack(items, weights - zeros);
    std::map<std::string, double> shares;
    for (std::size_t i = 0; i < layers.size(); ++i) shares[layers[i].output()] = grid[best.choice[i]];
    return shares;
  }

  // Of each share in the grid the weights that stay and the error relative to what it ends up in.
  Result<KnapsackItem> curve(const SparseLayer& layer, const LayerMoments& moments, std::span<const double> grid,
                             PassContext& context) const {
    KnapsackItem item;
    const auto size = static_cast<std::int64_t>(layer.size());
    std::vector<double> errors(grid.size(), 0.0);
    if (moments.fitted) {  // else prune_one() says what is wrong
      OP_LET(const LayerRows rows, read_rows(layer));
      OP_LET(errors, sparsity_errors(layer, rows, *moments.fitted, grid, settings(context)));
    }
    for (std::size_t i = 0; i < grid.size(); ++i)
      item.push_back({size - static_cast<std::int64_t>(fraction_of(grid[i], layer.size())),
                      moments.power > 0 ? std::max(errors[i], 0.0) / moments.power : 0});
    return item;
  }

  static constexpr std::uint64_t kSums = std::uint64_t{1} << 30;  // bytes of sums without --memory-limit
  static constexpr int kGrid = 40;
  Options options_;
};

}  // namespace

PassInfo info_prune_sparsegpt() {
  return describe_pass<PruneSparseGpt, Options>(
      {.summary = "Zero weights and fit the others so that outputs of layers stay what they were",
       .description =
           "W, b => argmin sum ||y - (W' x^ + b')||^2 over the calibration samples, with floor(sparsity * n) zeros in "
           "W', or at most N of every M in a row with pattern=N:M; y is the output of the layer in the model as it "
           "came, x^ its input once the layers before it are pruned.\n\n"
           "For every Conv (grouped and depthwise too), Gemm and MatMul of the main graph the second moments H of its "
           "input are summed up. Weights go by w^2 / [H^-1]_jj, the others take over what they did: one at a time "
           "(Optimal Brain Compression) where that takes seconds, else in SparseGPT's sweep over blocks of columns. "
           "What stays, and the bias, is then fitted exactly, with the ridge that does best on every fifth sample, "
           "which is held out. Existing zeros count and stay.\n\n"
           "Weights that something else reads too are left. The graph stays the same: zeros make the file smaller once "
           "it is compressed or stored sparse.",
       .example = "prune-sparsegpt{pattern=2:4}",
       .references = {"Frantar and Alistarh, SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot, "
                      "arXiv 2301.00774",
                      "Frantar and Alistarh, Optimal Brain Compression, arXiv 2208.11580"},
       .idempotent = true,
       .lossy = true,
       .needs_data = true});
}

}  // namespace onnxpress
