#include "prune/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "base/interrupt.h"
#include "calib/channel_mean.h"
#include "calib/rows.h"
#include "ir/extract.h"
#include "ir/rewriter.h"
#include "pass/linear.h"
#include "prune/residual_blocks.h"
#include "repair/reconstruct.h"
#include "repair/repair_layers.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kRowBytes = std::uint64_t{1} << 30;  // of rows without --memory-limit

// Which value of the original stands for which value of the model.
class Targets {
 public:
  Targets(const Model& model, const Model& original, std::span<const RemovedBlock> removed)
      : graph_(model.main()), original_(original.main()) {
    std::size_t position = 0;
    for (const Node& node : original_.nodes())
      for (const std::string& output : node.outputs()) order_[output] = ++position;
    for (const RemovedBlock& block : removed) root_[block.output] = root_of(block.input);
    for (const auto& [value, root] : root_) {
      std::string& last = last_[root_of(root)];
      if (last.empty() || order_[value] > order_[last]) last = value;
      first_gap_ = std::min(first_gap_, order_[value]);
    }
  }

  // Whether a value of the original lies behind the first gap: in front of it nothing has changed.
  bool is_affected(const std::string& value) const {
    const auto found = order_.find(value);
    return found != order_.end() && found->second >= first_gap_;
  }

  // Of the sum of a block; with blocks gone behind it, what came behind the last of them. Empty: the original has none.
  std::string of(const std::string& sum) const {
    if (const auto gap = last_.find(sum); gap != last_.end()) return gap->second;
    // The gap may lie behind a Relu, as the blocks of a ResNet do: Relu(s) is read where Relu(t) was.
    const std::vector<Use>& uses = graph_.uses(sum);
    if (uses.size() == 1 && uses[0].node && uses[0].node.is("Relu")) {
      const auto gap = last_.find(std::string(uses[0].node.output(0)));
      if (gap != last_.end() && only_relus_read(gap->second)) return gap->second;
    }
    return original_.producer(sum) ? sum : std::string();
  }

 private:
  std::string root_of(const std::string& value) const {
    const auto found = root_.find(value);
    return found == root_.end() ? value : root_of(found->second);
  }
  bool only_relus_read(const std::string& value) const {
    return !original_.is_output(value) &&
           std::ranges::all_of(original_.uses(value), [](const Use& use) { return use.node && use.node.is("Relu"); });
  }

  const Graph &graph_, &original_;
  std::map<std::string, std::size_t> order_;
  std::size_t first_gap_ = std::numeric_limits<std::size_t>::max();
  std::map<std::string, std::string> root_;  // what is read in place of the sum of a block that is gone
  std::map<std::string, std::string> last_;  // of a root, the last such sum in the original
};

// The Conv, Gemm or MatMul that makes `value`, at most a bias behind a MatMul in between; else an empty handle.
Node layer_of(const Graph& graph, std::string_view value) {
  Node node = graph.producer(value);
  if (node && node.is("Add")) {
    const Node before = graph.producer(node.input(graph.is_constant(node.input(0)) ? 1 : 0));
    if (before && before.is("MatMul") && add_after(before) == node) node = before;
  }
  return node && is_linear(node) ? node : Node();
}

class StreamRepair {
 public:
  StreamRepair(Model& model, const Model& original, std::span<const RemovedBlock> removed, PassContext& context,
               const RepairOptions& options)
      : model_(model), original_(original), targets_(model, original, removed), context_(context), options_(options) {
    budget_ = context.memory_limit == 0 ? kRowBytes : context.memory_limit / 4;
  }

  Result<bool> run() {
    bool changed = false;
    const std::vector<RepairLayer> layers = this->layers();
    for (std::size_t begin = 0, end = 0; begin < layers.size(); begin = end) {
      OP_TRY(check_interrupt());
      while (end < layers.size() && layers[end].input == layers[begin].input) ++end;
      OP_LET(const bool refitted, refit(std::span(layers).subspan(begin, end - begin)));
      changed |= refitted;
    }
    return changed;
  }

 private:
  // What is to be refitted, in graph order.
  std::vector<RepairLayer> layers() const {
    struct Sum {
      std::string value, target, shortcut;
    };
    std::map<std::string, Sum, std::less<>> sums;  // by the first value of the node that adds to them
    const Graph& graph = model_.main();
    for (const ResidualBlock& block : find_residual_blocks(graph).blocks) {
      const Node node = layer_of(graph, block.add.input(1 - block.shortcut));
      const std::string sum(block.add.output(0)), target = targets_.of(sum);
      if (node && !target.empty())
        sums[std::string(node.output(0))] = {sum, target, std::string(block.add.input(block.shortcut))};
    }
    std::vector<RepairLayer> layers;
    for (const Node& node : graph.nodes()) {
      if (!is_linear(node) || !graph.is_constant(node.input(1))) continue;
      const auto sum = sums.find(node.output(0));
      if (!targets_.is_affected(sum != sums.end() ? sum->second.target : std::string(node.output(0)))) continue;
      auto layer = changeable_layer(node, true);
      if (!layer) {
        context_.skipped(node, "not refitted: " + layer.error());
        continue;
      }
      layer->axis = node.is("Conv") ? 1 : -1;
      layer->input = node.input(0);
      layer->target = sum != sums.end() ? sum->second.target : std::string(layer->linear.last().output(0));
      if (sum != sums.end()) layer->shortcut = sum->second.shortcut;
      clip_behind(*layer, sum != sums.end() ? sum->second.value : layer->target);
      layers.push_back(std::move(*layer));
    }
    return layers;
  }

