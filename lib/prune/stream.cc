#include "prune/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "base/interrupt.h"
#include "calib/channel_mean.h"
#include "calib/levels.h"
#include "ir/rewriter.h"
#include "pass/linear.h"
#include "prune/residual_blocks.h"
#include "repair/refit.h"
#include "repair/repair_layers.h"

namespace onnxpress {
namespace {

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
      : model_(model),
        original_(original),
        targets_(model, original, removed),
        context_(context),
        refitter_(context, options, false) {}

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

  // Layers that read one value.
  Result<bool> refit(std::span<const RepairLayer> layers) {
    std::vector<RowsOfLayer> targets, shortcuts, inputs;
    std::vector<Tap> of_original, of_model;
    for (const RepairLayer& layer : layers) {
      targets.push_back(refitter_.output_rows(layer, {}));
      of_original.push_back({layer.target, targets.back().get()});
      shortcuts.push_back(layer.shortcut.empty() ? nullptr : refitter_.output_rows(layer, {}));
      if (!layer.shortcut.empty()) of_model.push_back({layer.shortcut, shortcuts.back().get()});
    }
    OP_TRY(collect_up_to(*context_.activations, original_, of_original));
    for (const RepairLayer& layer : layers) {
      inputs.push_back(refitter_.input_rows(layer, targets.front()->samples().size()));
      of_model.push_back({layer.input, inputs.back().get()});
    }
    OP_TRY(collect_up_to(*context_.activations, model_, of_model));
    Rewriter rewriter(model_.main());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      OP_TRY(journal(layers[i], refitter_.refit(layers[i], *inputs[i], *targets[i], shortcuts[i].get(), rewriter)));
    }
    return rewriter.commit();
  }

  Status journal(const RepairLayer& layer, const Result<Reconstruction>& result) {
    if (!result && result.error().code != Code::unsupported) return std::unexpected(result.error());
    if (!result) {
      context_.skipped(layer.node, "not refitted: " + result.error().what);
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
  Refitter refitter_;
};

}  // namespace

Result<bool> refit_stream(Model& model, const Model& original, std::span<const RemovedBlock> removed,
                          PassContext& context, const RepairOptions& options) {
  return StreamRepair(model, original, removed, context, options).run();
}

}  // namespace onnxpress
