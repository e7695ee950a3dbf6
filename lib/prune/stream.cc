#include "prune/stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "base/interrupt.h"
#include "calib/gram.h"
#include "ir/edit.h"
#include "ir/rewriter.h"
#include "num/linalg.h"
#include "pass/linear.h"
#include "prune/residual_blocks.h"

namespace onnxpress {
namespace {

constexpr std::array<double, 7> kRidges = {1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10};

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

// The Conv, Gemm or MatMul that makes `value`, with the Add of its bias behind a MatMul; else an empty handle.
Node layer_of(const Graph& graph, std::string_view value) {
  Node node = graph.producer(value);
  if (node && node.is("Add")) {
    const Node before = graph.producer(node.input(graph.is_constant(node.input(0)) ? 1 : 0));
    if (before && before.is("MatMul") && add_after(before) == node) node = before;
  }
  return node && is_linear(node) ? node : Node();
}

OrReason<Linear> describe(const Node& node) {
  if (node.is("ConvTranspose") || node.attr_int("transA", 0) != 0) return no("transposed inputs are not supported");
  auto linear = describe_linear(node, node.is("MatMul") ? add_after(node) : Node());
  if (linear && !node.is("Conv") && linear->dims.size() != 2) return no("its weight is no matrix");
  if (linear && linear->alpha == 0) return no("its alpha is 0");
  return linear;
}

// Weights as [outputs, length] with the bias, if it can have one.
struct Weights {
  std::vector<double> matrix;
  std::vector<double> bias;
  bool has_bias = false;
};

std::vector<double> transposed(const std::vector<double>& values, std::size_t rows) {
  const std::size_t columns = values.size() / rows;
  std::vector<double> out(values.size());
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < columns; ++j) out[j * rows + i] = values[i * columns + j];
  return out;
}

Result<Weights> read_weights(const Linear& linear) {
  Weights weights;
  OP_LET(const auto tensor, linear.node.graph().constant(linear.node.input(1)));
  OP_LET(auto values, to_doubles(tensor->view()));
  for (double& value : values) value *= linear.alpha;
  weights.matrix = linear.layout.rows_are_outputs ? std::move(values) : transposed(values, linear.layout.rows);
  OP_LET(weights.bias, read_bias(linear));
  weights.has_bias = !linear.bias().empty() && linear.beta != 0;
  return weights;
}

// Sums over rows of what remains to be explained, z = t - x, and of the layer's input a.
struct Sums {
  Gram fitted, held_out;
};

Gram difference(Gram t, const Gram& x) {
  for (std::size_t i = 0; i < t.yx.size(); ++i) t.yx[i] -= x.yx[i];
  for (std::size_t i = 0; i < t.y.size(); ++i) t.y[i] -= x.y[i];
  return t;
}

// sum ||z - W a - b||^2 without the term of z alone, which is the same for all W and b.
double error_of(const Weights& weights, const Gram& gram) {
  const std::size_t length = gram.shape.length;
  double error = 0;
  for (std::size_t o = 0; o < gram.shape.outputs; ++o) {
    const std::size_t group = o / gram.shape.outputs_per_group();
    const auto w = std::span(weights.matrix).subspan(o * length, length);
    const auto xx = gram.xx_of(group), yx = gram.yx_of(o), x = gram.x_of(group);
    const double b = weights.bias[o];
    error += b * b * static_cast<double>(gram.rows) - 2 * b * gram.y[o];
    for (std::size_t i = 0; i < length; ++i) {
      double row = 2 * b * x[i] - 2 * yx[i];
      for (std::size_t j = 0; j < length; ++j) row += xx[i * length + j] * w[j];
      error += w[i] * row;
    }
  }
  return error;
}

// argmin over W, b of the error plus lambda ||W - W0||^2, lambda = ridge * mean diagonal. With a bias, of the centered
// sums. False when the matrix is not positive definite.
bool solve(const Weights& start, const Gram& gram, double ridge, Weights& out) {
  const std::size_t length = gram.shape.length, each = gram.shape.outputs_per_group();
  const double rows = static_cast<double>(gram.rows);
  out = start;
  for (std::size_t group = 0; group < gram.shape.groups; ++group) {
    std::vector<double> matrix(gram.xx_of(group).begin(), gram.xx_of(group).end());
    const auto x = gram.x_of(group);
    double diagonal = 0;
    for (std::size_t i = 0; i < length; ++i)
      for (std::size_t j = 0; start.has_bias && j < length; ++j) matrix[i * length + j] -= x[i] * x[j] / rows;
    for (std::size_t i = 0; i < length; ++i) diagonal += matrix[i * length + i];
    const double lambda = ridge * diagonal / static_cast<double>(length);
    if (!(lambda > 0)) return false;
    for (std::size_t i = 0; i < length; ++i) matrix[i * length + i] += lambda;
    if (!cholesky(matrix, length)) return false;
    const auto part = std::span(out.matrix).subspan(group * each * length, each * length);
    for (std::size_t k = 0; k < each; ++k) {
      const std::size_t o = group * each + k;
      for (std::size_t i = 0; i < length; ++i) {
        double& value = part[k * length + i];
        value = lambda * value + gram.yx_of(o)[i] - (start.has_bias ? gram.y[o] * x[i] / rows : 0);
      }
    }
    solve_cholesky(matrix, length, part);
    for (std::size_t k = 0; start.has_bias && k < each; ++k) {
      double mean = gram.y[group * each + k] / rows;
      for (std::size_t i = 0; i < length; ++i) mean -= part[k * length + i] * x[i] / rows;
      out.bias[group * each + k] = mean;
    }
  }
  return true;
}

class StreamRepair {
 public:
  StreamRepair(Model& model, const Model& original, std::span<const RemovedBlock> removed, PassContext& context,
               const RepairOptions& options)
      : model_(model), original_(original), targets_(model, original, removed), context_(context), options_(options) {}

