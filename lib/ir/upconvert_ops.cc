#include "ir/upconvert_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>

namespace onnxpress {
namespace {

using Attributes = std::vector<std::pair<std::string, AttributeValue>>;

// A conversion of one node: what was done goes into `what`; returns why it cannot be, or "".
using Convert = std::string (*)(OpsetStep& step, const Node& node, std::string& what);

DType dtype_of(const Node& node) {
  const DType in = node.graph().type(node.input(0)).dtype;
  return in != DType::undefined ? in : node.graph().type(node.output(0)).dtype;
}

std::optional<std::vector<Dim>> shape_of(const Node& node) { return node.graph().type(node.input(0)).shape; }

// A float attribute as a scalar of the type the node computes in.
std::optional<Tensor> typed_scalar(const Node& node, float value) {
  const DType dtype = dtype_of(node);
  if (!is_float(dtype)) return std::nullopt;
  auto converted = convert(Tensor::scalar<float>(DType::f32, value).view(), dtype);
  if (!converted) return std::nullopt;
  return std::move(*converted);
}
constexpr const char* kUnknownType = "the type it computes in is not known";

// The attribute `key`, a list of integers, becomes input `slot`. Does nothing where it is absent.
bool ints_to_input(OpsetStep& step, const Node& node, std::string_view key, std::size_t slot) {
  if (!node.has_attr(key)) return false;
  Rewriter& rewriter = step.rewriters.of(node.graph());
  const auto values = node.attr_ints(key);
  if (!values.empty()) rewriter.set_input(node, slot, step.constant(node, values, fmt::format("_{}", key)));
  rewriter.remove_attribute(node, key);
  return true;
}

std::string axes_at(std::int64_t version, OpsetStep& step, const Node& node, std::string& what) {
  if (step.crosses(version) && ints_to_input(step, node, "axes", 1)) what = "axes became an input";
  return {};
}
std::string convert_squeeze(OpsetStep& step, const Node& node, std::string& what) {
  return axes_at(13, step, node, what);
}
std::string convert_reduce(OpsetStep& step, const Node& node, std::string& what) {
  return axes_at(18, step, node, what);
}

std::string convert_split(OpsetStep& step, const Node& node, std::string& what) {
  if (step.crosses(13) && ints_to_input(step, node, "split", 1)) what = "split became an input";
  const bool has_sizes = step.from < 13 ? node.has_attr("split") : !node.input(1).empty();
  if (step.crosses(18) && !has_sizes) {
    step.rewriters.of(node.graph()).set_attribute(node, "num_outputs", static_cast<std::int64_t>(node.output_count()));
    what = "num_outputs added";
  }
  return {};
}

std::string convert_clip(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(11)) return {};
  Rewriter& rewriter = step.rewriters.of(node.graph());
  const float lowest = std::numeric_limits<float>::lowest(), largest = std::numeric_limits<float>::max();
  const std::array<float, 2> bounds = {node.attr_float("min", lowest), node.attr_float("max", largest)};
  for (const std::size_t i : {0UZ, 1UZ}) {
    const char* key = i == 0 ? "min" : "max";
    if (!node.has_attr(key)) continue;
    what = "min and max became inputs";
    rewriter.remove_attribute(node, key);
    if (bounds[i] == (i == 0 ? lowest : largest)) continue;  // the default of both versions
    auto value = typed_scalar(node, bounds[i]);
    if (!value) return kUnknownType;
    rewriter.set_input(node, i + 1, step.constant(node, std::move(*value), fmt::format("_{}", key)));
  }
  return {};
}

std::string convert_pad(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(11)) return {};
  Rewriter& rewriter = step.rewriters.of(node.graph());
  const auto pads = node.attr_ints("pads");
  rewriter.set_input(node, 1, step.constant(node, pads, "_pads"));
  const float value = node.attr_float("value", 0);
  if (value != 0) {
    auto constant = typed_scalar(node, value);
    if (!constant) return kUnknownType;
    rewriter.set_input(node, 2, step.constant(node, std::move(*constant), "_value"));
  }
  for (const char* key : {"pads", "value"})
    if (node.has_attr(key)) rewriter.remove_attribute(node, key);
  what = "pads became an input";
  return {};
}

