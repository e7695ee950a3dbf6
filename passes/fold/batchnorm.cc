// fold-batchnorm: an inference BatchNormalization disappears into the linear op before or after it.
//
//   t = Conv(x, W, b); y = BatchNormalization(t, scale, B, mean, var)    =>    y = Conv(x, W', b')
//   t = BatchNormalization(x, scale, B, mean, var); y = Gemm(t, W, b)    =>    y = Gemm(x, W', b')
//
// Per channel c the BatchNormalization is the affine map  a[c]*v + s[c]  with
//   a = scale / sqrt(var + epsilon)      s = B - mean * a
// After a linear op (Conv, ConvTranspose, Gemm, MatMul, MatMul+Add) with output channels o:
//   W'[o,i] = a[o] * W[o,i]              b'[o] = a[o] * b[o] + s[o]
// where an Add of one number per channel between the two counts as part of b and goes too.
// Before one (Conv, Gemm, MatMul, MatMul+Add) with input channels i:
//   W'[o,i] = W[o,i] * a[i]              b'[o] = b[o] + sum_i W[o,i] * s[i]
// computed in double and stored in the dtype of the weights. The value between the two must have this one reader and be
// no graph output; weights, bias and parameters must be constant. A padded Conv reads zeros that the BatchNormalization
// would not have shifted, so it takes one from before only if all s are zero. Weights that others read are copied.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "ir/edit.h"
#include "ir/rewriter.h"
#include "num/channels.h"
#include "pass/linear.h"
#include "pass/pass.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

// a*v + s per channel.
struct Affine {
  Doubles a, s;
  bool shifts() const {
    return std::ranges::any_of(s, [](double value) { return value != 0; });
  }
};

bool is_matrix(const Graph& graph, std::string_view value) { return graph.type(value).rank() == 2; }

// The linear op whose result the BatchNormalization reads.
OrReason<Linear> linear_before(const Node& bn) {
  const Graph& graph = bn.graph();
  const Node maker = graph.producer(bn.input(0));
  Node node = maker, add;
  for (std::size_t slot = 0; maker && maker.is("Add") && slot < 2; ++slot) {
    const Node made = graph.producer(maker.input(slot));
    if (made && made.is("MatMul") && add_after(made) == maker) node = made, add = maker;
  }
  const bool shifted = !is_linear(node) && maker && maker.is("Add");
  if (!is_linear(node) && !shifted) return no("no Conv, ConvTranspose, Gemm or MatMul makes its input");
  if (const auto use = only_use(graph, bn.input(0)); !use) return no(use.error());
  if (shifted) return with_shift(maker);
  if (node.is("MatMul") && !is_matrix(graph, node.output(0))) return no("the result of its MatMul is not a matrix");
  return describe_linear(node, add);
}

// The linear op that reads the BatchNormalization's result.
OrReason<Linear> linear_after(const Node& bn, bool shifts) {
  const Graph& graph = bn.graph();
  const auto use = only_use(graph, bn.output(0));
  if (!use) return no(use.error());
  const Node& node = use->node;
  if (!is_linear(node) || node.is("ConvTranspose")) return no("no Conv, Gemm or MatMul reads its result");
  if (use->slot != 0) return no(fmt::format("its result is the weight of a {}", node.op()));
  if (node.is("Conv") && shifts && pads(node)) return no("the Conv that reads it pads with zeros");
  if (node.is("Gemm") && node.attr_int("transA", 0) != 0) return no("the Gemm that reads it transposes it");
  if (node.is("MatMul") && !is_matrix(graph, bn.output(0))) return no("its result is not a matrix");
  return describe_linear(node, node.is("MatMul") ? add_after(node) : Node());
}

Result<Affine> read_affine(const Node& bn) {
  std::array<Doubles, 4> values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    OP_LET(const auto tensor, bn.graph().constant(bn.input(i + 1)));
    OP_LET(values[i], to_doubles(tensor->view()));
  }
  const auto& [scale, bias, mean, variance] = values;
  const double epsilon = static_cast<double>(bn.attr_float("epsilon", 1e-5F));
  const std::size_t channels = scale.size();
  if (std::ranges::any_of(values, [&](const Doubles& v) { return v.size() != channels; })) return Affine{};
  Affine affine{Doubles(channels), Doubles(channels)};
  for (std::size_t c = 0; c < channels; ++c) {
    affine.a[c] = scale[c] / std::sqrt(variance[c] + epsilon);
    affine.s[c] = bias[c] - mean[c] * affine.a[c];
  }
  return affine;
}

