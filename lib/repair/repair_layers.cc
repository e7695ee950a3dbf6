#include "repair/repair_layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "calib/channel_mean.h"
#include "ir/edit.h"

namespace onnxpress {
namespace {

using Doubles = std::vector<double>;

// Ops that give each channel its own numbers, or move numbers: what is left is as it was when others are cut away.
constexpr std::array<std::string_view, 45> kKeepNumbers = {
    "Abs",           "Add",          "AveragePool", "BatchNormalization",
    "Cast",          "Ceil",         "Clip",        "Concat",
    "Constant",      "DepthToSpace", "Div",         "Dropout",
    "Elu",           "Erf",          "Exp",         "Expand",
    "Flatten",       "Floor",        "Gelu",        "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid",  "HardSwish",   "Identity",
    "LeakyRelu",     "MaxPool",      "Mish",        "Mul",
    "Neg",           "PRelu",        "Pad",         "Pow",
    "Relu",          "Reshape",      "Resize",      "Sigmoid",
    "Slice",         "Softplus",     "Split",       "Sqrt",
    "Squeeze",       "Sub",          "Tanh",        "Transpose",
    "Unsqueeze"};

constexpr double kFlat = 1e-6;  // of the largest scale: a channel that a BatchNormalization all but switches off

bool keeps_numbers(const Node& node) {
  return std::ranges::any_of(kKeepNumbers, [&](std::string_view op) { return node.is(op); });
}

Result<Doubles> constant_doubles(const Node& node, std::size_t slot) {
  OP_LET(const auto tensor, node.graph().constant(node.input(slot)));
  if (!tensor) return fail(Code::bad_input, "node '{}': its input {} is not constant", node.label(), slot);
  return to_doubles(tensor->view());
}

struct Affine {
  Doubles scale, offset;
  Doubles mean, deviation;
};

// y = scale * x + offset for each channel.
Result<Affine> affine_of(const Node& norm) {
  OP_LET(const Doubles gain, constant_doubles(norm, 1));
  OP_LET(const Doubles shift, constant_doubles(norm, 2));
  Affine out;
  OP_LET(out.mean, constant_doubles(norm, 3));
  OP_LET(out.deviation, constant_doubles(norm, 4));
  if (shift.size() != gain.size() || out.mean.size() != gain.size() || out.deviation.size() != gain.size())
    return fail(Code::bad_input, "node '{}': its parameters differ in length", norm.label());
  const double epsilon = static_cast<double>(norm.attr_float("epsilon", 1e-5F));
  for (std::size_t c = 0; c < gain.size(); ++c) {
    out.deviation[c] = std::sqrt(out.deviation[c] + epsilon);
    out.scale.push_back(gain[c] / out.deviation[c]);
    out.offset.push_back(shift[c] - out.mean[c] * out.scale[c]);
  }
  return out;
}

// Finds the layers, front to back, by what is known of the values so far.
class Finder {
 public:
  Finder(const Model& model, const Model& original, const KeptAxes& kept, bool keep_zeros, bool behind,
         PassContext& context)
      : model_(model), original_(original), kept_(kept), keep_zeros_(keep_zeros), behind_(behind), context_(context) {}

  Result<std::vector<std::vector<RepairLayer>>> run() {
    for (const Node& node : model_.main().nodes()) {
      Facts facts;
      const std::vector<std::string> inputs = node.inputs();
      for (const std::string& input : inputs) facts.add(input.empty() ? Facts{} : facts_of(input));
      if (node.has_subgraph()) facts.add(worst_);  // a body may read anything
      OP_TRY(visit(node, facts));
      for (const std::string& output : node.outputs()) values_[output] = facts;
      worst_.add(facts);
    }
    std::vector<std::vector<RepairLayer>> ordered;
    for (auto& [at, layers] : levels_) {
      for (RepairLayer& layer : layers) OP_TRY(look_behind(layer, at));
      ordered.push_back(std::move(layers));
    }
    return ordered;
  }

 private:
  struct Facts {
    bool off = false;       // its numbers are not the original's
    bool stale = false;     // they were changed by something that is not refitted
    std::size_t depth = 0;  // layers on the longest way to it

    void add(const Facts& other) {
      off = off || other.off;
      stale = stale || other.stale;
      depth = std::max(depth, other.depth);
    }
  };

  Facts facts_of(const std::string& value) const {
    const auto found = values_.find(value);
    return found == values_.end() ? Facts{} : found->second;
  }

