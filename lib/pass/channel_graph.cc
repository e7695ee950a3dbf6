#include "pass/channel_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "ir/edit.h"
#include "ir/rewriter.h"

namespace onnxpress {
namespace {

bool one_of(std::string_view op, std::span<const std::string_view> list) { return std::ranges::contains(list, op); }

// f(s x) = s f(x) for s > 0, element by element.
constexpr std::array<std::string_view, 7> kSame = {"Relu", "LeakyRelu", "PRelu", "Identity", "Abs", "Neg", "Dropout"};
constexpr std::array<std::string_view, 5> kPools = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
                                                    "GlobalLpPool"};
constexpr std::array<std::string_view, 4> kJoin = {"Add", "Sub", "Sum", "Max"};
constexpr std::array<std::string_view, 3> kReduce = {"ReduceMean", "ReduceSum", "ReduceMax"};

std::optional<std::vector<std::int64_t>> constant_ints(const Graph& graph, std::string_view value) {
  const auto tensor = graph.constant(value);
  if (!tensor || !*tensor) return std::nullopt;
  const auto values = to_int64s((*tensor)->view());
  if (!values) return std::nullopt;
  return *values;
}

std::optional<double> constant_scalar(const Graph& graph, std::string_view value) {
  const auto tensor = graph.constant(value);
  if (!tensor || !*tensor || (*tensor)->size() != 1) return std::nullopt;
  const auto values = to_doubles((*tensor)->view());
  return values ? std::optional(values->front()) : std::nullopt;
}

// Attribute before, input since some opset.
std::optional<std::vector<std::int64_t>> ints_of(const Node& node, std::string_view key, std::size_t slot) {
  if (node.has_attr(key)) return node.attr_ints(key);
  return node.input(slot).empty() ? std::nullopt : constant_ints(node.graph(), node.input(slot));
}

// The axis of `to` that holds what lay along `axis` of `from` after a reshape: the same extent with as many elements
// behind it. `repeat` elements that lay behind may have been merged into it (Flatten).
struct Moved {
  std::int64_t axis = 0;
  std::size_t repeat = 1;
};
std::optional<Moved> moved(const ValueType& from, const ValueType& to, std::int64_t axis) {
  if (!from.shape || !to.shape || axis < 0) return std::nullopt;
  const auto channels = from.dim(static_cast<std::size_t>(axis));
  std::int64_t behind = 1;
  for (std::size_t i = static_cast<std::size_t>(axis) + 1; i < from.shape->size(); ++i) {
    const auto extent = from.dim(i);
    if (!extent) return std::nullopt;
    behind *= *extent;
  }
  if (!channels || behind < 1) return std::nullopt;
  std::int64_t left = behind;
  for (std::size_t i = to.shape->size(); i-- > 0;) {
    const auto extent = to.dim(i);
    if (!extent || *extent < 1) return std::nullopt;
    if (*extent == *channels * left)
      return Moved{static_cast<std::int64_t>(i), static_cast<std::size_t>(left)};
    if (left % *extent != 0) return std::nullopt;
    left /= *extent;
  }
  return std::nullopt;
}

bool all_ones(const std::vector<double>& factors) {
  return std::ranges::all_of(factors, [](double factor) { return factor == 1; });
}

std::string not_finite(const Node& node) { return fmt::format("{}: a scaled weight is not finite", node.label()); }

}  // namespace

ChannelGraph::ChannelGraph(Graph& graph, PassContext& context, Options options)
    : graph_(graph), context_(context), options_(options), parent_{0} {
  for (const Node& node : graph_.nodes()) visit(node);
  fix_outside_readers();
}

std::size_t ChannelGraph::root(std::size_t id) const {
  while (parent_[id] != id) id = parent_[id];
  return id;
}

const std::string& ChannelGraph::reason(std::size_t id) const {
  for (;; id = parent_[id]) {
    if (const auto found = reasons_.find(id); found != reasons_.end()) return found->second;
    if (parent_[id] == id) return none_;
  }
}

void ChannelGraph::unite(std::size_t a, std::size_t b) {
  a = root(a), b = root(b);
  if (a == b) return;
  if (b == 0) std::swap(a, b);
  if (a == 0 && !reasons_.contains(b)) reasons_[b] = "it is added to or joined with a value whose scale is fixed";
  parent_[std::max(a, b)] = std::min(a, b);
}

