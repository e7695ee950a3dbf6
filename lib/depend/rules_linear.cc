// Conv, ConvTranspose, Gemm, MatMul, Einsum: what reads an axis, and what makes one.
//
//   Y[n, o, ...] = sum over c of W[o, c, ...] X[n, c, ...]      X.1 ~ W.1 (consumes), Y.1 ~ W.0 (produces) ~ B.0
#include <algorithm>
#include <array>
#include <map>

#include "base/text.h"
#include "depend/rules.h"

namespace onnxpress {
namespace {

// All axes but the channels: batch, rows, columns.
void fix_around_channels(Ties& ties, Operand operand) {
  for (std::int64_t i = 0; i < ties.rank(operand).value_or(0); ++i)
    if (i != 1) ties.fix(ties.axis(operand, i), i == 0 ? "batch of a convolution" : "rows and columns of an image");
}

struct Convolution {
  Axis in = kNone, out = kNone;       // channels of X and Y
  Axis reads = kNone, makes = kNone;  // of W
  std::int64_t groups = 1;
  bool transposed = false;  // W is [in, out / groups, ...], not [out, in / groups, ...]
};

// Group g reads one block of X's channels and makes one of Y's. With many small groups whole groups go (`group` then
// shrinks), and the units lie along the axis of W that holds all channels; with few large ones every group loses the
// same positions.
void tie_groups(Ties& ties, const Convolution& conv) {
  const auto in = ties.size(conv.in), out = ties.size(conv.out);
  if (!in || !out || conv.groups < 1 || *in % conv.groups != 0 || *out % conv.groups != 0)
    return ties.fix_all("groups that do not divide the channels");
  const std::int64_t in_block = *in / conv.groups, out_block = *out / conv.groups;
  const auto [full, full_axis] = conv.transposed ? std::pair(conv.in, conv.reads) : std::pair(conv.out, conv.makes);
  const auto [local, local_axis] = conv.transposed ? std::pair(conv.out, conv.makes) : std::pair(conv.in, conv.reads);
  ties.tie(full, full_axis);
  if (conv.groups >= in_block) {
    ties.tie_blocks(conv.in, in_block);
    ties.tie_blocks(conv.out, out_block);
    for (std::int64_t g = 0; g < conv.groups; ++g) ties.tie_at(conv.in, g * in_block, conv.out, g * out_block);
    ties.role(full_axis, AxisRole::produces);
    ties.role(local_axis, AxisRole::follows);
    return;
  }
  ties.tie_positions(conv.in, in_block);
  ties.tie_positions(conv.out, out_block);
  ties.tie_digit(local, local_axis, 1);
}

Status tie_convolution(Ties& ties, bool transposed) {
  const Operand x = ties.in(0), w = ties.in(1), y = ties.out(0);
  const std::int64_t makes = transposed ? 1 : 0;
  const Convolution conv{
      ties.axis(x, 1), ties.axis(y, 1), ties.axis(w, 1 - makes), ties.axis(w, makes), ties.node().attr_int("group", 1),
      transposed};
  for (const Operand operand : {x, y}) fix_around_channels(ties, operand);
  for (std::int64_t i = 2; i < ties.rank(w).value_or(0); ++i) ties.fix(ties.axis(w, i), "kernel of a convolution");
  ties.role(conv.reads, AxisRole::consumes);
  ties.role(conv.makes, AxisRole::produces);
  for (const Axis axis : {conv.reads, conv.makes}) ties.origin(axis, from_conv);
  if (conv.groups == 1) {
    ties.tie(conv.in, conv.reads);
    ties.tie(conv.out, conv.makes);
  } else {
    tie_groups(ties, conv);
  }
  const Operand bias = ties.in(2);
  if (bias != kNone) {
    ties.tie_broadcast(ties.axis(bias, 0), conv.out);
    ties.role(ties.axis(bias, 0), AxisRole::bias);
  }
  return {};
}

Status conv(Ties& ties) { return tie_convolution(ties, false); }
Status conv_transpose(Ties& ties) { return tie_convolution(ties, true); }

// activation(Conv(X, W, B) + Z)
Status fused_conv(Ties& ties) {
  OP_TRY(tie_convolution(ties, false));
  ties.tie_operands(ties.in(3), ties.out(0));
  return {};
}

Status gemm(Ties& ties) {
  const Operand a = ties.in(0), b = ties.in(1), c = ties.in(2), y = ties.out(0);
  const bool trans_a = ties.node().attr_int("transA", 0) != 0, trans_b = ties.node().attr_int("transB", 0) != 0;
  const Axis a_rows = ties.axis(a, trans_a ? 1 : 0), a_depth = ties.axis(a, trans_a ? 0 : 1);
  const Axis b_depth = ties.axis(b, trans_b ? 1 : 0), b_columns = ties.axis(b, trans_b ? 0 : 1);
  ties.tie(a_depth, b_depth);
  ties.tie(ties.axis(y, 0), a_rows);
  ties.tie(ties.axis(y, 1), b_columns);
  for (std::int64_t i = 1; c != kNone && i <= ties.rank(c).value_or(0); ++i) {
    ties.tie_broadcast(ties.axis(c, -i), ties.axis(y, -i));
    ties.role(ties.axis(c, -i), AxisRole::bias);
  }
  if (ties.constant(b)) {
    ties.role(b_depth, AxisRole::consumes);
    ties.role(b_columns, AxisRole::produces);
    for (const Axis axis : {b_depth, b_columns}) ties.origin(axis, from_matmul);
  }
  if (ties.constant(a)) {
    ties.role(a_depth, AxisRole::consumes);
    ties.role(a_rows, AxisRole::produces);
    for (const Axis axis : {a_depth, a_rows}) ties.origin(axis, from_matmul);
  }
  return {};
}

// Y = A B over the last two axes; the others are broadcast. Vectors have one axis, which is the reduced one.
Status tie_matmul(Ties& ties, bool trans_a, bool trans_b) {
  const Operand a = ties.in(0), b = ties.in(1), y = ties.out(0);
  const auto a_rank = ties.rank(a), b_rank = ties.rank(b), y_rank = ties.rank(y);
  if (!a_rank || !b_rank || !y_rank || *a_rank < 1 || *b_rank < 1) {
    ties.fix_all("rank not known");
    return {};
  }
  const Axis a_depth = ties.axis(a, trans_a && *a_rank > 1 ? -2 : -1);
  const Axis a_rows = *a_rank > 1 ? ties.axis(a, trans_a ? -1 : -2) : kNone;
  const Axis b_depth = ties.axis(b, *b_rank > 1 && !trans_b ? -2 : -1);
  const Axis b_columns = *b_rank > 1 ? ties.axis(b, trans_b ? -2 : -1) : kNone;
  ties.tie(a_depth, b_depth);
  std::int64_t from_end = 0;  // axes of Y behind the batch
  if (*b_rank > 1) ties.tie(ties.axis(y, -++from_end), b_columns);
  if (*a_rank > 1) ties.tie(ties.axis(y, -++from_end), a_rows);
  for (const auto& [operand, rank] : {std::pair(a, *a_rank), std::pair(b, *b_rank)})
    for (std::int64_t i = 3; i <= rank; ++i) {
      ties.tie_broadcast(ties.axis(operand, -i), ties.axis(y, 2 - i - from_end));
      if (!ties.constant(operand)) continue;
      ties.role(ties.axis(operand, -i), AxisRole::produces);
      ties.origin(ties.axis(operand, -i), from_matmul);
    }
  for (const auto& [operand, depth, made] : {std::tuple(a, a_depth, a_rows), std::tuple(b, b_depth, b_columns)}) {
    if (!ties.constant(operand)) continue;
    ties.role(depth, AxisRole::consumes);
    ties.role(made, AxisRole::produces);
    for (const Axis axis : {depth, made}) ties.origin(axis, from_matmul);
  }
  return {};
}

Status matmul(Ties& ties) { return tie_matmul(ties, false, false); }

Status fused_matmul(Ties& ties) {
  const Node& node = ties.node();
  if (node.attr_int("transBatchA", 0) != 0 || node.attr_int("transBatchB", 0) != 0) {
    ties.fix_all("batches that are transposed");
    return {};
  }
  return tie_matmul(ties, node.attr_int("transA", 0) != 0, node.attr_int("transB", 0) != 0);
}

// One axis per letter: all that are called by it are one. A letter that the output lacks is summed over.
Status einsum(Ties& ties) {
  std::string equation = ties.node().attr_string("equation", "");
  std::erase(equation, ' ');
  const std::size_t arrow = equation.find("->");
  if (equation.contains('.') || arrow == std::string::npos) {
    ties.fix_all("an ellipsis or an output that is not written");
    return {};
  }
  std::vector<std::string> terms = split(equation.substr(0, arrow), ',');
  const std::string result = equation.substr(arrow + 2);
  std::vector<Operand> operands;
  for (std::size_t i = 0; i < ties.inputs(); ++i) operands.push_back(ties.in(i));
  if (terms.size() != operands.size()) {
    ties.fix_all("an equation that does not fit the inputs");
    return {};
  }
  terms.push_back(result);
  operands.push_back(ties.out(0));
  std::map<char, Axis> axes;  // by letter
  for (std::size_t i = 0; i < terms.size(); ++i) {
    std::string letters = terms[i];
    std::ranges::sort(letters);
    if (ties.rank(operands[i]) != static_cast<std::int64_t>(terms[i].size()) ||
        std::ranges::adjacent_find(letters) != letters.end()) {
      ties.fix_all("a diagonal, or an equation that does not fit the inputs");
      return {};
    }
    for (std::size_t k = 0; k < terms[i].size(); ++k) {
      const Axis axis = ties.axis(operands[i], static_cast<std::int64_t>(k));
      const auto [at, first] = axes.try_emplace(terms[i][k], axis);
      if (first || ties.size(axis) == 1) continue;
      if (ties.size(at->second) == 1) at->second = axis;
      ties.tie(at->second, axis);
    }
  }
  for (std::size_t i = 0; i + 1 < terms.size(); ++i) {
    if (!ties.constant(operands[i])) continue;
    for (std::size_t k = 0; k < terms[i].size(); ++k) {
      const Axis axis = ties.axis(operands[i], static_cast<std::int64_t>(k));
      ties.role(axis, result.contains(terms[i][k]) ? AxisRole::produces : AxisRole::consumes);
      ties.origin(axis, from_matmul);
    }
  }
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "Conv", conv},
    OpRule{"", "ConvTranspose", conv_transpose},
    OpRule{"", "Gemm", gemm},
    OpRule{"", "MatMul", matmul},
    OpRule{"", "Einsum", einsum},
    OpRule{kMicrosoft, "FusedConv", fused_conv},
    OpRule{kMicrosoft, "FusedGemm", gemm},
    OpRule{kMicrosoft, "FusedMatMul", fused_matmul},
};

}  // namespace

std::span<const OpRule> linear_rules() { return kRules; }

}  // namespace onnxpress
