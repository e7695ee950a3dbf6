#include "repair/compensate.h"

#include <algorithm>
#include <cmath>

#include "calib/channel_mean.h"
#include "repair/repair_layers.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

// The axis of the weight along which inputs lie.
std::size_t input_axis(const Node& node) {
  return node.is("Conv") || (node.is("Gemm") && node.attr_int("transB", 0) != 0) ? 1 : 0;
}

// What the removed inputs of the original layer give on average to each of its outputs; empty when nothing tells.
Result<Doubles> lost_means(const Linear& before, const Indices& kept) {
  const auto means = mean_from_batchnorm(before.node.graph(), before.node.input(0));
  const std::size_t inputs = before.layout.inputs();
  if (!means || means->empty() || inputs % means->size() != 0) return Doubles{};
  Doubles lost(inputs);
  // Inputs of one channel lie together: the positions before a Flatten.
  for (std::size_t i = 0; i < inputs; ++i) lost[i] = (*means)[i / (inputs / means->size())];
  for (const std::uint32_t i : kept) lost[i] = 0;
  OP_LET(const auto tensor, before.node.graph().constant(before.node.input(1)));
  OP_LET(Doubles weight, to_doubles(tensor->view()));
  for (double& value : weight) value *= before.alpha;
  return apply_to_constant(weight, before.layout, lost);
}

}  // namespace

Result<bool> compensate_means(Model& model, const Model& original, const KeptAxes& kept, PassContext& context) {
  bool changed = false;
  for (const Node& node : std::vector<Node>(model.main().nodes())) {
    const Node before = is_linear(node) && !node.is("ConvTranspose") ? counterpart(node, original) : Node();
    if (!before || before.attr_int("group", 1) != 1) continue;
    const Indices* inputs = kept.find(input_ref(before, 1), input_axis(before));
    if (inputs == nullptr) continue;
    const auto linear = describe_linear(before, {});
    const auto layer = changeable_layer(node, false);
    if (!linear || !layer || !layer->can_shift) continue;
    OP_LET(const Doubles all, lost_means(*linear, *inputs));
    const Indices* outputs = kept.find(input_ref(before, 1), node.is("Conv") ? 0 : 1 - input_axis(before));
    if (all.empty() || (outputs == nullptr ? all.size() : outputs->size()) != layer->regression.shape.outputs) continue;
    OP_LET(LinearWeights weights, read_weights(*layer));
    double largest = 0;
    for (std::size_t c = 0; c < weights.bias.size(); ++c) {
      const double shift = all[outputs == nullptr ? c : (*outputs)[c]];
      weights.bias[c] += shift;
      largest = std::max(largest, std::abs(shift));
    }
    if (largest == 0 || !std::isfinite(largest)) continue;
    Rewriter rewriter(model.main());
    OP_LET(const bool written, write_weights(*layer, weights, false, rewriter));
    if (!written) continue;
    OP_LET(const bool one, rewriter.commit());
    changed |= one;
    context.done(node,
                 fmt::format("biases shifted by up to {:.3g} for what the removed inputs gave on average", largest));
  }
  return changed;
}

}  // namespace onnxpress