void ChannelGraph::fix(const ChannelIds& ids, const std::string& why) {
  for (const std::size_t id : ids) {
    const std::size_t top = root(id);
    if (top == 0) continue;
    reasons_[top] = why;
    parent_[top] = 0;
  }
}

ChannelIds ChannelGraph::fresh(std::size_t count) {
  ChannelIds ids(count);
  for (std::size_t& id : ids) {
    id = parent_.size();
    parent_.push_back(id);
  }
  return ids;
}

const ChannelGraph::Value* ChannelGraph::find(std::string_view value) const {
  const auto found = values_.find(std::string(value));
  return found == values_.end() ? nullptr : &found->second;
}

std::int64_t ChannelGraph::normal(std::string_view value, std::int64_t axis) const {
  const auto rank = graph_.type(value).rank();
  return axis < 0 && rank ? axis + static_cast<std::int64_t>(*rank) : axis;
}

void ChannelGraph::visit(const Node& node) {
  if (std::ranges::contains(claimed_, node)) return;
  if (visit_layer(node) || (options_.affine && visit_affine(node))) return;
  const bool known = std::ranges::any_of(node.inputs(), [&](const std::string& in) { return find(in) != nullptr; });
  if (!known) return;
  if (node.domain().empty() && (visit_same(node) || visit_clip(node) || visit_shape(node) || visit_joined(node) ||
                                visit_product(node) || visit_concat(node)))
    return;
  refuse(node);
}

void ChannelGraph::refuse(const Node& node) {
  for (const std::string& input : node.inputs())
    if (const Value* value = find(input))
      fix(value->ids, fmt::format("{} reads it, through which no scale can be moved", node.label()));
}

bool ChannelGraph::visit_layer(const Node& node) {
  if (!is_linear(node)) return false;
  for (const Selection* selection : context_.selections)
    if (!selection->refusal(node).empty()) return false;
  const auto linear = describe_linear(node, node.is("MatMul") ? add_after(node) : Node());
  if (!linear || (node.is("Gemm") && node.attr_int("transA", 0) != 0)) return false;
  const auto mine = [&](const Use& use) { return use.node == node && use.slot == 1; };
  if (!is_private_constant(graph_, node.input(1), mine)) return false;
  ChannelLayer layer;
  layer.linear = *linear;
  layer.input = std::string(node.input(0));
  layer.output = std::string(layer.linear.last().output(0));
  layer.in_axis = normal(layer.input, node.is("MatMul") ? -1 : 1);
  layer.out_axis = normal(layer.output, node.is("MatMul") ? -1 : 1);
  const ChannelLayout& layout = layer.linear.layout;
  const Value* in = find(layer.input);
  if (in != nullptr && in->axis == layer.in_axis && in->ids.size() == layout.inputs()) {
    layer.in = in->ids;
  } else {
    if (in != nullptr) refuse(node);
    layer.in.assign(layout.inputs(), 0);
  }
  layer.out = fresh(layout.outputs());
  values_[layer.output] = {layer.out_axis, layer.out};
  if (layer.linear.last() != node) claimed_.push_back(layer.linear.last());
  layers_.push_back(std::move(layer));
  return true;
}

bool ChannelGraph::visit_affine(const Node& node) {
  std::vector<std::size_t> slots;
  std::int64_t axis = -1;
  const bool norm = node.is("LayerNormalization") || node.is("SimplifiedLayerNormalization") ||
                    node.is("RMSNormalization");
  if (norm && node.attr_int("axis", -1) == normal(node.input(0), -1)) return false;
  if (norm && node.attr_int("axis", -1) == -1) {
    slots = {1};
    if (!node.input(2).empty()) slots.push_back(2);
  } else if (node.is("BatchNormalization") && batchnorm_refusal(node).empty()) {
    slots = {1, 2};
    axis = 1;
  } else if (node.is("Mul")) {
    for (const std::size_t slot : {0UZ, 1UZ})
      if (graph_.is_constant(node.input(slot)) && find(node.input(1 - slot)) == nullptr) slots = {slot};
  }
  if (slots.empty()) return false;
  const std::string output(node.output(0));
  axis = normal(output, axis);
  std::size_t channels = 0;
  for (const std::size_t slot : slots) {
    const auto type = graph_.constant_type(node.input(slot));
    const auto mine = [&](const Use& use) { return use.node == node; };
    if (!type || type->second.empty() || !is_float(type->first) || bit_width(type->first) < 16) return false;
    channels = static_cast<std::size_t>(type->second.back());
    if (channels < 2 || element_count(type->second) != channels) return false;
    if (!is_private_constant(graph_, node.input(slot), mine)) return false;
  }
  const auto rank = graph_.type(output).rank();
  if (!rank || axis < 0 || graph_.type(output).dim(static_cast<std::size_t>(axis)) != channels) return false;
  for (const Selection* selection : context_.selections)
    if (!selection->refusal(node).empty()) return false;
  for (const std::string& input : node.inputs())
    if (find(input) != nullptr) refuse(node);
  affines_.push_back({node, slots, fresh(channels)});
  values_[output] = {axis, affines_.back().out};
  return true;
}

