// Unstructured magnitude pruning: the weights nearest to zero become zero.
//
//   x ─► Conv(W, b) ─► y      =>      x ─► Conv(W', b) ─► y        W'[i] = 0 where |W[i]| is among the k smallest
//
// k = floor(sparsity * n) over each weight tensor (scope=local) or over all of them together (scope=global). Zeros
// that are there already count, and ties go to the first in (tensor, index) order: the sparsity reached is exact.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/parallel.h"
#include "base/text.h"
#include "ir/rewriters.h"
#include "num/select.h"
#include "pass/pass.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

enum class Scope { local, global };

struct Options {
  double sparsity = 0.5;
  Scope scope = Scope::local;
  std::vector<std::string> ops = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"};
  std::int64_t min_elements = 256;
};

// Which inputs of an operator are weights. What is not listed (biases, norm parameters) is never touched.
struct WeightSlots {
  std::string_view op;
  std::vector<std::size_t> slots;
};
const std::array<WeightSlots, 9> kWeightSlots = {{{"Conv", {1}},
                                                  {"ConvTranspose", {1}},
                                                  {"DeformConv", {1}},
                                                  {"Gemm", {0, 1}},
                                                  {"MatMul", {0, 1}},
                                                  {"LSTM", {1, 2}},
                                                  {"GRU", {1, 2}},
                                                  {"RNN", {1, 2}},
                                                  {"Gather", {0}}}};

// Bytes of weights in flight when the user sets no limit: a model of any size is pruned in this much.

// A constant that is to be pruned: an initializer, or the tensor of a Constant node.
struct Weight {
  std::string name;
  Graph* scope = nullptr;
  Initializer initializer;
  Node constant;
  Dims dims;
  DType dtype = DType::undefined;
  std::vector<Use> readers;

  std::uint64_t size() const { return element_count(dims).value_or(0); }
  Result<Tensor> read() const {
    if (initializer) return initializer.read();
    OP_LET(std::optional<Tensor> value, constant.attr_tensor("value"));
    return std::move(*value);
  }
};

struct Pruned {
  Tensor tensor;
  MagnitudeCut cut;
  std::uint64_t zeros = 0;   // there before
  std::uint64_t zeroed = 0;  // new ones
};

class PruneMagnitude final : public Pass {
 public:
  explicit PruneMagnitude(Options options) : options_(std::move(options)) {}

  static void describe(Schema<Options>& schema) {
    schema.add("sparsity", &Options::sparsity, "share of the weights that is zero afterwards", {0, 1})
        .add("scope", &Options::scope, {{"local", Scope::local}, {"global", Scope::global}},
             "reach the sparsity in every tensor, or over all of them by one common threshold")
        .add("ops", &Options::ops,
             "operators whose weights are pruned, of Conv, ConvTranspose, DeformConv, Gemm, MatMul, LSTM, GRU, RNN and "
             "Gather")
        .add("min_elements", &Options::min_elements, "smaller tensors are left as they are", {0, {}});
  }

  Result<Outcome> run(Model& model, PassContext& context) const override {
    OP_TRY(check_ops());
    const std::vector<Weight> weights = plan(model, context);
    std::uint64_t largest = 0;
    for (const Weight& weight : weights) largest = std::max(largest, weight.size() * bit_width(weight.dtype) / 8);
    // Two slots per job, each with the bytes as read and the copy that is changed.
    const unsigned jobs = weight_jobs(context.jobs, 4 * largest, context.memory_limit);

    std::optional<MagnitudeCut> common;
    if (options_.scope == Scope::global) {
      OP_LET(common, common_cut(weights, jobs));
    }
    std::uint64_t ties = common ? common->ties : 0;
    Rewriters rewriters(model);
    OP_TRY(execute_and_commit<Pruned>(
        weights.size(), jobs, [&](std::size_t i) { return prune(weights[i], common); },
        [&](std::size_t i, Pruned pruned) -> Status {
          if (common) {
            const std::uint64_t taken = zero_ties(pruned.tensor, *common, ties);
            ties -= taken;
            pruned.zeroed += taken;
          }
          commit(weights[i], std::move(pruned), rewriters, context);
          return {};
        }));
    OP_LET(const bool changed, rewriters.commit());
    return Outcome{changed};
  }

