// Operators that put axes together or take parts of them: Concat, Split, Slice, Gather, Pad.
#include <algorithm>
#include <array>
#include <limits>

#include "depend/rules.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kLargestPad = std::int64_t{1} << 40;
constexpr std::string_view kRunTime = "what is selected is computed at run time; run @clean first";

// `parts` lie one after the other along the axis of the whole.
void tie_parts(Ties& ties, Operand whole, const std::vector<Operand>& parts, std::optional<std::int64_t> position) {
  const auto rank = ties.rank(whole);
  if (!rank || !position) return ties.fix_all("rank not known");
  const Axis joined = ties.axis(whole, *position);
  std::int64_t offset = 0;
  bool known = ties.size(joined).has_value();
  for (const Operand part : parts) {
    if (part == kNone) continue;
    if (ties.rank(part) != rank) return ties.fix_all("rank not known");
    for (std::int64_t i = 0; i < *rank; ++i)
      if (i != *position) ties.tie(ties.axis(part, i), ties.axis(whole, i));
    const Axis axis = ties.axis(part, *position);
    known = known && ties.size(axis);
    if (known) ties.tie_run({axis}, {joined, offset}, *ties.size(axis));
    offset += ties.size(axis).value_or(0);
  }
  if (known) return;
  ties.fix(joined, "joined with an axis of unknown size");
  for (const Operand part : parts) ties.fix(ties.axis(part, *position), "joined with an axis of unknown size");
}

Status concat(Ties& ties) {
  std::vector<Operand> parts;
  for (std::size_t i = 0; i < ties.inputs(); ++i) parts.push_back(ties.in(i));
  tie_parts(ties, ties.out(0), parts, ties.axis_attr("axis", 1, ties.out(0)));
  return {};
}

Status split_rule(Ties& ties) {
  std::vector<Operand> parts;
  for (std::size_t i = 0; i < ties.outputs(); ++i) parts.push_back(ties.out(i));
  if (std::ranges::find(parts, kNone) != parts.end()) {
    ties.fix_all("a part without a name");
    return {};
  }
  tie_parts(ties, ties.in(0), parts, ties.axis_attr("axis", 0, ties.in(0)));
  return {};
}

using Literal = std::optional<std::vector<std::int64_t>>;

// An attribute before opset 10 or 13, an input since.
Result<Literal> attr_or_input(const Ties& ties, std::string_view key, std::size_t slot) {
  if (ties.node().has_attr(key)) return ties.node().attr_ints(key);
  return ties.literal(slot);
}

// Y[j] ~ X[start + j * step], with Python's rules for negative and too large bounds.
void tie_slice(Ties& ties, Axis from, Axis to, std::int64_t start, std::int64_t end, std::int64_t step) {
  const auto size = ties.size(from);
  if (!size || step == 0 || step == std::numeric_limits<std::int64_t>::min()) {
    for (const Axis axis : {from, to}) ties.fix(axis, "sliced, and its size is not known");
    return;
  }
  const auto clamp = [&](std::int64_t bound) {
    if (bound < 0) bound += *size;
    return step > 0 ? std::clamp<std::int64_t>(bound, 0, *size) : std::clamp<std::int64_t>(bound, -1, *size - 1);
  };
  start = clamp(start);
  end = clamp(end);
  const std::int64_t span = step > 0 ? end - start : start - end;
  const std::int64_t stride = step > 0 ? step : -step;
  const std::int64_t count = span <= 0 ? 0 : 1 + (span - 1) / stride;
  if (ties.size(to) != count) {
    for (const Axis axis : {from, to}) ties.fix(axis, "sizes do not match");
    return;
  }
  ties.tie_run({from, start, step}, {to}, count);
}

Status slice(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto rank = ties.rank(x);
  OP_LET(const Literal starts, attr_or_input(ties, "starts", 1));
  OP_LET(const Literal ends, attr_or_input(ties, "ends", 2));
  OP_LET(Literal axes, attr_or_input(ties, "axes", 3));
  OP_LET(Literal steps, ties.literal(4));
  if (!rank || rank != ties.rank(y) || (!axes && ties.in(3) != kNone)) {
    ties.fix_all(kRunTime);
    return {};
  }
  if (!axes && starts) {
    axes.emplace();
    for (std::size_t i = 0; i < starts->size(); ++i) axes->push_back(static_cast<std::int64_t>(i));
  }
  if (!steps && ties.in(4) == kNone && axes) steps.emplace(axes->size(), 1);
  if (!axes) {
    ties.fix_all(kRunTime);
    return {};
  }
  const bool literal = starts && ends && steps && starts->size() == axes->size() && ends->size() == axes->size() &&
                       steps->size() == axes->size();
  for (std::int64_t& axis : *axes) axis += axis < 0 ? *rank : 0;
  for (std::int64_t i = 0; i < *rank; ++i) {
    const Axis from = ties.axis(x, i), to = ties.axis(y, i);
    const auto at = static_cast<std::size_t>(std::ranges::find(*axes, i) - axes->begin());
    if (at == axes->size()) {
      ties.tie(from, to);
    } else if (literal) {
      tie_slice(ties, from, to, (*starts)[at], (*ends)[at], (*steps)[at]);
    } else {
      for (const Axis axis : {from, to}) ties.fix(axis, kRunTime);
    }
  }
  return {};
}