  bool is_cut(std::string_view value) const { return kept_.touches(TensorRef{std::string(value), {}, 0}); }

  // Turns what is known of the inputs of a node into what is known of its outputs.
  Status visit(const Node& node, Facts& facts) {
    const Node before = counterpart(node, original_);
    if (is_linear(node) && node.graph().is_constant(node.input(1))) {
      OP_LET(const bool changed, weight_changed(node, before));
      if (!facts.off && !changed) return {};
      facts.off = true;
      if (!changed && !behind_) return {};
      const OrReason<RepairLayer> layer = describe(node, before);
      settle(node, layer, facts);
    } else if (node.is("BatchNormalization") && facts.stale) {
      settle(node, describe(node, before), facts);
    } else {
      OP_LET(const bool changed, constants_changed(node, before));
      const bool mixes = !keeps_numbers(node) &&
                         std::ranges::any_of(node.inputs(), [&](const std::string& input) { return is_cut(input); });
      facts.off = facts.off || changed || mixes;
      facts.stale = facts.stale || changed || mixes;
    }
    return {};
  }

  void settle(const Node& node, const OrReason<RepairLayer>& layer, Facts& facts) {
    std::string reason = layer ? std::string() : layer.error();
    for (const Selection* selection : context_.selections)
      if (reason.empty()) reason = Selection{.only = {}, .skip = selection->skip}.refusal(node);
    facts.stale = !reason.empty();
    if (!reason.empty()) {
      context_.skipped(node, "not refitted: " + reason);
      return;
    }
    levels_[facts.depth].push_back(*layer);
    ++facts.depth;
  }

  // Whether what is left of the weights has other numbers than in the original, or lost inputs.
  Result<bool> weight_changed(const Node& node, const Node& before) const {
    if (!before || !before.graph().is_constant(before.input(1)) || before.input(0) != node.input(0)) return true;
    OP_LET(const auto now, node.graph().constant(node.input(1)));
    OP_LET(const auto then, before.graph().constant(before.input(1)));
    if (now->dims() == then->dims()) return !std::ranges::equal(now->bytes(), then->bytes());
    const auto a = describe_linear(node, {}), b = describe_linear(before, {});
    if (!a || !b || node.is("ConvTranspose")) return true;
    const std::size_t length = a->layout.outputs() == 0 ? 0 : now->size() / a->layout.outputs();
    if (length * b->layout.outputs() != then->size()) return true;
    OP_LET(const Doubles left, read_weight_rows(*a));
    OP_LET(const Doubles all, read_weight_rows(*b));
    const auto channels = left_of(node.output(0));
    if (!channels || channels->size() != a->layout.outputs()) return true;
    for (std::size_t c = 0; c < channels->size(); ++c)
      if (!std::equal(left.begin() + static_cast<std::ptrdiff_t>(c * length),
                      left.begin() + static_cast<std::ptrdiff_t>((c + 1) * length),
                      all.begin() + static_cast<std::ptrdiff_t>((*channels)[c] * length)))
        return true;
    return false;
  }

  // Whether a constant of the same shape has other numbers than in the original, or a value comes from elsewhere.
  Result<bool> constants_changed(const Node& node, const Node& before) const {
    if (!before || before.input_count() != node.input_count()) return true;
    for (std::size_t slot = 0; slot < node.input_count(); ++slot) {
      const auto type = node.graph().constant_type(node.input(slot));
      if (type && is_integer(type->first)) continue;  // a literal: a size, an axis
      const bool constant = type.has_value();
      if (constant != before.graph().is_constant(before.input(slot))) return true;
      if (!constant && node.input(slot) != before.input(slot)) return true;
      if (!constant) continue;
      OP_LET(const auto now, node.graph().constant(node.input(slot)));
      OP_LET(const auto then, before.graph().constant(before.input(slot)));
      // What was cut is judged by what reads it.
      if (now->dims() == then->dims() && !std::ranges::equal(now->bytes(), then->bytes())) return true;
    }
    return false;
  }

  // What the value kept of its one cut axis; nullptr when it was cut along several, or not at all.
  const Indices* left_of(std::string_view value) const {
    const Indices* found = nullptr;
    for (const auto& [axis, indices] : kept_.all()) {
      if (axis.first != TensorRef{std::string(value), {}, 0}) continue;
      if (found != nullptr) return nullptr;
      found = &indices;
    }
    return found;
  }