 private:
  Status check_ops() const {
    std::vector<std::string> known;
    for (const WeightSlots& entry : kWeightSlots) known.emplace_back(entry.op);
    for (const std::string& op : options_.ops)
      if (!std::ranges::contains(known, op))
        return fail(Code::usage, "ops: '{}' has no weights to prune{}", op, did_you_mean(op, known));
    return {};
  }

  // Every prunable constant once, in the order of its first reader.
  std::vector<Weight> plan(const Model& model, PassContext& context) const {
    std::vector<Weight> weights;
    std::unordered_map<const void*, std::size_t> seen;
    for (Graph* graph : model.graphs()) {
      for (const Node& node : graph->nodes()) {
        const auto entry = std::ranges::find_if(kWeightSlots, [&](const auto& e) { return node.is(e.op); });
        if (entry == kWeightSlots.end() || !std::ranges::contains(options_.ops, entry->op)) continue;
        if (!context.selected(node)) continue;
        std::vector<std::string> refusals;
        bool any = false;
        for (const std::size_t slot : entry->slots) {
          Weight weight;
          const std::string refusal = locate(node, slot, weight);
          if (!refusal.empty()) {
            refusals.push_back(refusal);
            continue;
          }
          any = true;
          const void* key = weight.initializer ? static_cast<const void*>(weight.initializer.proto())
                                               : static_cast<const void*>(weight.constant.proto());
          const auto [place, fresh] = seen.try_emplace(key, weights.size());
          if (fresh) weights.push_back(std::move(weight));
          weights[place->second].readers.push_back({node, slot, false});
        }
        // The data input of a MatMul is no constant either: that alone is no news.
        if (!any) context.skipped(node, refusal_text(refusals));
      }
    }
    std::erase_if(weights, [&](const Weight& weight) { return must_stay(weight, context); });
    return weights;
  }

  static std::string refusal_text(const std::vector<std::string>& refusals) {
    for (const std::string& refusal : refusals)
      if (refusal != kWeightNotConstant) return refusal;
    return std::string(kWeightNotConstant);
  }

  // Fills `out`, or says why this input is no weight to prune.
  std::string locate(const Node& node, std::size_t slot, Weight& out) const {
    const std::string name(node.input(slot));
    const auto type = node.graph().constant_type(name);
    if (!type) return not_constant_reason(node, slot);
    out.name = name;
    out.scope = node.graph().scope_of(name);
    std::tie(out.dtype, out.dims) = *type;
    out.initializer = node.graph().constant_initializer(name);
    if (!out.initializer) out.constant = out.scope->producer(name);
    if (!has_magnitudes(out.dtype))
      return fmt::format("weight '{}' is {}, not a float of 16 bits or more", name, dtype_name(out.dtype));
    if (out.dims.size() < 2) return fmt::format("weight '{}' has fewer than two axes", name);
    if (out.size() < static_cast<std::uint64_t>(options_.min_elements))
      return fmt::format("weight '{}' has {} elements, fewer than min_elements={}", name, out.size(),
                         options_.min_elements);
    return {};
  }

  // A weight that some other node reads (as a bias, or a node that the user excluded) must stay as it is.
  static bool must_stay(const Weight& weight, PassContext& context) {
    const std::string reason = foreign_reader(*weight.scope, weight.name, weight.readers);
    if (reason.empty()) return false;
    for (const Use& reader : weight.readers) context.skipped(reader.node, reason);
    return true;
  }

