// Reductions, and operators that look at an axis as a whole.
#include <algorithm>
#include <array>

#include "depend/rules.h"

namespace onnxpress {
namespace {

// Axes of a reduction: an attribute, or an input since opset 13 or 18. None: not known; empty: all (or none at all).
Result<std::optional<std::vector<std::int64_t>>> reduced_axes(const Ties& ties) {
  if (ties.node().has_attr("axes")) return ties.node().attr_ints("axes");
  if (ties.in(1) == kNone) return std::vector<std::int64_t>();
  return ties.literal(1);
}

enum class OverAxis { exact, approximate, fixed };

Status reduce(Ties& ties, OverAxis over) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto rank = ties.rank(x);
  OP_LET(auto axes, reduced_axes(ties));
  if (!rank || !axes) {
    ties.fix_all("the axes it reduces are not known");
    return {};
  }
  const bool keep = ties.node().attr_int("keepdims", 1) != 0;
  const bool none = axes->empty() && ties.node().attr_int("noop_with_empty_axes", 0) != 0;
  for (std::int64_t& axis : *axes) axis += axis < 0 ? *rank : 0;
  std::int64_t to = 0;
  for (std::int64_t i = 0; i < *rank; ++i) {
    const Axis axis = ties.axis(x, i);
    const bool reduced = !none && (axes->empty() || std::ranges::find(*axes, i) != axes->end());
    if (!reduced) {
      ties.tie(axis, ties.axis(y, to++));
      continue;
    }
    to += keep ? 1 : 0;
    if (over == OverAxis::fixed) ties.fix(axis, "reduced over this axis");
    if (over == OverAxis::approximate) ties.approximate(axis, "a mean over this axis");
  }
  return {};
}

Status reduce_sum(Ties& ties) { return reduce(ties, OverAxis::exact); }
Status reduce_mean(Ties& ties) { return reduce(ties, OverAxis::approximate); }
Status reduce_other(Ties& ties) { return reduce(ties, OverAxis::fixed); }

// Statistics are taken along one axis (before opset 13: along it and all behind); the others are a batch.
Status softmax(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto rank = ties.rank(x);
  const bool flattens = ties.opset() < 13;
  const auto axis = ties.axis_attr("axis", flattens ? 1 : -1, x);
  if (!rank || !axis) {
    ties.fix_all("rank not known");
    return {};
  }
  ties.tie_operands(x, y);
  for (std::int64_t i = 0; i < *rank; ++i) {
    if (i == *axis || (flattens && i > *axis)) {
      ties.fix(ties.axis(x, i), "softmax over this axis");
    } else {
      ties.origin(ties.axis(x, i), from_softmax);
    }
  }
  return {};
}

// The order or the sum along one axis; all other axes are a batch.
void along(Ties& ties, std::optional<std::int64_t> axis) {
  const Operand x = ties.in(0);
  const auto rank = ties.rank(x);
  if (!rank || !axis) {
    ties.fix_all("the axis is not known");
    return;
  }
  const bool keep = ties.node().attr_int("keepdims", 1) != 0;
  for (std::size_t slot = 0; slot < ties.outputs(); ++slot) {
    const Operand y = ties.out(slot);
    if (y == kNone) continue;
    std::int64_t to = 0;
    for (std::int64_t i = 0; i < *rank; ++i) {
      if (i != *axis) {
        ties.tie(ties.axis(x, i), ties.axis(y, to++));
      } else {
        ties.fix(ties.axis(y, to), "the order along this axis counts");
        to += keep ? 1 : 0;
      }
    }
  }
  ties.fix(ties.axis(x, *axis), "the order along this axis counts");
}

Status top_k(Ties& ties) {
  along(ties, ties.axis_attr("axis", -1, ties.in(0)));
  return {};
}

Status arg_max(Ties& ties) {
  const Operand y = ties.out(0);
  along(ties, ties.axis_attr("axis", 0, ties.in(0)));
  if (ties.node().attr_int("keepdims", 1) == 0 && ties.rank(y) == ties.rank(ties.in(0))) ties.fix_all("malformed");
  return {};
}

Status cumsum(Ties& ties) {
  OP_LET(const auto literal, ties.literal(1));
  const auto rank = ties.rank(ties.in(0));
  if (!literal || literal->size() != 1 || !rank) {
    along(ties, std::nullopt);
    return {};
  }
  const std::int64_t axis = literal->front() + (literal->front() < 0 ? *rank : 0);
  along(ties, axis >= 0 && axis < *rank ? std::optional(axis) : std::nullopt);
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "ReduceSum", reduce_sum},
    OpRule{"", "ReduceL1", reduce_sum},
    OpRule{"", "ReduceL2", reduce_sum},
    OpRule{"", "ReduceSumSquare", reduce_sum},
    OpRule{"", "ReduceMean", reduce_mean},
    OpRule{"", "ReduceMax", reduce_other},
    OpRule{"", "ReduceMin", reduce_other},
    OpRule{"", "ReduceProd", reduce_other},
    OpRule{"", "ReduceLogSum", reduce_other},
    OpRule{"", "ReduceLogSumExp", reduce_other},
    OpRule{"", "Softmax", softmax},
    OpRule{"", "LogSoftmax", softmax},
    OpRule{"", "Hardmax", softmax},
    OpRule{"", "TopK", top_k},
    OpRule{"", "ArgMax", arg_max},
    OpRule{"", "ArgMin", arg_max},
    OpRule{"", "CumSum", cumsum},
};

}  // namespace

std::span<const OpRule> reduce_rules() { return kRules; }

}  // namespace onnxpress