std::string convert_slice(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(10)) return {};
  std::size_t slot = 1;
  for (const char* key : {"starts", "ends", "axes"}) ints_to_input(step, node, key, slot++);
  // ONNX Runtime 1.21 fuses slices of one value (opset 10 and later) and names the results after them: without names it
  // refuses the model because two nodes have the same.
  if (node.name().empty())
    step.names.emplace_back(node, step.rewriters.of(node.graph()).fresh_node(fmt::format("Slice_{}", node.output(0))));
  what = "starts, ends and axes became inputs";
  return {};
}

std::string convert_topk(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(10)) return {};
  Rewriter& rewriter = step.rewriters.of(node.graph());
  rewriter.set_input(node, 1, step.constant(node, std::vector<std::int64_t>{node.attr_int("k", 1)}, "_k"));
  rewriter.remove_attribute(node, "k");
  what = "k became an input";
  return {};
}

std::string convert_dropout(OpsetStep& step, const Node& node, std::string& what) {
  Rewriter& rewriter = step.rewriters.of(node.graph());
  if (step.crosses(10) && !node.output(1).empty()) {  // the mask had the type of the data
    const DType dtype = dtype_of(node);
    if (dtype == DType::undefined) return kUnknownType;
    const std::string mask(node.output(1)), booleans = rewriter.fresh_value(mask + "_bool");
    rewriter.set_output(node, 1, booleans);
    rewriter.insert_after(node, {.op = "Cast",
                                 .inputs = {booleans},
                                 .outputs = {mask},
                                 .attributes = {{"to", static_cast<std::int64_t>(dtype)}},
                                 .name = rewriter.fresh_node(node.label() + "_Cast")});
    what = "its mask is cast to the type it had";
  }
  if (step.crosses(12) && node.has_attr("ratio")) {
    rewriter.set_input(node, 1,
                       step.constant(node, Tensor::scalar<float>(DType::f32, node.attr_float("ratio", 0)), "_ratio"));
    rewriter.remove_attribute(node, "ratio");
    what += what.empty() ? "ratio became an input" : ", ratio became an input";
  }
  return {};
}

std::string convert_batchnorm(OpsetStep& step, const Node& node, std::string& what) {
  if (step.crosses(9) && node.has_attr("spatial")) {
    const auto shape = shape_of(node);
    if (node.attr_int("spatial", 1) == 0 && (!shape || shape->size() != 2))
      return "spatial=0 has no equal from opset 9 on";
    step.rewriters.of(node.graph()).remove_attribute(node, "spatial");
    what = "spatial removed";
  }
  if (step.crosses(14) && node.output_count() > 1) return "its outputs for training have no equal from opset 14 on";
  return {};
}

// Up to opset 12 the tensor was seen as a matrix, cut at the axis; from 13 on the operator works along one axis.
std::string convert_softmax(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(13)) return {};
  Rewriter& rewriter = step.rewriters.of(node.graph());
  const std::int64_t axis = node.attr_int("axis", 1);
  const auto shape = shape_of(node);
  const auto rank = static_cast<std::int64_t>(shape ? shape->size() : 0);
  const std::int64_t at = axis < 0 && shape ? axis + rank : axis;
  const auto is_one = [](const Dim& dim) { return dim.value == 1; };
  if (axis == -1 || (shape && at >= 0 && at < rank && std::all_of(shape->begin() + at + 1, shape->end(), is_one))) {
    if (node.has_attr("axis") || axis != -1) rewriter.set_attribute(node, "axis", axis);
    what = "axis made explicit";
    return {};
  }
  const std::string x(node.input(0)), y(node.output(0));
  const std::string rows = rewriter.fresh_value(y + "_rows_in"), out = rewriter.fresh_value(y + "_rows"),
                    dims = rewriter.fresh_value(y + "_shape");
  const auto name = [&](const char* op) { return rewriter.fresh_node(node.label() + "_" + op); };
  rewriter.insert_before(
      node,
      {.op = "Flatten", .inputs = {x}, .outputs = {rows}, .attributes = {{"axis", axis}}, .name = name("Flatten")});
  rewriter.set_input(node, 0, rows);
  rewriter.set_output(node, 0, out);
  rewriter.set_attribute(node, "axis", std::int64_t{-1});
  rewriter.insert_after(node, {.op = "Shape", .inputs = {x}, .outputs = {dims}, .name = name("Shape")});
  rewriter.insert_after(node, {.op = "Reshape", .inputs = {out, dims}, .outputs = {y}, .name = name("Reshape")});
  what = fmt::format("over the matrix cut at axis {}", axis);
  return {};
}