  Result<bool> run() {
    // By the node that makes what a block adds: what it is added to, and what the sum should be.
    std::map<std::string, Goal, std::less<>> sums;
    const Graph& graph = model_.main();
    for (const ResidualBlock& block : find_residual_blocks(graph).blocks) {
      const Node layer = layer_of(graph, block.add.input(1 - block.shortcut));
      const std::string target = targets_.of(std::string(block.add.output(0)));
      if (layer && !target.empty())
        sums[std::string(layer.output(0))] = {.target = target, .stream = std::string(block.add.input(block.shortcut))};
    }
    std::vector<std::string> layers;  // by name: commits replace nodes' handles only when they remove them
    for (const Node& node : graph.nodes())
      if (is_linear(node) && graph.is_constant(node.input(1))) layers.emplace_back(node.output(0));
    bool changed = false;
    for (const std::string& layer : layers) {
      OP_TRY(check_interrupt());
      const auto sum = sums.find(layer);
      if (!targets_.is_affected(sum != sums.end() ? sum->second.target : layer)) continue;
      const auto linear = describe(graph.producer(layer));
      if (!linear) {
        context_.skipped(graph.producer(layer), "not refitted: " + linear.error());
        continue;
      }
      const Goal goal = sum != sums.end() ? sum->second : Goal{.target = std::string(linear->last().output(0))};
      OP_LET(const bool fitted, refit(*linear, goal));
      changed |= fitted;
    }
    return changed;
  }

 private:
  struct Goal {
    std::string target;       // value of the original
    std::string stream = {};  // what the layer's output is added to first; "" = nothing
  };