  OrReason<RepairLayer> describe(const Node& node, const Node& before) const {
    if (!before) return no("the original has no such node");
    RepairLayer layer;
    if (node.is("BatchNormalization")) {
      if (const std::string reason = batchnorm_refusal(node); !reason.empty()) return no(reason);
      const auto type = node.graph().constant_type(node.input(1));
      const auto channels = static_cast<std::size_t>(element_count(type->second).value_or(0));
      layer = {.node = node, .normalizes = true, .can_shift = true};
      layer.regression.shape = {.groups = channels, .length = 1, .outputs = channels};
    } else {
      OrReason<RepairLayer> found = changeable_layer(node, keep_zeros_);
      if (!found) return found;
      layer = std::move(*found);
    }
    layer.axis = layer.normalizes || node.is("Conv") ? 1 : -1;
    layer.input = node.input(0);
    layer.target = layer.normalizes ? node.output(0) : layer.linear.last().output(0);
    if (!original_.main().producer(layer.target)) return no("the original has no such value");
    if (is_cut(layer.target)) {
      const Indices* channels = left_of(layer.target);
      if (channels == nullptr || channels->size() != layer.regression.shape.outputs)
        return no("its result was cut along another axis than its channels");
      layer.channels = *channels;
    }
    return layer;
  }

  // The BatchNormalization, sum and clipping that what comes out of the layer goes through next.
  Status look_behind(RepairLayer& layer, std::size_t depth) const {
    const Graph& graph = model_.main();
    std::string value = layer.target;
    OrReason<Use> use = only_use(graph, value);
    Regression& regression = layer.regression;
    const bool norm = use && use->slot == 0 && use->node.is("BatchNormalization") && !layer.normalizes &&
                      layer.axis == 1 && batchnorm_refusal(use->node).empty();
    if (norm) {
      OP_LET(const Affine affine, affine_of(use->node));
      double largest = 0;
      for (const double scale : affine.scale) largest = std::max(largest, std::abs(scale));
      layer.norm_behind = use->node;
      const bool live = std::ranges::all_of(affine.scale, [&](double a) { return std::abs(a) > kFlat * largest; });
      if (!live || affine.scale.size() != regression.shape.outputs) return {};
      regression.scale = affine.scale;
      regression.offset = affine.offset;
      value = use->node.output(0);
      use = only_use(graph, value);
    }
    if (use && use->node.is("Add")) {
      const std::string other(use->node.input(1 - use->slot));
      const Node before = counterpart(use->node, original_);
      const bool same = before && before.inputs() == use->node.inputs();
      // Its other side has to be as it will stay.
      if (same && graph.producer(other) && facts_of(other).depth <= depth && values_.contains(other) &&
          same_shape(graph.type(value), graph.type(other))) {
        layer.shortcut = other;
        value = use->node.output(0);
        use = only_use(graph, value);
      }
    }
    if (const auto bounds = use ? activation_bounds(use->node) : std::nullopt) set_bounds(regression, *bounds);
    if (!layer.shortcut.empty()) {
      layer.target = value;
    } else {  // the target is the result itself
      regression.scale.clear();
      regression.offset.clear();
    }
    return {};
  }

  // In terms of the layer's own result, which scale and offset turn into what is clipped.
  static void set_bounds(Regression& regression, const Bounds& bounds) {
    for (std::size_t c = 0; c < regression.shape.outputs; ++c) {
      const double scale = regression.scale.empty() ? 1 : regression.scale[c];
      const double offset = regression.offset.empty() ? 0 : regression.offset[c];
      const double a = (bounds.low - offset) / scale, b = (bounds.high - offset) / scale;
      regression.low.push_back(std::min(a, b));
      regression.high.push_back(std::max(a, b));
    }
  }

  static bool same_shape(const ValueType& a, const ValueType& b) { return a.shape && b.shape && *a.shape == *b.shape; }