// Upsample scaled as Resize does in mode asymmetric, taking the element below.
std::string convert_upsample(OpsetStep& step, const Node& node, std::string& what) {
  Rewriter& rewriter = step.rewriters.of(node.graph());
  std::string scales(node.input(1));
  if (step.crosses(9)) {
    const auto values = node.attr_floats("scales");
    scales = step.constant(node, Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values), "_scales");
    rewriter.set_input(node, 1, scales);
    rewriter.remove_attribute(node, "scales");
    what = "scales became an input";
  }
  if (!step.crosses(10)) return {};
  rewriter.set_op(node, "Resize");
  rewriter.set_attribute(node, "mode", node.attr_string("mode", "nearest"));
  what = "became Resize";
  if (!step.crosses(11)) return {};
  rewriter.set_attribute(node, "coordinate_transformation_mode", "asymmetric");
  rewriter.set_attribute(node, "nearest_mode", "floor");
  rewriter.set_input(node, 1, step.to >= 13 ? "" : step.constant(node, Tensor(DType::f32, {0}), "_roi"));
  rewriter.set_input(node, 2, scales);
  return {};
}

// The rounding of Resize at opset 10: down where it enlarges, up where it shrinks.
Result<std::string> rounding_of(const Node& node) {
  if (node.attr_string("mode", "nearest") != "nearest") return "floor";
  OP_LET(const auto scales, node.graph().constant(node.input(1)));
  if (!scales || scales->dtype() != DType::f32) return fail(Code::unsupported, "its scales are not constant");
  const auto values = scales->as<float>();
  if (std::ranges::all_of(values, [](float scale) { return scale >= 1; })) return "floor";
  if (std::ranges::all_of(values, [](float scale) { return scale <= 1; })) return "ceil";
  return fail(Code::unsupported, "it enlarges one axis and shrinks another");
}

bool is_empty_constant(const Node& node, std::size_t slot) {
  const auto type = node.graph().constant_type(node.input(slot));
  return type && element_count(type->second) == 0;
}

std::string convert_resize(OpsetStep& step, const Node& node, std::string& what) {
  Rewriter& rewriter = step.rewriters.of(node.graph());
  if (step.crosses(11)) {
    const auto rounding = rounding_of(node);
    if (!rounding) return rounding.error().text();
    rewriter.set_attribute(node, "coordinate_transformation_mode", "asymmetric");
    rewriter.set_attribute(node, "nearest_mode", *rounding);
    rewriter.set_input(node, 2, node.input(1));
    rewriter.set_input(node, 1, step.to >= 13 ? "" : step.constant(node, Tensor(DType::f32, {0}), "_roi"));
    what = "coordinates made explicit";
  } else if (step.crosses(13)) {
    const std::string mode = node.attr_string("coordinate_transformation_mode", "half_pixel");
    if (mode == "tf_half_pixel_for_nn") return "tf_half_pixel_for_nn has no equal from opset 13 on";
    if (mode != "tf_crop_and_resize" && !node.input(1).empty()) rewriter.set_input(node, 1, "");
    // Either scales or sizes: an empty tensor stood for none.
    if (!node.input(3).empty() && is_empty_constant(node, 2)) rewriter.set_input(node, 2, "");
    what = "empty inputs left out";
  }
  return {};
}

std::string convert_roi_align(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(16)) return {};
  step.rewriters.of(node.graph()).set_attribute(node, "coordinate_transformation_mode", "output_half_pixel");
  what = "coordinates made explicit";
  return {};
}