  // One cut over all weights, from histograms only: the weights are read once per round and not kept.
  Result<MagnitudeCut> common_cut(const std::vector<Weight>& weights, unsigned jobs) const {
    std::uint64_t elements = 0;
    bool wide = false;
    for (const Weight& weight : weights) {
      elements += weight.size();
      wide = wide || weight.dtype == DType::f64;
    }
    MagnitudeSelect select(fraction_of(options_.sparsity, elements), wide);
    while (!select.done()) {
      OP_TRY(execute_and_commit<MagnitudeSelect::Histogram>(
          weights.size(), jobs,
          [&](std::size_t i) -> Result<MagnitudeSelect::Histogram> {
            OP_LET(const Tensor tensor, weights[i].read());
            return select.count(tensor.view());
          },
          [&](std::size_t, const MagnitudeSelect::Histogram& counts) -> Status {
            select.add(counts);
            return {};
          }));
      select.end_round();
    }
    return select.cut();
  }

  Result<Pruned> prune(const Weight& weight, const std::optional<MagnitudeCut>& common) const {
    Pruned out;
    OP_LET(out.tensor, weight.read());
    out.zeros = count_zeros(out.tensor.view());
    const std::uint64_t wanted = fraction_of(options_.sparsity, out.tensor.size());
    out.cut = common ? *common : smallest_magnitudes(out.tensor.view(), wanted);
    out.zeroed = zero_below(out.tensor, out.cut);
    if (!common) out.zeroed += zero_ties(out.tensor, out.cut, out.cut.ties);
    return out;
  }

  static void commit(const Weight& weight, Pruned pruned, Rewriters& rewriters, PassContext& context) {
    const auto percent = [&](std::uint64_t zeros) {
      return 100 * static_cast<double>(zeros) / static_cast<double>(std::max<std::uint64_t>(weight.size(), 1));
    };
    const std::uint64_t after = pruned.zeros + pruned.zeroed;
    const std::string what = fmt::format("weight '{}' {}", weight.name, dims_text(weight.dims));
    for (const Use& reader : weight.readers) {
      if (pruned.zeroed == 0)
        context.skipped(reader.node, fmt::format("{} is sparse enough: {:.2f} %", what, percent(pruned.zeros)));
      else
        context.done(reader.node,
                     fmt::format("{}: sparsity {:.2f} -> {:.2f} %", what, percent(pruned.zeros), percent(after)));
    }
    if (pruned.zeroed == 0) return;
    Rewriter& rewriter = rewriters.of(*weight.scope);
    if (weight.initializer)
      rewriter.set_initializer(weight.initializer, std::move(pruned.tensor));
    else
      rewriter.set_attribute(weight.constant, "value", std::move(pruned.tensor));
  }

  Options options_;
};

}  // namespace

PassInfo info_prune_magnitude() {
  return describe_pass<PruneMagnitude, Options>({
      .summary = "Zero the weights of smallest magnitude",
      .description =
          "W' = W with its k smallest |W[i]| set to zero, k = floor(sparsity * n): per tensor with scope=local, over "
          "all weights together by plain |w| with scope=global. Existing zeros count, and ties go to the first in "
          "tensor and index order, so that the sparsity is reached exactly and a second run changes nothing.\n\n"
          "Pruned are the weight inputs of the operators in ops, in bodies of If/Loop/Scan and functions too; a shared "
          "weight once. Never touched: biases, norm parameters, one-axis tensors, integer weights, weights that are "
          "graph inputs or outputs, and weights that something else reads as well.\n\n"
          "The graph stays the same: zeros make the file smaller once it is compressed or stored sparse. Dense "
          "runtimes do not run faster for it.",
      .example = "prune-magnitude{sparsity=0.3 scope=global}",
      .references =
          {"Han et al., Learning both Weights and Connections for Efficient Neural Networks, arXiv 1506.02626"},
      .idempotent = true,
      .lossy = true,
  });
}

}  // namespace onnxpress