  const Model& model_;
  const Model& original_;
  const KeptAxes& kept_;
  bool keep_zeros_, behind_;
  PassContext& context_;
  std::unordered_map<std::string, Facts> values_;
  Facts worst_;
  std::map<std::size_t, std::vector<RepairLayer>> levels_;
};

}  // namespace

Node counterpart(const Node& node, const Model& original) {
  const Node found = original.main().producer(reader_key(node));
  return found && found.op() == node.op() && found.domain() == node.domain() ? found : Node();
}

OrReason<RepairLayer> changeable_layer(const Node& node, bool keep_size) {
  if (node.is("ConvTranspose")) return no("ConvTranspose is not refitted");
  const OrReason<Linear> linear = changeable_linear(node);
  if (!linear) return no(linear.error());
  if (linear->beta == 0) return no("its beta is 0");
  RepairLayer layer{.node = node, .linear = *linear};
  layer.regression.shape = patch_shape(node, linear->dims);
  const auto use = only_use(node.graph(), linear->last().output(0));
  const bool norm = use && use->slot == 0 && use->node.is("BatchNormalization") && node.is("Conv") &&
                    batchnorm_refusal(use->node).empty();
  const bool optional = node.is("Conv") || (node.is("Gemm") && node.graph().model().opset() >= 11);
  layer.can_shift = !linear->bias().empty() || norm || (optional && !keep_size);
  if (norm) layer.norm_behind = use->node;
  return layer;
}

Result<std::vector<std::vector<RepairLayer>>> repair_levels(const Model& model, const Model& original,
                                                            const KeptAxes& kept, bool keep_zeros, bool behind,
                                                            PassContext& context) {
  return Finder(model, original, kept, keep_zeros, behind, context).run();
}

Result<LinearWeights> read_weights(const RepairLayer& layer) {
  LinearWeights out;
  if (layer.normalizes) {
    OP_LET(Affine affine, affine_of(layer.node));
    return LinearWeights{std::move(affine.scale), std::move(affine.offset)};
  }
  OP_LET(out.weight, read_weight_rows(layer.linear));
  OP_LET(out.bias, read_bias(layer.linear));
  return out;
}

namespace {

Result<bool> write_norm(const RepairLayer& layer, const LinearWeights& weights, Rewriter& rewriter) {
  OP_LET(const Affine affine, affine_of(layer.node));
  Doubles gain, shift;
  for (std::size_t c = 0; c < weights.weight.size(); ++c) {
    gain.push_back(weights.weight[c] * affine.deviation[c]);
    shift.push_back(weights.bias[c] + affine.mean[c] * weights.weight[c]);
  }
  const auto type = [&](std::size_t slot) { return *layer.node.graph().constant_type(layer.node.input(slot)); };
  OP_LET(auto scale, from_doubles(gain, type(1).first, type(1).second));
  OP_LET(auto bias, from_doubles(shift, type(2).first, type(2).second));
  if (!scale || !bias) return false;
  set_constant(rewriter, layer.node, 1, std::move(*scale), "scale");
  set_constant(rewriter, layer.node, 2, std::move(*bias), "bias");
  return true;
}

// A BatchNormalization of y + b is one of y with b taken off its mean.
Result<bool> write_shift_behind(const RepairLayer& layer, const Doubles& bias, Rewriter& rewriter) {
  OP_LET(Doubles mean, constant_doubles(layer.norm_behind, 3));
  for (std::size_t c = 0; c < mean.size(); ++c) mean[c] -= bias[c];
  const auto type = *layer.node.graph().constant_type(layer.norm_behind.input(3));
  OP_LET(auto tensor, from_doubles(mean, type.first, type.second));
  if (tensor) set_constant(rewriter, layer.norm_behind, 3, std::move(*tensor), "mean");
  return tensor.has_value();
}

}  // namespace

Result<bool> write_weights(const RepairLayer& layer, const LinearWeights& weights, bool with_weight,
                           Rewriter& rewriter) {
  if (layer.normalizes) return write_norm(layer, weights, rewriter);
  const Linear& linear = layer.linear;
  std::optional<Tensor> weight, bias;
  if (with_weight) {
    OP_LET(weight, weight_of_rows(linear, weights.weight));
    if (!weight) return false;
  }
  if (layer.can_shift && linear.bias().empty() && layer.norm_behind) {
    OP_LET(const bool written, write_shift_behind(layer, weights.bias, rewriter));
    if (!written) return false;
  } else if (layer.can_shift) {
    Doubles values = weights.bias;
    for (double& value : values) value /= linear.beta;
    Dims dims = {static_cast<std::int64_t>(values.size())};
    DType dtype = linear.dtype;
    if (const auto type = linear.node.graph().constant_type(linear.bias())) {
      dtype = type->first;
      if (element_count(type->second) == values.size()) dims = type->second;
    }
    OP_LET(bias, from_doubles(values, dtype, dims));
    if (!bias) return false;
    set_constant(rewriter, linear.bias_node, linear.bias_slot, std::move(*bias), linear.node.label() + "_bias");
  }
  if (weight) set_constant(rewriter, linear.node, 1, std::move(*weight), "weight");
  return true;
}

}  // namespace onnxpress
