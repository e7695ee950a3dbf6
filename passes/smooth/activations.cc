// smooth-activations: channels of an activation that dwarf the others hand their size over to the weights.
//
//   x = LayerNorm(v) * g;  y = x W   =>   x' = LayerNorm(v) * (g / s);  y = x' (diag(s) W)
//
//   s[j] = max|x[j]|^a / max_k |W[j,k]|^(1-a)
//
// Eight bits for the whole of x resolve its largest channel and little else; weights are even, so they can take part of
// the spread. For MatMul and Gemm with constant weights. s is folded into what makes x: LayerNormalization,
// RMS normalization, BatchNormalization, Mul with a constant, a linear op (through ReLU and data movement); where that
// is not possible and insert=true, a Mul is put in front. All readers of x (Q, K, V) share one s.
// The exponent a is searched per activation: the a of {0, 1/grid, ..., 1} whose 8-bit product is nearest to the exact
// one on sampled rows (a = 0 only evens out weights, no change at all is a candidate too).
// Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models"
// (arXiv 2211.10438).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>

#include "base/parallel.h"
#include "calib/channel_stats.h"
#include "pass/channel_graph.h"
#include "pass/pass.h"
#include "quant/smooth.h"

namespace onnxpress {
namespace {

struct Options {
  std::optional<double> alpha;
  std::int64_t grid = 20;
  bool insert = false;
  std::int64_t rows = 512;
  bool per_channel = true;
};

constexpr double kLeastGain = 0.02;  // of the error, for which nothing is touched

// MatMuls and Gemms that read one value.
struct Group {
  std::string value;
  std::vector<std::size_t> layers;  // of ChannelGraph::layers()
  std::string refusal = {};         // why no factor can be folded into what makes it
};

struct Chosen {
  std::vector<double> s;
  double alpha = 0, before = 0, after = 0;  // relative squared errors
  std::string why_not = {};
};

class SmoothActivations final : public Pass {
 public:
  explicit SmoothActivations(Options options) : options_(options) {}

  static void describe(Schema<Options>& schema) {
    schema.add("alpha", &Options::alpha, "the exponent, the same everywhere; unset: searched for each activation", {0, 1})
        .add("grid", &Options::grid, "steps of the search between 0 and 1", {1, 100})
        .add("insert", &Options::insert, "put a Mul in front where the factors cannot be folded into what makes the value")
        .add("rows", &Options::rows, "at most this many rows of each activation are compared", {1, {}})
        .add("per_channel", &Options::per_channel, "the weights will have one scale per output channel");
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    if (context.activations == nullptr) return fail(Code::usage, "smooth-activations needs --data");
    Graph& graph = model.main();
    ChannelGraph channels(graph, context, {.affine = true});
    std::vector<Group> groups = find_groups(channels);
    if (!options_.insert)
      std::erase_if(groups, [&](const Group& group) { return skip(channels, group, group.refusal, context); });
    Outcome outcome;
    if (groups.empty()) return outcome;
    OP_LET(const std::vector<Chosen> chosen, choose(model, channels, groups, context));
    OP_LET(outcome.changed, apply(channels, groups, chosen, context));
    return outcome;
  }

 private:
  static bool skip(const ChannelGraph& channels, const Group& group, const std::string& why, PassContext& context) {
    if (why.empty()) return false;
    for (const std::size_t k : group.layers) context.skipped(channels.layers()[k].linear.node, why);
    return true;
  }

  static std::vector<Group> find_groups(const ChannelGraph& channels) {
    std::vector<Group> groups;
    for (std::size_t k = 0; k < channels.layers().size(); ++k) {
      const ChannelLayer& layer = channels.layers()[k];
      if (!layer.linear.node.is("MatMul") && !layer.linear.node.is("Gemm")) continue;
      if (layer.linear.node.graph().is_constant(layer.input)) continue;
      const auto known = std::ranges::find(groups, layer.input, &Group::value);
      Group& group = known == groups.end() ? groups.emplace_back(Group{layer.input, {}}) : *known;
      group.layers.push_back(k);
    }
    for (Group& group : groups) group.refusal = fold_refusal(channels, group);
    return groups;
  }

  // Factors can be folded when nothing but these layers reads the channels.
  static std::string fold_refusal(const ChannelGraph& channels, const Group& group) {
    const ChannelIds& ids = channels.layers()[group.layers.front()].in;
    if (const auto fixed = std::ranges::find_if(ids, [&](std::size_t id) { return channels.fixed(id); });
        fixed != ids.end()) {
      const std::string& why = channels.reason(*fixed);
      return why.empty() ? "no norm, Mul or linear op that could take the factors makes its input" : why;
    }
    std::vector<std::size_t> roots;
    for (const std::size_t id : ids) roots.push_back(channels.root(id));
    std::ranges::sort(roots);
    if (std::ranges::adjacent_find(roots) != roots.end()) return "channels of its input are tied to each other";
    for (std::size_t k = 0; k < channels.layers().size(); ++k) {
      if (std::ranges::contains(group.layers, k)) continue;
      const ChannelLayer& other = channels.layers()[k];
      const bool reads = std::ranges::any_of(
          other.in, [&](std::size_t id) { return std::ranges::binary_search(roots, channels.root(id)); });
      if (reads) return fmt::format("{} reads the same channels by another way", other.linear.node.label());
    }
    for (const ChannelBound& bound : channels.bounds())
      if (std::ranges::any_of(bound.ids,
                              [&](std::size_t id) { return std::ranges::binary_search(roots, channels.root(id)); }))
        return fmt::format("{} bounds all its channels alike", bound.node.label());
    return {};
  }