bool ChannelGraph::visit_same(const Node& node) {
  const Value* in = find(node.input(0));
  if (in == nullptr) return false;
  const bool pool = one_of(node.op(), kPools) && in->axis == 1;
  bool resize = (node.is("Resize") || node.is("Upsample")) && keeps_channels(node, in->axis);
  resize = resize && node.attr_string("coordinate_transformation_mode", "") != "tf_crop_and_resize";
  if (!one_of(node.op(), kSame) && !pool && !resize) return false;
  for (std::size_t i = 1; i < node.input_count(); ++i)
    if (find(node.input(i)) != nullptr) return false;
  values_[std::string(node.output(0))] = *in;
  return true;
}

bool ChannelGraph::keeps_channels(const Node& node, std::int64_t axis) const {
  if (axis < 0) return false;
  const auto at = static_cast<std::size_t>(axis);
  const auto before = graph_.type(node.input(0)).dim(at), after = graph_.type(node.output(0)).dim(at);
  return before && before == after;
}

bool ChannelGraph::visit_clip(const Node& node) {
  const Value* in = find(node.input(0));
  if (!node.is("Clip") || in == nullptr) return false;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::optional<double> low, high = infinity;
  if (graph_.model().opset() < 11) {
    low = static_cast<double>(node.attr_float("min", -1));
    high = static_cast<double>(node.attr_float("max", std::numeric_limits<float>::max()));
  } else {
    low = constant_scalar(graph_, node.input(1));
    if (!node.input(2).empty()) high = constant_scalar(graph_, node.input(2));
  }
  if (low != 0.0 || !high || !(*high > 0)) return false;
  const Value value = *in;
  values_[std::string(node.output(0))] = value;
  if (*high < 1e30) bounds_.push_back({node, *high, value.axis, value.ids});
  return true;
}

bool ChannelGraph::visit_shape(const Node& node) {
  const Value* in = find(node.input(0));
  if (in == nullptr || in->axis < 0) return false;
  const ValueType from = graph_.type(node.input(0)), to = graph_.type(node.output(0));
  Value out = *in;
  if (node.is("Transpose")) {
    std::vector<std::int64_t> perm = node.attr_ints("perm");
    if (perm.empty() && from.shape)
      for (std::size_t i = from.shape->size(); i-- > 0;) perm.push_back(static_cast<std::int64_t>(i));
    const auto found = std::ranges::find(perm, in->axis);
    if (found == perm.end()) return false;
    out.axis = found - perm.begin();
  } else if (node.is("Reshape") || node.is("Flatten") || node.is("Squeeze") || node.is("Unsqueeze")) {
    const auto place = moved(from, to, in->axis);
    if (!place) return false;
    out.axis = place->axis;
    out.ids.clear();
    for (const std::size_t id : in->ids) out.ids.insert(out.ids.end(), place->repeat, id);
  } else if (node.is("Pad")) {
    const auto pads = ints_of(node, "pads", 1);
    const auto rank = from.rank();
    const bool all_axes = node.input(3).empty();
    if (!pads || !rank || pads->size() != 2 * *rank || !all_axes) return false;
    const auto at = static_cast<std::size_t>(in->axis);
    if ((*pads)[at] != 0 || (*pads)[at + *rank] != 0) return false;
    const bool zero = graph_.model().opset() < 11 ? node.attr_float("value", 0) == 0
                                                  : node.input(2).empty() || constant_scalar(graph_, node.input(2)) == 0.0;
    if (node.attr_string("mode", "constant") == "constant" && !zero) return false;
  } else if (one_of(node.op(), kReduce)) {
    const auto axes = ints_of(node, "axes", 1);
    const auto rank = from.rank();
    if (!axes || !rank) return false;
    std::int64_t before = 0;
    for (std::int64_t axis : *axes) {
      axis += axis < 0 ? static_cast<std::int64_t>(*rank) : 0;
      if (axis == in->axis) return false;
      before += axis < in->axis ? 1 : 0;
    }
    if (node.attr_int("keepdims", 1) == 0) out.axis -= before;
  } else {
    return false;
  }
  values_[std::string(node.output(0))] = std::move(out);
  return true;
}