// Y[j] ~ X[indices[j]] for a constant list; a single index, or one that is computed, needs the axis as it is.
Status gather(Ties& ties) {
  const Operand x = ties.in(0), indices = ties.in(1), y = ties.out(0);
  const auto rank = ties.rank(x), index_rank = ties.rank(indices), out_rank = ties.rank(y);
  const auto position = ties.axis_attr("axis", 0, x);
  if (!rank || !index_rank || !position || out_rank != *rank - 1 + *index_rank) {
    ties.fix_all("rank not known");
    return {};
  }
  const Axis from = ties.axis(x, *position);
  for (std::int64_t i = 0; i < *rank; ++i) {
    if (i == *position) continue;
    ties.tie(ties.axis(x, i), ties.axis(y, i < *position ? i : i - 1 + *index_rank));
    // Rows of an embedding make the units behind it as the rows of a weight do.
    if (ties.constant(x) && is_float(ties.scope().tensors[x].dtype)) ties.role(ties.axis(x, i), AxisRole::produces);
  }
  OP_LET(const Literal list, ties.literal(1));
  if (list && *index_rank == 1 && ties.size(from)) {
    for (std::size_t j = 0; j < list->size(); ++j) {
      const std::int64_t index = (*list)[j] + ((*list)[j] < 0 ? *ties.size(from) : 0);
      ties.tie_at(from, index, ties.axis(y, *position), static_cast<std::int64_t>(j));
    }
    return {};
  }
  ties.fix(from, *index_rank == 0 ? "one index of it is selected" : "looked up by index");
  for (std::int64_t i = 0; i < *index_rank; ++i) {
    const Axis to = ties.axis(y, *position + i);
    list ? ties.fix(to, "looked up by index") : ties.tie(ties.axis(indices, i), to);
  }
  return {};
}

// The pads at both ends of an axis, by axis of X.
Result<std::optional<std::vector<std::pair<std::int64_t, std::int64_t>>>> read_pads(const Ties& ties,
                                                                                    std::int64_t rank) {
  Literal pads;
  if (ties.node().has_attr("paddings")) {
    pads = ties.node().attr_ints("paddings");
  } else {
    OP_LET(pads, attr_or_input(ties, "pads", 1));
  }
  OP_LET(Literal axes, ties.literal(3));
  if (!axes && ties.in(3) == kNone) {
    axes.emplace();
    for (std::int64_t i = 0; i < rank; ++i) axes->push_back(i);
  }
  if (!pads || !axes || pads->size() != 2 * axes->size()) return std::nullopt;
  std::vector<std::pair<std::int64_t, std::int64_t>> result(static_cast<std::size_t>(rank));
  for (std::size_t i = 0; i < axes->size(); ++i) {
    const std::int64_t axis = (*axes)[i] + ((*axes)[i] < 0 ? rank : 0);
    const std::int64_t before = (*pads)[i], after = (*pads)[i + axes->size()];
    if (axis < 0 || axis >= rank || before < -kLargestPad || before > kLargestPad || after < -kLargestPad ||
        after > kLargestPad)
      return std::nullopt;
    result[static_cast<std::size_t>(axis)] = {before, after};
  }
  return result;
}

// What is padded belongs to no unit unless something else ties it; a negative pad cuts.
Status pad(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto rank = ties.rank(x);
  if (!rank || rank != ties.rank(y)) {
    ties.fix_all("rank not known");
    return {};
  }
  OP_LET(const auto pads, read_pads(ties, *rank));
  if (!pads) {
    ties.fix_all("pads that are computed at run time; run @clean first");
    return {};
  }
  const bool constant = ties.node().attr_string("mode", "constant") == "constant";
  for (std::int64_t i = 0; i < *rank; ++i) {
    const Axis from = ties.axis(x, i), to = ties.axis(y, i);
    const auto [before, after] = (*pads)[static_cast<std::size_t>(i)];
    if (before == 0 && after == 0) {
      ties.tie(from, to);
    } else if (!constant || !ties.size(from) || !ties.size(to) || *ties.size(to) != *ties.size(from) + before + after) {
      for (const Axis axis : {from, to}) ties.fix(axis, "padded with what it holds");
    } else {
      const std::int64_t cut = std::max<std::int64_t>(-before, 0);
      ties.tie_run({from, cut}, {to, std::max<std::int64_t>(before, 0)},
                   *ties.size(from) - cut - std::max<std::int64_t>(-after, 0));
    }
  }
  return {};
}

// Which part of the last two axes is kept depends on both.
Status trilu(Ties& ties) {
  ties.tie_operands(ties.in(0), ties.out(0));
  for (const std::int64_t i : {-1, -2}) ties.fix(ties.axis(ties.in(0), i), "a triangle over this axis");
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "Concat", concat}, OpRule{"", "Split", split_rule}, OpRule{"", "Slice", slice},
    OpRule{"", "Gather", gather}, OpRule{"", "Pad", pad},          OpRule{"", "Trilu", trilu},
};

}  // namespace

std::span<const OpRule> select_rules() { return kRules; }

}  // namespace onnxpress
