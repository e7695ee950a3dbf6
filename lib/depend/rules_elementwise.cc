// Operators that work element by element: equal positions of every axis stand and fall together. Operands are
// right-aligned and broadcast: an axis of one is tied to nothing.
#include <algorithm>
#include <array>

#include "depend/rules.h"

namespace onnxpress {
namespace {

// Before opset 7 the second operand could start at an axis of the first.
std::int64_t offset_of(const Ties& ties, std::size_t slot, std::int64_t rank, std::int64_t out_rank) {
  if (slot == 1 && ties.opset() < 7 && ties.node().attr_int("broadcast", 0) != 0 && ties.node().has_attr("axis")) {
    const std::int64_t axis = ties.node().attr_int("axis", 0);
    return axis < 0 ? axis + out_rank : axis;
  }
  return out_rank - rank;
}

// The constant added to what a MatMul makes is its bias.
bool adds_bias(const Ties& ties, std::size_t slot) {
  if (!ties.node().is("Add") || !ties.constant(ties.in(slot))) return false;
  const Node producer = ties.scope().graph->producer(ties.node().input(1 - slot));
  return producer && (producer.is("MatMul") || producer.is("Conv") || producer.is("ConvTranspose"));
}

Status broadcast(Ties& ties) {
  const Operand y = ties.out(0);
  const auto out_rank = ties.rank(y);
  for (std::size_t slot = 0; slot < ties.inputs(); ++slot) {
    const Operand x = ties.in(slot);
    if (x == kNone) continue;
    const auto rank = ties.rank(x);
    if (!rank || !out_rank) {
      ties.fix_all("rank not known");
      return {};
    }
    const std::int64_t offset = offset_of(ties, slot, *rank, *out_rank);
    for (std::int64_t i = 0; i < *rank; ++i) {
      ties.tie_broadcast(ties.axis(x, i), i + offset < 0 ? kNone : ties.axis(y, i + offset));
      if (adds_bias(ties, slot)) ties.role(ties.axis(x, i), AxisRole::bias);
    }
  }
  return {};
}

// The first input decides; others are numbers.
Status unary(Ties& ties) {
  for (std::size_t slot = 0; slot < ties.outputs(); ++slot) ties.tie_operands(ties.in(0), ties.out(slot));
  return {};
}

// One slope per channel, broadcast to the input.
Status prelu(Ties& ties) {
  if (ties.opset() >= 7) return broadcast(ties);
  ties.tie_operands(ties.in(0), ties.out(0));
  ties.tie_broadcast(ties.axis(ties.in(1), 0), ties.axis(ties.out(0), 1));
  return {};
}

// Scale and zero point hold one number for all, or one per index of an axis. A block of rows per number: fixed.
Status quantize(Ties& ties) {
  if (ties.node().attr_int("block_size", 0) != 0) {
    ties.fix_all("quantized in blocks");
    return {};
  }
  ties.tie_operands(ties.in(0), ties.out(0));
  const auto axis = ties.axis_attr("axis", 1, ties.in(0));
  for (const std::size_t slot : {1UZ, 2UZ}) {
    const Operand parameter = ties.in(slot);
    if (parameter == kNone || ties.rank(parameter) == 0) continue;
    ties.tie_broadcast(ties.axis(parameter, 0), axis ? ties.axis(ties.in(0), *axis) : kNone);
  }
  return {};
}

// Makes integers that mean something else than the axes do: sizes, positions, noise. Nothing is tied to what is read.
Status reads_only(Ties& ties) {
  for (std::size_t slot = 0; slot < ties.outputs(); ++slot)
    ties.fix_operand(ties.out(slot), "sizes and positions are computed here");
  return {};
}

// gelu(x + bias)
Status bias_gelu(Ties& ties) {
  OP_TRY(broadcast(ties));
  ties.role(ties.axis(ties.in(1), 0), AxisRole::bias);
  return {};
}

constexpr std::array kUnary = {
    "Abs",      "Acos", "Acosh",       "Asin",       "Asinh",    "Atan",    "Atanh", "BitwiseNot", "Cast",
    "Ceil",     "Celu", "Clip",        "Cos",        "Cosh",     "Dropout", "Elu",   "Erf",        "Exp",
    "Floor",    "Gelu", "HardSigmoid", "HardSwish",  "Identity", "IsInf",   "IsNaN", "LeakyRelu",  "Log",
    "Mish",     "Neg",  "Not",         "Reciprocal", "Relu",     "Round",   "Selu",  "Shrink",     "Sigmoid",
    "Sign",     "Sin",  "Sinh",        "Softplus",   "Softsign", "Sqrt",    "Tan",   "Tanh",       "ThresholdedRelu",
    "CastLike",
};
constexpr std::array kBroadcast = {
    "Add",        "And",         "BitShift", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor", "Div",         "Equal",    "Greater",    "GreaterOrEqual",
    "Less",       "LessOrEqual", "Max",      "Mean",       "Min",
    "Mod",        "Mul",         "Or",       "Pow",        "Sub",
    "Sum",        "Where",       "Xor",
};
constexpr std::array kMicrosoftUnary = {"Gelu", "QuickGelu"};

// Rules of many operators at once, then those with a rule of their own.
const auto kRules = [] {
  std::vector<OpRule> rules = {
      {"", "PRelu", prelu},
      {"", "QuantizeLinear", quantize},
      {"", "DequantizeLinear", quantize},
      {"", "Shape", reads_only},
      {"", "Size", reads_only},
      {kMicrosoft, "BiasGelu", bias_gelu},
      {kMicrosoft, "FastGelu", bias_gelu},
      {kMicrosoft, "QuantizeLinear", quantize},
      {kMicrosoft, "DequantizeLinear", quantize},
  };
  for (const char* op : kUnary) rules.push_back({"", op, unary});
  for (const char* op : kBroadcast) rules.push_back({"", op, broadcast});
  for (const char* op : kMicrosoftUnary) rules.push_back({kMicrosoft, op, unary});
  return rules;
}();

}  // namespace

bool is_unary(const Node& node) { return find_rule(node) == unary; }
bool is_broadcast(const Node& node) {
  const Rule rule = find_rule(node);
  return rule == broadcast || rule == bias_gelu || rule == prelu;
}

std::span<const OpRule> elementwise_rules() { return kRules; }

}  // namespace onnxpress
