// fold-bias: a constant added behind a convolution or Gemm, one value per output channel, becomes its bias.
//
//   t = Conv(x, W, b); y = Add(t, k)    =>    y = Conv(x, W, b + k)        k [C, 1, 1], [1, C, 1, 1] or one value
//   t = Gemm(x, W, b); y = Add(t, k)    =>    y = Gemm(x, W, beta * b + k) k [N], [1, N] or one value
//
// Exporters write biases this way; runtimes fuse the float form by themselves, but not once Q/DQ stand between, and
// fold-batchnorm does not see past it. Computed in double and stored in the dtype of the weights. The value between the
// two must have this one reader and be no graph output; weights, bias and k must be constant. A Conv, ConvTranspose or
// Gemm without bias gets one. (Jacob et al., arXiv 1712.05877, has biases in the accumulators of integer kernels.)
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "ir/edit.h"
#include "ir/rewriter.h"
#include "num/channels.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

// Output channels of a node that takes a bias at slot 2; 0 when it takes none.
std::int64_t channels_of(const Node& node) {
  const auto weight = node.graph().constant_type(node.input(1));
  if (!weight || !is_float(weight->first)) return 0;
  const Dims& dims = weight->second;
  if (node.is("Gemm")) return dims.size() != 2 ? 0 : dims[node.attr_int("transB", 0) != 0 ? 0 : 1];
  if (dims.size() < 3) return 0;
  if (node.is("Conv")) return dims[0];
  return node.is("ConvTranspose") ? dims[1] * node.attr_int("group", 1) : 0;
}

// Whether a constant of these dims adds one value to each output channel of the node (or one to all).
bool is_per_channel(const Dims& dims, const Node& node, std::int64_t channels) {
  const std::size_t rank = node.is("Gemm") ? 2 : node.graph().constant_type(node.input(1))->second.size();
  if (dims.size() > rank) return false;
  const std::int64_t elements = std::ranges::fold_left(dims, std::int64_t{1}, std::multiplies());
  if (elements == 1) return true;
  const std::size_t behind = rank - 2;  // spatial axes
  return elements == channels && dims.size() > behind && dims[dims.size() - 1 - behind] == channels;
}

class FoldBias final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Outcome outcome;
    for (Graph* graph : model.graphs()) {
      if (graph->kind() == Graph::Kind::function) continue;  // holds no initializers
      const std::vector<Node> nodes = graph->nodes();
      for (const Node& node : nodes) {
        if (!node.is("Add")) continue;
        OP_LET(const bool changed, fold(*graph, node, context));
        outcome.changed |= changed;
      }
    }
    return outcome;
  }

 private:
  static Result<bool> fold(Graph& graph, const Node& add, PassContext& context) {
    const std::size_t slot = graph.is_constant(add.input(0)) ? 0 : 1;
    const auto type = graph.constant_type(add.input(slot));
    const Node linear = graph.producer(add.input(1 - slot));
    if (!type || !linear || !(linear.is("Conv") || linear.is("ConvTranspose") || linear.is("Gemm"))) return false;
    if (!context.selected(add) || !context.selected(linear)) return false;
    const std::int64_t channels = channels_of(linear);
    if (channels == 0) return skip(context, add, "the weight before it is not a float constant");
    if (!is_per_channel(type->second, linear, channels))
      return skip(context, add, "it does not add one value per output channel");
    const std::string value(add.input(1 - slot));
    if (graph.is_output(value)) return skip(context, add, fmt::format("'{}' is also an output of the graph", value));
    if (graph.uses(value).size() != 1) return skip(context, add, fmt::format("'{}' has other readers", value));
    OP_LET(const auto bias, sum(graph, linear, add.input(slot), channels));
    if (!bias) return skip(context, add, "the bias before it is no constant vector, or the sum is not finite");

    context.done(add, fmt::format("became the bias of {}", linear.label()));
    Rewriter rewriter(graph);
    const std::string constant(add.input(slot)), output(add.output(0));
    if (linear.has_attr("beta")) rewriter.remove_attribute(linear, "beta");
    set_constant(rewriter, linear, 2, *bias, output + "_bias");
    rewriter.set_output(linear, 0, output);
    rewriter.forget_type(value);
    rewriter.erase(add);
    if (is_private_constant(graph, constant, [&](const Use& use) { return use.node == add; }))
      drop_constant(rewriter, graph, constant);
    OP_TRY(rewriter.commit());
    return true;
  }

  static bool skip(PassContext& context, const Node& node, std::string why) {
    context.skipped(node, std::move(why));
    return false;
  }

  // beta * b + k, one value a channel, in the dtype of the weight.
  static Result<std::optional<Tensor>> sum(const Graph& graph, const Node& linear, std::string_view added,
                                           std::int64_t channels) {
    std::vector<double> total(static_cast<std::size_t>(channels));
    const auto add = [&](std::string_view value, double factor) -> Result<bool> {
      const auto type = graph.constant_type(value);
      const std::uint64_t count = type ? element_count(type->second).value_or(0) : 0;
      // [N, 1] of a Gemm is a column, no bias.
      const bool vector = count == total.size() && type->second.back() == channels;
      const bool plain = value == added || vector || count == 1;
      if (!type || !is_float(type->first) || !plain || count == 0) return false;
      OP_LET(const auto tensor, graph.constant(value));
      OP_LET(const std::vector<double> values, to_doubles(tensor->view()));
      for (std::size_t c = 0; c < total.size(); ++c) total[c] += factor * values[count == 1 ? 0 : c];
      return true;
    };
    if (!linear.input(2).empty()) {
      OP_LET(const bool known, add(linear.input(2), linear.is("Gemm") ? linear.attr_float("beta", 1) : 1));
      if (!known) return std::optional<Tensor>();
    }
    OP_LET(const bool known, add(added, 1));
    if (!known) return std::optional<Tensor>();
    return from_doubles(total, graph.constant_type(linear.input(1))->first, {channels});
  }
};

}  // namespace

PassInfo info_fold_bias() {
  return describe_pass<FoldBias>(
      {.summary = "Makes constants added behind Conv, ConvTranspose and Gemm their bias",
       .description =
           "t = Conv(x, W, b); y = Add(t, k)  =>  y = Conv(x, W, b + k)\n\n"
           "Where k holds one value per output channel, or one value. Computed in double. Never touched: functions, "
           "weights, biases or k that are not constant, and a value between the two that others read.",
       .example = "fold-bias,fold-batchnorm",
       .references = {"https://arxiv.org/abs/1712.05877"}});
}

}  // namespace onnxpress