  Result<bool> refit(const Linear& linear, const Goal& goal) {
    std::string trouble;
    OP_LET(const Sums sums, measure(linear, goal, trouble));
    if (trouble.empty() && sums.held_out.rows == 0) trouble = "fewer than five samples: none to judge by";
    if (!trouble.empty()) {
      context_.skipped(linear.node, "not refitted: " + trouble);
      return false;
    }
    OP_LET(const Weights start, read_weights(linear));
    Weights best = start;
    const double before = error_of(start, sums.held_out);
    double least = before, ridge = 0;
    const auto attempt = [&](double value) {
      Weights weights;
      if (!solve(start, sums.fitted, value, weights)) return;
      const double error = error_of(weights, sums.held_out);
      if (!(error < least)) return;
      least = error;
      best = std::move(weights);
      ridge = value;
    };
    if (options_.ridge)
      attempt(*options_.ridge);
    else
      for (const double value : kRidges) attempt(value);
    if (least == before) {
      context_.skipped(linear.node, "not refitted: no better on held-out samples");
      return false;
    }
    return write(linear, best, goal, ridge);
  }

  Result<Sums> measure(const Linear& linear, const Goal& goal, std::string& trouble) {
    const PatchShape shape = patch_shape(linear.node, linear.dims);
    const auto positions = static_cast<std::size_t>(options_.positions);
    if (context_.memory_limit > 0 && 4 * gram_bytes(shape) > context_.memory_limit) {
      trouble = fmt::format("sums over {} inputs take more than the memory limit", shape.length);
      return Sums{Gram(PatchShape()), Gram(PatchShape())};
    }
    GramAccumulator t(shape, positions, context_.seed), x(shape, positions, context_.seed);
    const std::string input(linear.node.input(0));
    const PairTap wanted{goal.target, input, &t}, there{goal.stream, input, &x};
    OP_TRY(context_.activations->collect_pairs(original_, model_, {&wanted, 1}));
    trouble = t.finish();
    if (goal.stream.empty()) return Sums{t.fitted(), t.held_out()};
    OP_TRY(context_.activations->collect_pairs(model_, model_, {&there, 1}));
    if (const std::string other = x.finish(); trouble.empty()) trouble = other;
    if (trouble.empty() && (t.fitted().rows != x.fitted().rows || t.held_out().rows != x.held_out().rows))
      trouble = "some rows are not finite";
    return Sums{.fitted = difference(t.fitted(), x.fitted()), .held_out = difference(t.held_out(), x.held_out())};
  }

  Result<bool> write(const Linear& linear, const Weights& weights, const Goal& goal, double ridge) {
    const std::string where = goal.stream.empty() ? "what it makes in the original"
                                                  : fmt::format("the stream of the original, '{}'", goal.target);
    std::vector<double> values = weights.matrix, bias = weights.bias;
    if (!linear.layout.rows_are_outputs) values = transposed(values, linear.layout.outputs());
    for (double& value : values) value /= linear.alpha;
    for (double& value : bias) value /= linear.beta;
    OP_LET(auto weight, from_doubles(values, linear.dtype, linear.dims));
    std::optional<Tensor> new_bias;
    if (weights.has_bias) {
      const auto type = linear.node.graph().constant_type(linear.bias());
      const std::int64_t outputs = static_cast<std::int64_t>(linear.layout.outputs());
      // A single number for all channels becomes one for each.
      const Dims dims = element_count(type->second) == linear.layout.outputs() ? type->second : Dims{outputs};
      OP_LET(new_bias, from_doubles(bias, type->first, dims));
      if (!new_bias) weight.reset();
    }
    if (!weight) {
      context_.skipped(linear.node, fmt::format("the refitted weights do not fit in {}", dtype_name(linear.dtype)));
      return false;
    }
    Rewriter rewriter(model_.main());
    set_constant(rewriter, linear.node, 1, std::move(*weight), "weight");
    if (new_bias) set_constant(rewriter, linear.bias_node, linear.bias_slot, std::move(*new_bias), "bias");
    context_.done(linear.node, fmt::format("refitted to {}, ridge {:g}", where, ridge));
    return rewriter.commit();
  }

  Model& model_;
  const Model& original_;
  Targets targets_;
  PassContext& context_;
  const RepairOptions& options_;
};

}  // namespace

Result<bool> refit_stream(Model& model, const Model& original, std::span<const RemovedBlock> removed,
                          PassContext& context, const RepairOptions& options) {
  return StreamRepair(model, original, removed, context, options).run();
}

}  // namespace onnxpress
