// Attention as ONNX Runtime fuses it. What the expanded form ties index by index is said here at once: a key/value head
// with the query heads that read it is one unit, of all it owns in queries, keys, values, biases, caches and output.
//
//   MultiHeadAttention <num_heads = 4> (q [B, S, 4*d], k, v [B, L, 4*d]) -> [B, S, 4*d]
//     unit h:  q[.., h*d..] ~ k[.., h*d..] ~ v[.., h*d..] ~ output[.., h*d..]
#include <algorithm>
#include <array>

#include "depend/attention_view.h"
#include "depend/rules.h"

namespace onnxpress {
namespace {

std::optional<Dims> dims_of(const Ties& ties, Operand operand) {
  const auto rank = ties.rank(operand);
  if (!rank) return std::nullopt;
  Dims dims;
  for (std::int64_t i = 0; i < *rank; ++i) dims.push_back(ties.size(ties.axis(operand, i)).value_or(-1));
  return dims;
}

Axis axis_of(const Ties& ties, const HeadRun& run) {
  return ties.axis(run.output ? ties.out(run.slot) : ties.in(run.slot), static_cast<std::int64_t>(run.axis));
}

void tie_units(Ties& ties, const AttentionView& view) {
  const HeadRun& anchor = view.runs.front();
  const Axis anchor_axis = axis_of(ties, anchor);
  for (const HeadRun& run : view.runs) {
    const Axis axis = axis_of(ties, run);
    for (std::int64_t i = 0; i < view.units * run.per_unit; ++i)
      ties.tie_at(axis, run.start + i, anchor_axis, anchor.start + i / run.per_unit * anchor.per_unit);
  }
}

// Batch, positions, channels within a head, ...: whatever has no run. With `projects` the channels of the input and the
// rows of the weight are no business of the heads.
void fix_others(Ties& ties, const AttentionView& view, bool projects) {
  const auto fix_operand = [&](bool output, std::size_t slot, Operand operand) {
    const std::int64_t rank = ties.rank(operand).value_or(0);
    for (std::int64_t i = 0; i < rank; ++i) {
      if (projects && !output && ((slot == 0 && i == rank - 1) || (slot == 1 && i == 0))) continue;
      const auto is_here = [&](const HeadRun& run) {
        return run.output == output && run.slot == slot && run.axis == static_cast<std::size_t>(i);
      };
      if (std::ranges::none_of(view.runs, is_here)) ties.fix(ties.axis(operand, i), "attention goes over this axis");
    }
  };
  for (std::size_t slot = 0; slot < ties.inputs(); ++slot) fix_operand(false, slot, ties.in(slot));
  for (std::size_t slot = 0; slot < ties.outputs(); ++slot) fix_operand(true, slot, ties.out(slot));
}

// The weight of an operator that projects by itself: its columns make heads, its rows read the input.
void tie_weight(Ties& ties, const HeadRun& run) {
  const Operand x = ties.in(0), weight = ties.in(run.slot);
  ties.role(ties.axis(weight, 1), AxisRole::produces);
  ties.role(ties.axis(weight, 0), AxisRole::consumes);
  ties.tie(ties.axis(x, -1), ties.axis(weight, 0));
}

Status attention(Ties& ties) {
  const auto view = view_attention(ties.node(), [&](bool output, std::size_t slot) {
    return dims_of(ties, output ? ties.out(slot) : ties.in(slot));
  });
  if (!view) {
    ties.fix_all(view.error().what);
    return {};
  }
  bool projects = false;
  for (const HeadRun& run : view->runs) {
    ties.origin(axis_of(ties, run), from_softmax);
    if (run.bias) ties.role(axis_of(ties, run), AxisRole::bias);
    if (run.weight && !projects) tie_weight(ties, run);
    projects = projects || run.weight;
  }
  tie_units(ties, *view);
  fix_others(ties, *view, projects);
  return {};
}

// [B, S, H*d] turns heads of `width` channels, [B, H, S, d] has an axis of them.
Status rotary_embedding(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  ties.tie_operands(x, y);
  for (std::size_t slot = 1; slot < ties.inputs(); ++slot) ties.fix_operand(ties.in(slot), "rotary positions");
  if (ties.rank(x) == 4) {
    ties.fix(ties.axis(x, 3), "rotated within this axis");
    return {};
  }
  const auto channels = ties.size(ties.axis(x, -1)), half = ties.size(ties.axis(ties.in(2), -1));
  const std::int64_t heads = ties.node().attr_int("num_heads", 0);
  const bool partial = ties.node().attr_int("rotary_embedding_dim", 0) > 0;
  std::int64_t width = 0;
  if (partial && channels && heads > 0 && *channels % heads == 0) width = *channels / heads;
  if (!partial && half) width = 2 * *half;
  if (!channels || width < 1 || *channels % width != 0) {
    ties.fix_all("the width of its heads is not known");
    return {};
  }
  ties.tie_blocks(ties.axis(x, -1), width);
  return {};
}

// A table of biases [buckets, H] laid out as [1, H, S, T].
Status relative_position_bias(Ties& ties) {
  ties.tie(ties.axis(ties.in(0), 1), ties.axis(ties.out(0), 1));
  ties.fix(ties.axis(ties.in(0), 0), "buckets of positions");
  for (const std::int64_t axis : {0, 2, 3}) ties.fix(ties.axis(ties.out(0), axis), "positions");
  return {};
}

constexpr std::array kRules = {
    OpRule{kMicrosoft, "Attention", attention},
    OpRule{kMicrosoft, "PackedAttention", attention},
    OpRule{kMicrosoft, "DecoderMaskedSelfAttention", attention},
    OpRule{kMicrosoft, "MultiHeadAttention", attention},
    OpRule{kMicrosoft, "PackedMultiHeadAttention", attention},
    OpRule{kMicrosoft, "DecoderMaskedMultiHeadAttention", attention},
    OpRule{kMicrosoft, "GroupQueryAttention", attention},
    OpRule{kMicrosoft, "RotaryEmbedding", rotary_embedding},
    OpRule{kMicrosoft, "RelativePositionBias", relative_position_bias},
};

}  // namespace

std::span<const OpRule> attention_rules() { return kRules; }

}  // namespace onnxpress