  Result<std::vector<Chosen>> choose(const Model& model, const ChannelGraph& channels, const std::vector<Group>& groups,
                                     PassContext& context) const {
    std::deque<ChannelStatsAccumulator> stats;
    std::deque<RowSampleAccumulator> samples;
    std::vector<Tap> taps;
    for (const Group& group : groups) {
      taps.push_back({group.value, &stats.emplace_back(-1)});
      taps.push_back({group.value, &samples.emplace_back(16, static_cast<std::size_t>(options_.rows))});
    }
    OP_TRY(context.activations->collect(model, taps));
    std::vector<Chosen> chosen(groups.size());
    OP_TRY(execute_and_commit<Chosen>(
        groups.size(), context.jobs,
        [&](std::size_t i) { return choose_one(channels, groups[i], stats[i], samples[i]); },
        [&](std::size_t i, Chosen one) -> Status {
          chosen[i] = std::move(one);
          return {};
        },
        "smoothing"));
    return chosen;
  }

  Result<Chosen> choose_one(const ChannelGraph& channels, const Group& group, const ChannelStatsAccumulator& measured,
                            const RowSampleAccumulator& sample) const {
    Chosen chosen;
    SmoothProblem problem;
    problem.per_channel = options_.per_channel;
    problem.rows = sample.rows();
    const std::size_t length = channels.layers()[group.layers.front()].in.size();
    if (!measured.trouble().empty() || sample.length() != length || problem.rows.empty()) {
      chosen.why_not = measured.trouble().empty() ? "no rows of it were seen" : measured.trouble();
      return chosen;
    }
    for (const ChannelStats::Channel& channel : measured.stats().channels) {
      problem.min.push_back(channel.min);
      problem.max.push_back(channel.max);
    }
    for (const std::size_t k : group.layers) {
      const Linear& linear = channels.layers()[k].linear;
      OP_LET(const auto tensor, linear.node.graph().constant(linear.node.input(1)));
      OP_LET(const std::vector<float> values, to_floats(tensor->view()));
      problem.add_weight(values, linear.layout);
    }
    chosen.before = problem.error(std::vector<double>(length, 1.0));
    chosen.after = chosen.before;
    const double steps = static_cast<double>(options_.grid);
    for (std::int64_t step = 0; step <= options_.grid; ++step) {
      const double alpha = options_.alpha ? *options_.alpha : static_cast<double>(step) / steps;
      std::vector<double> s = problem.factors(alpha);
      const double error = problem.error(s);
      if (options_.alpha || error < chosen.after) chosen = {std::move(s), alpha, chosen.before, error};
      if (options_.alpha) break;
    }
    if (chosen.s.empty() || (!options_.alpha && chosen.after > (1 - kLeastGain) * chosen.before)) {
      chosen.s.clear();
      chosen.why_not = fmt::format("its input is smooth enough: error {:.3g} %", 100 * std::sqrt(chosen.before));
    }
    return chosen;
  }

  Result<bool> apply(ChannelGraph& channels, const std::vector<Group>& groups,
                     const std::vector<Chosen>& chosen, PassContext& context) const {
    std::vector<double> factors(channels.size(), 1.0);
    std::vector<std::size_t> inserted;
    bool any = false;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (skip(channels, groups[g], chosen[g].why_not, context)) continue;
      any = true;
      if (!groups[g].refusal.empty()) {
        inserted.push_back(g);
        continue;
      }
      const ChannelIds& ids = channels.layers()[groups[g].layers.front()].in;
      for (std::size_t j = 0; j < ids.size(); ++j) factors[channels.root(ids[j])] = chosen[g].s[j];
    }
    if (!any) return false;
    std::vector<ChannelInsertion> insertions;
    for (const std::size_t g : inserted)
      insertions.push_back({groups[g].value, groups[g].layers, chosen[g].s});
    std::vector<Node> touched;
    OP_LET(const std::string refusal, channels.apply(factors, &touched, insertions));
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (!chosen[g].why_not.empty() || skip(channels, groups[g], refusal, context)) continue;
      const auto [low, high] = std::ranges::minmax(chosen[g].s);
      for (const std::size_t k : groups[g].layers)
        context.done(channels.layers()[k].linear.node,
                     fmt::format("input divided by {:.3g} to {:.3g} (alpha {:.2g}{}): 8-bit error {:.3g} -> {:.3g} %",
                                 low, high, chosen[g].alpha, groups[g].refusal.empty() ? "" : ", Mul inserted",
                                 100 * std::sqrt(chosen[g].before), 100 * std::sqrt(chosen[g].after)));
    }
    return refusal.empty();
  }

  Options options_;
};

}  // namespace

PassInfo info_smooth_activations() {
  return describe_pass<SmoothActivations, Options>(
      {.summary = "Moves outlier channels of activations into the weights before quantization (SmoothQuant)",
       .description =
           "x = LayerNorm(v) * g; y = x W  =>  x' = LayerNorm(v) * (g / s); y = x' (diag(s) W)\n\n"
           "s[j] = max|x[j]|^alpha / max|W[j]|^(1-alpha) for MatMul and Gemm with constant weights; the network "
           "computes the same, but 8 bits for all channels of x lose less. The factors are folded into what makes x "
           "(LayerNormalization, RMS normalization, BatchNormalization, Mul with a constant, a linear op); with "
           "insert=true a Mul is put in front elsewhere. All readers of x share them. alpha is searched for each x: "
           "the one whose 8-bit product is nearest to the exact one on sampled rows.\n\n"
           "Never touched: values that other ops read as well (without insert=true), shared weights, bodies and "
           "functions.",
       .example = "smooth-activations,quant-static",
       .references = {"Xiao et al., SmoothQuant, arXiv 2211.10438"},
       .idempotent = false,
       .lossy = true,
       .needs_data = true});
}

}  // namespace onnxpress