std::string convert_scan(OpsetStep& step, const Node&, std::string&) {
  return step.crosses(9) ? "Scan of opset 8 runs over a batch, later ones do not" : "";
}

std::string convert_scatter(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(11)) return {};
  Rewriter& rewriter = step.rewriters.of(node.graph());
  rewriter.set_op(node, "ScatterElements");
  if (node.has_attr("axis")) rewriter.set_attribute(node, "axis", node.attr_int("axis", 0));
  what = "became ScatterElements";
  return {};
}

std::string convert_dft(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(20)) return {};
  Rewriter& rewriter = step.rewriters.of(node.graph());
  rewriter.set_input(node, 2,
                     step.constant(node, Tensor::scalar<std::int64_t>(DType::i64, node.attr_int("axis", 1)), "_axis"));
  if (node.has_attr("axis")) rewriter.remove_attribute(node, "axis");
  what = "axis became an input";
  return {};
}

std::string convert_grid_sample(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(20) || !node.has_attr("mode")) return {};
  const std::string mode = node.attr_string("mode", "bilinear");
  if (mode == "nearest") return {};
  step.rewriters.of(node.graph()).set_attribute(node, "mode", mode == "bicubic" ? "cubic" : "linear");
  what = "mode renamed";
  return {};
}

// Scale and bias of each group became those of each channel.
std::string convert_group_norm(OpsetStep& step, const Node& node, std::string& what) {
  if (!step.crosses(21)) return {};
  const auto shape = shape_of(node);
  const std::int64_t groups = node.attr_int("num_groups", 1);
  if (!shape || shape->size() < 2 || !(*shape)[1].value) return "how many channels it has is not known";
  const std::int64_t channels = *(*shape)[1].value;
  if (groups <= 0 || channels % groups != 0) return "its groups do not divide its channels";
  Rewriter& rewriter = step.rewriters.of(node.graph());
  for (const std::size_t slot : {1UZ, 2UZ}) {
    std::string value(node.input(slot));
    const auto add = [&](const char* op, const std::vector<std::int64_t>& argument) {
      const std::string out = rewriter.fresh_value(std::string(node.input(slot)) + "_per_channel");
      const std::string dims = step.constant(node, argument, "_dims");
      rewriter.insert_before(
          node,
          {.op = op, .inputs = {value, dims}, .outputs = {out}, .name = rewriter.fresh_node(node.label() + "_" + op)});
      value = out;
    };
    add("Reshape", {groups, 1});
    add("Expand", {groups, channels / groups});
    add("Reshape", {channels});
    rewriter.set_input(node, slot, value);
  }
  what = "scale and bias of groups became those of channels";
  return {};
}

struct Entry {
  std::string_view op;
  Convert convert;
};
constexpr std::array kConversions = {
    Entry{"BatchNormalization", convert_batchnorm},
    Entry{"Clip", convert_clip},
    Entry{"DFT", convert_dft},
    Entry{"Dropout", convert_dropout},
    Entry{"GridSample", convert_grid_sample},
    Entry{"GroupNormalization", convert_group_norm},
    Entry{"Hardmax", convert_softmax},
    Entry{"LogSoftmax", convert_softmax},
    Entry{"Pad", convert_pad},
    Entry{"ReduceL1", convert_reduce},
    Entry{"ReduceL2", convert_reduce},
    Entry{"ReduceLogSum", convert_reduce},
    Entry{"ReduceLogSumExp", convert_reduce},
    Entry{"ReduceMax", convert_reduce},
    Entry{"ReduceMean", convert_reduce},
    Entry{"ReduceMin", convert_reduce},
    Entry{"ReduceProd", convert_reduce},
    Entry{"ReduceSum", convert_squeeze},
    Entry{"ReduceSumSquare", convert_reduce},
    Entry{"Resize", convert_resize},
    Entry{"RoiAlign", convert_roi_align},
    Entry{"Scan", convert_scan},
    Entry{"Scatter", convert_scatter},
    Entry{"Slice", convert_slice},
    Entry{"Softmax", convert_softmax},
    Entry{"Split", convert_split},
    Entry{"Squeeze", convert_squeeze},
    Entry{"TopK", convert_topk},
    Entry{"Unsqueeze", convert_squeeze},
    Entry{"Upsample", convert_upsample},
};