// The new weights and bias of a linear op.
struct Folded {
  Tensor weight;
  Tensor bias;
  bool needs_bias = false;  // it had one or the new one is not zero
};

Result<OrReason<Folded>> compute(const Linear& linear, const Affine& affine, bool before) {
  const Graph& graph = linear.node.graph();
  const ChannelLayout& layout = linear.layout;
  if (affine.a.size() != (before ? layout.inputs() : layout.outputs()))
    return OrReason<Folded>(no(fmt::format("it has {} channels, the {} {}", affine.a.size(), linear.node.op(),
                                           before ? layout.inputs() : layout.outputs())));
  OP_LET(const auto tensor, graph.constant(linear.node.input(1)));
  OP_LET(Doubles weight, to_doubles(tensor->view()));
  OP_LET(Doubles bias, read_bias(linear));
  if (before) {
    const Doubles shift = apply_to_constant(weight, layout, affine.s);
    for (std::size_t o = 0; o < bias.size(); ++o) bias[o] += linear.alpha * shift[o];
    scale_inputs(weight, layout, affine.a);
  } else {
    for (std::size_t o = 0; o < bias.size(); ++o) bias[o] = bias[o] * affine.a[o] + affine.s[o];
    scale_outputs(weight, layout, affine.a);
  }
  OP_LET(auto new_weight, from_doubles(weight, linear.dtype, linear.dims));
  OP_LET(auto new_bias, from_doubles(bias, linear.dtype, {static_cast<std::int64_t>(bias.size())}));
  if (!new_weight || !new_bias)
    return OrReason<Folded>(no(fmt::format("the folded weights are not finite in {}", dtype_name(linear.dtype))));
  const bool zero = std::ranges::all_of(bias, [](double value) { return value == 0; });
  return Folded{std::move(*new_weight), std::move(*new_bias), !zero || !linear.bias().empty()};
}

class Fold {
 public:
  Fold(Graph& graph, PassContext& context) : graph_(graph), context_(context) {
    for (const Node& node : graph.nodes())
      if (node.is("BatchNormalization") && context.selected(node)) waiting_.push_back(node);
  }

  // One fold can make room for another (two BatchNormalizations in a row), so rounds go on until one does nothing.
  Result<bool> run() {
    bool changed = false;
    std::vector<std::pair<Node, std::string>> reasons;
    for (bool again = true; again;) {
      again = false;
      reasons.clear();
      for (const Node& bn : std::exchange(waiting_, {})) {
        OP_LET(std::string reason, fold(bn));
        again |= reason.empty();
        if (reason.empty()) continue;
        waiting_.push_back(bn);
        reasons.emplace_back(bn, std::move(reason));
      }
      changed |= again;
    }
    for (const auto& [bn, reason] : reasons) context_.skipped(bn, reason);
    return changed;
  }

 private:
  // "" when done, else why not.
  Result<std::string> fold(const Node& bn) {
    if (std::string reason = batchnorm_refusal(bn); !reason.empty()) return reason;
    OP_LET(const Affine affine, read_affine(bn));
    std::string reasons;
    for (const bool before : {false, true}) {
      const OrReason<Linear> linear = before ? linear_after(bn, affine.shifts()) : linear_before(bn);
      std::string reason = linear ? selection(*linear) : linear.error();
      if (reason.empty()) {
        OP_LET(OrReason<Folded> folded, compute(*linear, affine, before));
        if (folded) {
          OP_TRY(apply(bn, *linear, std::move(*folded), before));
          return std::string();
        }
        reason = folded.error();
      }
      reasons += (reasons.empty() ? "" : "; ") + reason;
    }
    return reasons;
  }

  std::string selection(const Linear& linear) const {
    for (const Selection* selection : context_.selections)
      for (const Node& node : {linear.node, linear.shift ? linear.shift : linear.last()})
        if (const std::string reason = selection->refusal(node); !reason.empty())
          return fmt::format("{}: {}", node.label(), reason);
    return {};
  }