bool ChannelGraph::visit_joined(const Node& node) {
  if (!one_of(node.op(), kJoin)) return false;
  const Value* first = find(node.input(0));
  const auto rank = graph_.type(node.output(0)).rank();
  if (first == nullptr || !rank) return false;
  for (const std::string& input : node.inputs()) {
    const Value* value = find(input);
    if (value == nullptr || value->axis != first->axis || value->ids.size() != first->ids.size() ||
        graph_.type(input).rank() != rank)
      return false;
  }
  for (const std::string& input : node.inputs())
    for (std::size_t c = 0; c < first->ids.size(); ++c) unite(first->ids[c], find(input)->ids[c]);
  values_[std::string(node.output(0))] = *first;
  return true;
}

// a * b takes the scale of one factor; the other has to keep its own.
bool ChannelGraph::visit_product(const Node& node) {
  if (!node.is("Mul")) return false;
  const ValueType out = graph_.type(node.output(0));
  const auto carries = [&](std::size_t slot) {
    const Value* value = find(node.input(slot));
    const ValueType type = graph_.type(node.input(slot));
    return value != nullptr && value->axis >= 0 && type.rank() && type.rank() == out.rank() &&
           type.dim(static_cast<std::size_t>(value->axis)) &&
           type.dim(static_cast<std::size_t>(value->axis)) == out.dim(static_cast<std::size_t>(value->axis)) &&
           !std::ranges::all_of(value->ids, [&](std::size_t id) { return fixed(id); });
  };
  const std::size_t slot = carries(1) ? 1 : 0;
  if (!carries(slot) || node.input(0) == node.input(1)) return false;
  if (const Value* other = find(node.input(1 - slot)))
    fix(other->ids, fmt::format("it is multiplied in {}, where the other factor carries the scale", node.label()));
  values_[std::string(node.output(0))] = *find(node.input(slot));
  return true;
}

bool ChannelGraph::visit_concat(const Node& node) {
  if (!node.is("Concat")) return false;
  const std::int64_t axis = normal(node.output(0), node.attr_int("axis", 1));
  Value out;
  bool along = false, first = true;
  for (const std::string& input : node.inputs()) {
    const Value* value = find(input);
    if (value == nullptr) {
      const auto extent = axis < 0 ? std::nullopt : graph_.type(input).dim(static_cast<std::size_t>(axis));
      if (!extent || (!first && !along)) return false;
      if (first) out.axis = axis, along = true;
      out.ids.insert(out.ids.end(), static_cast<std::size_t>(*extent), 0);
    } else if (first || along) {
      along = value->axis == axis;
      if (!first && !along) return false;
      out.axis = value->axis;
      out.ids.insert(out.ids.end(), value->ids.begin(), value->ids.end());
    } else {
      if (value->axis != out.axis || value->ids.size() != out.ids.size()) return false;
      for (std::size_t c = 0; c < out.ids.size(); ++c) unite(out.ids[c], value->ids[c]);
    }
    first = false;
  }
  if (out.axis < 0) return false;
  values_[std::string(node.output(0))] = std::move(out);
  return true;
}

void ChannelGraph::fix_outside_readers() {
  for (const auto& [name, value] : values_) {
    if (graph_.is_output(name)) fix(value.ids, "it is an output of the graph");
    for (const Use& use : graph_.uses(name))
      if (!use.node || use.captured) fix(value.ids, "a nested body reads it");
  }
}

std::vector<double> ChannelGraph::gather(const ChannelIds& ids, const std::vector<double>& factor, bool inverse) const {
  std::vector<double> factors;
  for (const std::size_t id : ids) factors.push_back(inverse ? 1 / factor[root(id)] : factor[root(id)]);
  return factors;
}