// Checked one by one against the operator changelog, opsets 7 to 21: more types, negative axes, attributes whose
// defaults are the old behaviour.
constexpr std::array<std::string_view, 82> kUnchanged = {"Abs",
                                                         "Add",
                                                         "ArgMax",
                                                         "ArgMin",
                                                         "AveragePool",
                                                         "Cast",
                                                         "CastLike",
                                                         "Ceil",
                                                         "Compress",
                                                         "Concat",
                                                         "Constant",
                                                         "ConstantOfShape",
                                                         "Conv",
                                                         "ConvTranspose",
                                                         "CumSum",
                                                         "DepthToSpace",
                                                         "DequantizeLinear",
                                                         "Div",
                                                         "Equal",
                                                         "Erf",
                                                         "Exp",
                                                         "Expand",
                                                         "Flatten",
                                                         "Floor",
                                                         "GRU",
                                                         "Gather",
                                                         "GatherElements",
                                                         "GatherND",
                                                         "Gemm",
                                                         "Greater",
                                                         "GreaterOrEqual",
                                                         "Identity",
                                                         "If",
                                                         "IsInf",
                                                         "IsNaN",
                                                         "LRN",
                                                         "LSTM",
                                                         "LeakyRelu",
                                                         "Less",
                                                         "LessOrEqual",
                                                         "Log",
                                                         "Loop",
                                                         "LpPool",
                                                         "MatMul",
                                                         "Max",
                                                         "MaxPool",
                                                         "MaxUnpool",
                                                         "Mean",
                                                         "MeanVarianceNormalization",
                                                         "Min",
                                                         "Mod",
                                                         "Mul",
                                                         "Neg",
                                                         "NegativeLogLikelihoodLoss",
                                                         "NonMaxSuppression",
                                                         "NonZero",
                                                         "OneHot",
                                                         "OptionalGetElement",
                                                         "OptionalHasElement",
                                                         "PRelu",
                                                         "Pow",
                                                         "QLinearMatMul",
                                                         "QuantizeLinear",
                                                         "RNN",
                                                         "Reciprocal",
                                                         "Relu",
                                                         "Reshape",
                                                         "ScatterElements",
                                                         "ScatterND",
                                                         "Shape",
                                                         "Sigmoid",
                                                         "Sign",
                                                         "Size",
                                                         "SoftmaxCrossEntropyLoss",
                                                         "SpaceToDepth",
                                                         "Sqrt",
                                                         "Sub",
                                                         "Sum",
                                                         "Tanh",
                                                         "Tile",
                                                         "Transpose",
                                                         "Where"};

}  // namespace

std::string OpsetStep::constant(const Node& node, Tensor value, std::string_view suffix) {
  const auto bytes = value.bytes();
  const std::string content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string& name = constants_[{&node.graph(), value.dtype(), value.dims(), content}];
  if (!name.empty()) return name;
  Rewriter& rewriter = rewriters.of(node.graph());
  name = rewriter.fresh_value(fmt::format("{}{}", node.output(0), suffix));
  rewriter.add_initializer(name, std::move(value));
  return name;
}

std::string OpsetStep::constant(const Node& node, const std::vector<std::int64_t>& values, std::string_view suffix) {
  return constant(node, Tensor::of_int64s({static_cast<std::int64_t>(values.size())}, values), suffix);
}

OpsetChange opset_change(std::string_view op) {
  if (std::ranges::contains(kConversions, op, &Entry::op)) return OpsetChange::converted;
  return std::ranges::contains(kUnchanged, op) ? OpsetChange::none : OpsetChange::unknown;
}

std::string convert_node(OpsetStep& step, const Node& node, std::string& what) {
  return std::ranges::find(kConversions, node.op(), &Entry::op)->convert(step, node, what);
}

}  // namespace onnxpress