  Status apply(const Node& bn, const Linear& linear, Folded folded, bool before) {
    context_.done(bn, fmt::format("folded into {}", linear.node.label()));
    Rewriter rewriter(graph_);
    const std::string input(bn.input(0)), output(bn.output(0));
    drop_parameters(rewriter, bn);
    if (linear.beta != 1 && folded.needs_bias) rewriter.set_attribute(linear.node, "beta", 1.0F);
    set_constant(rewriter, linear.node, 1, std::move(folded.weight), "weight");
    const bool add = folded.needs_bias && !linear.bias_node;
    if (folded.needs_bias && !add)
      set_constant(rewriter, linear.bias_node, linear.bias_slot, std::move(folded.bias),
                   fmt::format("{}_bias", linear.node.output(0)));
    if (before) {
      rewriter.set_input(linear.node, 0, input);
      rewriter.forget_type(output);
      rewriter.erase(bn);
      if (add) add_bias_behind(rewriter, linear.node, std::move(folded.bias));
    } else if (add) {
      const std::string bias = new_constant(rewriter, output + "_bias", std::move(folded.bias));
      rewriter.set_op(bn, "Add");
      rewriter.set_input(bn, 1, bias);
      rewriter.remove_last_inputs(bn, 2);
    } else {
      if (linear.shift) drop_shift(rewriter, linear);
      rewriter.set_output(linear.last(), 0, output);
      rewriter.forget_type(input);
      rewriter.erase(bn);
    }
    OP_TRY(rewriter.commit());
    return {};
  }

  static std::string new_constant(Rewriter& rewriter, std::string_view base, Tensor value) {
    std::string name = rewriter.fresh_value(base);
    rewriter.add_initializer(name, std::move(value));
    return name;
  }

  // The Add is in the bias now.
  void drop_shift(Rewriter& rewriter, const Linear& linear) const {
    const Node& add = linear.shift;
    rewriter.forget_type(linear.node.output(0));
    const std::string value(add.input(graph_.is_constant(add.input(1)) ? 1 : 0));
    if (is_private_constant(graph_, value, [&](const Use& use) { return use.node == add; }))
      drop_constant(rewriter, graph_, value);
    rewriter.erase(add);
  }

  // The parameters that only this BatchNormalization read, each once.
  void drop_parameters(Rewriter& rewriter, const Node& bn) const {
    std::vector<std::string> names = bn.inputs();
    names.erase(names.begin());
    std::ranges::sort(names);
    names.erase(std::ranges::unique(names).begin(), names.end());
    for (const std::string& name : names)
      if (is_private_constant(graph_, name, [&](const Use& use) { return use.node == bn; }))
        drop_constant(rewriter, graph_, name);
  }

  Graph& graph_;
  PassContext& context_;
  std::vector<Node> waiting_;
};

class FoldBatchnorm final : public Pass {
 public:
  Result<Outcome> run(Model& model, PassContext& context) const override {
    Outcome outcome;
    for (Graph* graph : model.graphs()) {
      OP_LET(const bool changed, Fold(*graph, context).run());
      outcome.changed |= changed;
    }
    return outcome;
  }
};

}  // namespace

PassInfo info_fold_batchnorm() {
  return describe_pass<FoldBatchnorm>(
      {.summary = "Folds BatchNormalization into the linear op before or after it",
       .description =
           "t = Conv(x, W, b); y = BatchNormalization(t, scale, B, mean, var)  =>  y = Conv(x, W', b')\n\n"
           "With a = scale / sqrt(var + epsilon) and s = B - mean * a: into a Conv, ConvTranspose, Gemm, MatMul or "
           "MatMul+Add before it, W' = a * W and b' = a * b + s over the output channels (an Add of one "
           "number per channel between the two is part of b and goes too); into a Conv, Gemm, MatMul "
           "or MatMul+Add after it, W' = W * a over the input channels and b' = b + W * s. Computed in double. "
           "Weights that other nodes read are copied first. Never touched: BatchNormalization in training mode or "
           "with spatial=0, inside functions, with parameters, weights or bias that are not constant, next to a "
           "value with other readers, and before a Conv that pads (unless nothing is shifted).",
       .example = "fold-batchnorm",
       .references = {"https://arxiv.org/abs/1712.05877"}});
}

}  // namespace onnxpress