Result<std::string> ChannelGraph::apply(const std::vector<double>& factor, std::vector<Node>* touched,
                                        std::span<const ChannelInsertion> insertions) {
  Rewriter rewriter(graph_);
  OP_LET(std::string refusal, scale_affines(rewriter, factor, touched));
  std::vector<std::vector<double>> in;
  for (const ChannelLayer& layer : layers_) in.push_back(gather(layer.in, factor, false));
  for (const ChannelInsertion& insertion : insertions) {
    std::vector<double> inverse;
    for (const double f : insertion.factor) inverse.push_back(1 / f);
    const Linear& first = layers_[insertion.layers.front()].linear;
    OP_LET(auto constant, from_doubles(inverse, first.dtype, {static_cast<std::int64_t>(inverse.size())}));
    if (!constant) return not_finite(first.node);
    const std::string factors = rewriter.fresh_value(insertion.value + "_factor");
    const std::string scaled = rewriter.fresh_value(insertion.value + "_smooth");
    rewriter.add_initializer(factors, std::move(*constant));
    rewriter.insert_before(first.node, {.op = "Mul",
                                        .inputs = {insertion.value, factors},
                                        .outputs = {scaled},
                                        .name = rewriter.fresh_node(insertion.value + "_smooth")});
    for (const std::size_t k : insertion.layers) {
      rewriter.set_input(layers_[k].linear.node, 0, scaled);
      for (std::size_t i = 0; i < in[k].size(); ++i) in[k][i] *= insertion.factor[i];
    }
  }
  for (std::size_t k = 0; k < layers_.size() && refusal.empty(); ++k) {
    const std::vector<double> out = gather(layers_[k].out, factor, true);
    if (all_ones(in[k]) && all_ones(out)) continue;
    OP_LET(refusal, scale_layer(rewriter, layers_[k], in[k], out));
    touched->push_back(layers_[k].linear.node);
  }
  if (!refusal.empty()) return refusal;
  OP_TRY(rewriter.commit());
  return std::string();
}

Result<std::string> ChannelGraph::scale_affines(Rewriter& rewriter, const std::vector<double>& factor,
                                                std::vector<Node>* touched) const {
  for (const ChannelAffine& affine : affines_) {
    const std::vector<double> out = gather(affine.out, factor, true);
    if (all_ones(out)) continue;
    for (const std::size_t slot : affine.slots) {
      OP_LET(const auto tensor, graph_.constant(affine.node.input(slot)));
      OP_LET(std::vector<double> values, to_doubles(tensor->view()));
      for (std::size_t c = 0; c < values.size(); ++c) values[c] *= out[c];
      OP_LET(auto scaled, from_doubles(values, tensor->dtype(), tensor->dims()));
      if (!scaled) return not_finite(affine.node);
      set_constant(rewriter, affine.node, slot, std::move(*scaled), "scale");
    }
    touched->push_back(affine.node);
  }
  return std::string();
}

Result<std::string> ChannelGraph::scale_layer(Rewriter& rewriter, const ChannelLayer& layer,
                                              const std::vector<double>& in, const std::vector<double>& out) const {
  const Linear& linear = layer.linear;
  OP_LET(const auto tensor, graph_.constant(linear.node.input(1)));
  OP_LET(std::vector<double> weight, to_doubles(tensor->view()));
  scale_inputs(weight, linear.layout, in);
  scale_outputs(weight, linear.layout, out);
  OP_LET(auto scaled, from_doubles(weight, linear.dtype, linear.dims));
  if (!scaled) return not_finite(linear.node);
  set_constant(rewriter, linear.node, 1, std::move(*scaled), "weight");
  if (linear.bias().empty() || all_ones(out)) return std::string();
  OP_LET(std::vector<double> bias, read_bias(linear));
  for (std::size_t o = 0; o < bias.size(); ++o) bias[o] *= out[o];
  OP_LET(auto moved_bias, from_doubles(bias, linear.dtype, {static_cast<std::int64_t>(bias.size())}));
  if (!moved_bias) return not_finite(linear.node);
  if (linear.beta != 1) rewriter.set_attribute(linear.node, "beta", 1.0F);
  set_constant(rewriter, linear.bias_node, linear.bias_slot, std::move(*moved_bias), "bias");
  return std::string();
}

}  // namespace onnxpress