  // Where a Relu or Clip is all that reads the value, what it cuts off does not count.
  void clip_behind(RepairLayer& layer, const std::string& value) const {
    const auto use = only_use(model_.main(), value);
    const auto bounds = use ? activation_bounds(use->node) : std::nullopt;
    if (!bounds) return;
    layer.regression.low.assign(layer.regression.shape.outputs, bounds->low);
    layer.regression.high.assign(layer.regression.shape.outputs, bounds->high);
  }

  using Sink = std::unique_ptr<RowsAccumulator>;

  Sink channel_sink(const RepairLayer& layer) const {
    return std::make_unique<RowsAccumulator>(
        [axis = layer.axis, positions = static_cast<std::size_t>(options_.positions),
         seed = context_.seed](const TensorView& value) { return channel_rows(axis, value, positions, seed); });
  }
  // Fewer positions where rows of so many would not fit.
  Sink patch_sink(const RepairLayer& layer, std::size_t samples) const {
    const PatchShape& shape = layer.regression.shape;
    const std::uint64_t row = std::max<std::uint64_t>(1, shape.groups * shape.length * sizeof(float) * samples);
    const auto positions = std::clamp<std::uint64_t>(budget_ / row, 1, static_cast<std::uint64_t>(options_.positions));
    return std::make_unique<RowsAccumulator>([shape, positions, seed = context_.seed](const TensorView& value) {
      return patch_rows(shape, value, positions, seed);
    });
  }

  static Status collect(const Model& model, const std::vector<std::pair<std::string, RowsAccumulator*>>& wanted,
                        PassContext& context) {
    std::vector<Tap> taps;
    std::vector<std::string> values;
    for (const auto& [value, sink] : wanted) {
      taps.push_back({value, sink});
      values.push_back(value);
    }
    return context.activations->collect(extract_prefix(model, values), taps);
  }

  // Layers that read one value.
  Result<bool> refit(std::span<const RepairLayer> layers) {
    std::vector<Sink> targets, shortcuts, inputs;
    std::vector<std::pair<std::string, RowsAccumulator*>> of_original, of_model;
    for (const RepairLayer& layer : layers) {
      targets.push_back(channel_sink(layer));
      of_original.emplace_back(layer.target, targets.back().get());
      shortcuts.push_back(layer.shortcut.empty() ? nullptr : channel_sink(layer));
      if (!layer.shortcut.empty()) of_model.emplace_back(layer.shortcut, shortcuts.back().get());
    }
    OP_TRY(collect(original_, of_original, context_));
    for (const RepairLayer& layer : layers) {
      inputs.push_back(patch_sink(layer, targets.front()->samples().size()));
      of_model.emplace_back(layer.input, inputs.back().get());
    }
    OP_TRY(collect(model_, of_model, context_));
    Rewriter rewriter(model_.main());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      RepairLayer layer = layers[i];
      layer.regression.input = inputs[i].get();
      layer.regression.target = targets[i].get();
      layer.regression.shortcut = shortcuts[i].get();
      layer.regression.seed = context_.seed;
      OP_TRY(refit(layer, rewriter));
    }
    return rewriter.commit();
  }

  Status refit(const RepairLayer& layer, Rewriter& rewriter) {
    OP_LET(const LinearWeights now, read_weights(layer));
    const auto result = reconstruct(layer.regression, now,
                                    {.ridge = options_.ridge, .can_shift = layer.can_shift, .jobs = context_.jobs});
    if (!result && result.error().code != Code::unsupported) return rethrow(result.error(), layer.node.label());
    std::string trouble = result ? std::string() : result.error().what;
    if (result && result->change == Reconstruction::Change::none) trouble = "no better on held-out samples";
    if (trouble.empty()) {
      const bool weights = result->change == Reconstruction::Change::weights;
      OP_LET(const bool written, write_weights(layer, result->weights, weights, rewriter));
      if (!written) trouble = "the new numbers do not fit its type";
    }
    if (!trouble.empty()) {
      context_.skipped(layer.node, "not refitted: " + trouble);
      return {};
    }
    context_.done(layer.node,
                  fmt::format("refitted to {}: error {:.2f} % -> {:.2f} % on held-out samples",
                              layer.shortcut.empty() ? "what it makes" : "the sum behind it, '" + layer.target + "'",
                              100 * result->error_before, 100 * result->error_after));
    return {};
  }

  Model& model_;
  const Model& original_;
  Targets targets_;
  PassContext& context_;
  const RepairOptions& options_;
  std::uint64_t budget_ = 0;
};

}  // namespace

Result<bool> refit_stream(Model& model, const Model& original, std::span<const RemovedBlock> removed,
                          PassContext& context, const RepairOptions& options) {
  return StreamRepair(model, original, removed, context, options).run();
}

}  // namespace onnxpress
