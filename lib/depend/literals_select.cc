// Parts of axes: Split, Slice, Gather, Pad. What they name by position is looked up among what is left.
#include <algorithm>
#include <array>
#include <limits>

#include "depend/literals.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kToEnd = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kToBegin = std::numeric_limits<std::int64_t>::min();

std::optional<std::size_t> axis_of(const NodePatch& patch, std::int64_t axis) {
  const auto rank = patch.rank_in(0);
  if (!rank) return std::nullopt;
  const std::int64_t positive = axis < 0 ? axis + static_cast<std::int64_t>(*rank) : axis;
  if (positive < 0 || positive >= static_cast<std::int64_t>(*rank)) return std::nullopt;
  return static_cast<std::size_t>(positive);
}

// Sizes become explicit, as an attribute before opset 13 and as an input since.
Status split(NodePatch& patch) {
  const Node& node = patch.node();
  const auto axis = axis_of(patch, node.attr_int("axis", 0));
  if (!axis) return patch.refuse("axis not known");
  bool cut = patch.in(0, *axis) != nullptr;
  std::vector<std::int64_t> sizes;
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < node.output_count(); ++i) {
    const auto size = patch.new_out(i, *axis);
    if (!size) return patch.refuse("the size of a part is not known");
    if (*size == 0) return patch.refuse("nothing is left of a part");
    cut = cut || patch.out(i, *axis) != nullptr;
    sizes.push_back(*size);
    sum += *size;
  }
  if (!cut) return {};
  if (patch.new_in(0, *axis) != sum) return patch.refuse("the parts do not add up to what is left");
  if (node.graph().model().opset() < 13) {
    patch.set_attribute("split", std::move(sizes));
    return {};
  }
  if (node.has_attr("num_outputs")) patch.edits.removed_attributes.emplace_back("num_outputs");
  if (node.input(1).empty()) {
    patch.add_literal(1, sizes);
    return {};
  }
  return patch.set_literal(1, sizes);
}

// One axis of a Slice, and what of the cut axis it takes.
struct Range {
  std::int64_t start = 0, end = 0, step = 1;
};

// The indices that a range takes of an axis, with Python's rules.
std::vector<std::int64_t> indices_of(const Range& range, std::int64_t size) {
  const auto clamp = [&](std::int64_t bound, std::int64_t low, std::int64_t high) {
    return std::clamp(bound < 0 ? bound + size : bound, low, high);
  };
  std::vector<std::int64_t> indices;
  if (range.step > 0) {
    const std::int64_t end = clamp(range.end, 0, size);
    for (std::int64_t i = clamp(range.start, 0, size); i < end; i += std::min(range.step, size)) indices.push_back(i);
  } else {
    const std::int64_t end = clamp(range.end, -1, size - 1);
    for (std::int64_t i = clamp(range.start, 0, size - 1); i > end; i += std::max(range.step, -size))
      indices.push_back(i);
  }
  return indices;
}

// Positions as one range of an axis of `size`; none when they are not evenly spaced.
std::optional<Range> range_of(const std::vector<std::int64_t>& positions, std::int64_t size) {
  if (positions.empty()) return Range{0, 0, 1};
  Range range{positions.front(), 0, positions.size() > 1 ? positions[1] - positions[0] : 1};
  if (range.step == 0) return std::nullopt;
  for (std::size_t i = 1; i < positions.size(); ++i)
    if (positions[i] - positions[i - 1] != range.step) return std::nullopt;
  range.end = positions.back() + (range.step > 0 ? 1 : -1);
  if (range.step > 0 && range.end == size) range.end = kToEnd;
  if (range.step < 0 && range.end < 0) range.end = kToBegin;
  return range;
}

struct SliceLiterals {
  std::vector<std::int64_t> starts, ends, axes, steps;
  bool attributes = false;  // before opset 10
};

Result<std::optional<SliceLiterals>> read_slice(const NodePatch& patch) {
  const Node& node = patch.node();
  SliceLiterals slice;
  if (node.has_attr("starts")) {
    slice = {node.attr_ints("starts"), node.attr_ints("ends"), node.attr_ints("axes"), {}, true};
  } else {
    OP_LET(auto starts, patch.literal(1));
    OP_LET(auto ends, patch.literal(2));
    OP_LET(auto axes, patch.literal(3));
    OP_LET(auto steps, patch.literal(4));
    if (!starts || !ends || (!axes && !node.input(3).empty()) || (!steps && !node.input(4).empty()))
      return std::nullopt;
    slice = {std::move(*starts), std::move(*ends), axes.value_or(std::vector<std::int64_t>()),
             steps.value_or(std::vector<std::int64_t>()), false};
  }
  if (slice.axes.empty())
    for (std::size_t i = 0; i < slice.starts.size(); ++i) slice.axes.push_back(static_cast<std::int64_t>(i));
  if (slice.steps.empty()) slice.steps.assign(slice.axes.size(), 1);
  if (slice.ends.size() != slice.starts.size() || slice.axes.size() != slice.starts.size() ||
      slice.steps.size() != slice.starts.size() || std::ranges::contains(slice.steps, 0) ||
      std::ranges::contains(slice.steps, kToBegin))
    return patch.refuse("its starts, ends, axes and steps do not fit together");
  return slice;
}

// Where in the cut input the elements lie that the cut output keeps.
Result<std::vector<std::int64_t>> left_positions(const NodePatch& patch, std::size_t axis,
                                                 const std::vector<std::int64_t>& indices) {
  const auto size = patch.old_in(0, axis);
  const Indices* const kept_in = patch.in(0, axis);
  const Indices* const kept_out = patch.out(0, axis);
  const std::vector<std::int64_t> positions =
      kept_in != nullptr ? positions_of(*kept_in, static_cast<std::size_t>(*size)) : std::vector<std::int64_t>();
  std::vector<std::int64_t> left;
  for (std::size_t j = 0; j < indices.size(); ++j) {
    if (kept_out != nullptr && !std::ranges::binary_search(*kept_out, static_cast<std::uint32_t>(j))) continue;
    const std::int64_t index = indices[j];
    if (index < 0 || index >= *size) return patch.refuse("it names an index that does not exist");
    const std::int64_t position = kept_in != nullptr ? positions[static_cast<std::size_t>(index)] : index;
    if (position < 0) return patch.refuse("it still needs something that is gone");
    left.push_back(position);
  }
  return left;
}

Status write_slice(NodePatch& patch, const SliceLiterals& slice) {
  if (slice.attributes) {
    patch.set_attribute("starts", slice.starts);
    patch.set_attribute("ends", slice.ends);
    return {};
  }
  const auto type = patch.node().graph().constant_type(patch.node().input(1));
  std::vector<std::int64_t> starts = slice.starts, ends = slice.ends;
  if (type && type->first == DType::i32) {
    const auto narrow = [](std::int64_t& bound) {
      bound = std::clamp<std::int64_t>(bound, std::numeric_limits<std::int32_t>::min(),
                                       std::numeric_limits<std::int32_t>::max());
    };
    std::ranges::for_each(starts, narrow);
    std::ranges::for_each(ends, narrow);
  }
  OP_TRY(patch.set_literal(1, starts));
  OP_TRY(patch.set_literal(2, ends));
  if (!patch.node().input(4).empty()) return patch.set_literal(4, slice.steps);
  if (std::ranges::all_of(slice.steps, [](std::int64_t step) { return step == 1; })) return {};
  if (patch.node().input(3).empty()) patch.add_literal(3, slice.axes);
  patch.add_literal(4, slice.steps);
  return {};
}

// What is left of a range is a range again in most cases. What is not becomes a Gather: in front of the Slice, or in
// its place when it does nothing else.
Status slice(NodePatch& patch) {
  OP_LET(std::optional<SliceLiterals> slice, read_slice(patch));
  std::vector<NodeEdits::Selection> irregular;
  for (std::size_t k = 0; slice && k < slice->axes.size(); ++k) {
    const auto axis = axis_of(patch, slice->axes[k]);
    if (!axis) return patch.refuse("axis not known");
    if (patch.in(0, *axis) == nullptr && patch.out(0, *axis) == nullptr) continue;
    const auto size = patch.old_in(0, *axis);
    if (!size) return patch.refuse("the size of a cut axis is not known");
    OP_LET(auto left,
           left_positions(patch, *axis, indices_of({slice->starts[k], slice->ends[k], slice->steps[k]}, *size)));
    auto range = range_of(left, *patch.new_in(0, *axis));
    const bool steps = range && range->step != 1 && slice->attributes;
    if (!range || steps) {
      irregular.push_back({static_cast<std::int64_t>(*axis), std::move(left)});
      range = Range{0, kToEnd, 1};
    }
    slice->starts[k] = range->start;
    slice->ends[k] = range->end;
    slice->steps[k] = range->step;
  }
  if (!slice) {  // computed bounds: fine as long as no axis is cut that they could name
    const bool cut = patch.touches_in(0) || patch.touches_out(0);
    OP_LET(const auto axes, patch.literal(3));
    if (!cut) return {};
    if (!axes) return patch.refuse("what it takes is computed at run time");
    for (const std::int64_t named : *axes) {
      const auto axis = axis_of(patch, named);
      if (!axis || patch.in(0, *axis) != nullptr || patch.out(0, *axis) != nullptr)
        return patch.refuse("what it takes is computed at run time");
    }
    return {};
  }
  if (!irregular.empty() && patch.node().graph().is_constant(patch.node().input(0)))
    return patch.refuse("it takes irregular parts of a constant; run @clean first");
  if (!irregular.empty() && irregular.size() == slice->axes.size()) {
    patch.edits.gather = std::move(irregular.back());
    irregular.pop_back();
    patch.edits.selections = std::move(irregular);
    return {};
  }
  patch.edits.selections = std::move(irregular);
  return write_slice(patch, *slice);
}

// Constant indices are looked up again, and cut where the output lost some.
Status gather(NodePatch& patch) {
  const auto axis = axis_of(patch, patch.node().attr_int("axis", 0));
  if (!axis) return patch.refuse("axis not known");
  const auto index_rank = patch.rank_in(1);
  bool cut = patch.in(0, *axis) != nullptr;
  for (std::size_t i = 0; i < index_rank.value_or(0); ++i) cut = cut || patch.out(0, *axis + i) != nullptr;
  if (!cut) return {};
  const auto size = patch.old_in(0, *axis);
  OP_LET(auto indices, patch.literal(1));
  if (patch.in(0, *axis) == nullptr && !indices) return {};  // computed indices are cut where they are computed
  if (!size || !indices || !index_rank) return patch.refuse("its indices are computed at run time");
  for (std::int64_t& index : *indices) index += index < 0 ? *size : 0;
  if (*index_rank != 1) {
    for (std::size_t i = 0; i < *index_rank; ++i)
      if (patch.out(0, *axis + i) != nullptr) return patch.refuse("its table of indices is cut");
  }
  OP_LET(const auto left, left_positions(patch, *axis, *indices));
  return patch.set_literal(1, left);
}

// Pads of a cut axis: as many as the output keeps of them; a negative pad takes away what is left of what it took.
Status patch_pads(const NodePatch& patch, std::size_t axis, std::int64_t& before, std::int64_t& after) {
  const Indices* const kept_in = patch.in(0, axis);
  const Indices* const kept_out = patch.out(0, axis);
  if (kept_in == nullptr && kept_out == nullptr) return {};
  const auto in = patch.old_in(0, axis), out = patch.old_out(0, axis);
  if (!in || !out || *out != *in + before + after) return patch.refuse("the size of a padded axis is not known");
  const auto count = [](const Indices* kept, std::int64_t from, std::int64_t to) -> std::int64_t {
    if (to <= from) return 0;
    if (kept == nullptr) return to - from;
    return std::ranges::count_if(*kept, [&](std::uint32_t i) { return i >= from && i < to; });
  };
  const std::int64_t new_before = before > 0 ? count(kept_out, 0, before) : -count(kept_in, 0, -before);
  const std::int64_t new_after = after > 0 ? count(kept_out, *out - after, *out) : -count(kept_in, *in + after, *in);
  if (*patch.new_out(0, axis) != *patch.new_in(0, axis) + new_before + new_after)
    return patch.refuse("its input and its output keep different things");
  before = new_before;
  after = new_after;
  return {};
}

Status pad(NodePatch& patch) {
  const Node& node = patch.node();
  const auto rank = patch.rank_in(0);
  const std::string key = node.has_attr("paddings") ? "paddings" : "pads";
  const bool attribute = node.has_attr(key);
  std::optional<std::vector<std::int64_t>> pads, axes;
  if (attribute) {
    pads = node.attr_ints(key);
  } else {
    OP_LET(pads, patch.literal(1));
    OP_LET(axes, patch.literal(3));
  }
  if (!rank || !pads || (!axes && !node.input(3).empty())) return patch.refuse("its pads are computed at run time");
  if (!axes) {
    axes.emplace();
    for (std::size_t i = 0; i < *rank; ++i) axes->push_back(static_cast<std::int64_t>(i));
  }
  if (pads->size() != 2 * axes->size()) return patch.refuse("its pads do not fit its axes");
  for (std::size_t i = 0; i < axes->size(); ++i) {
    const auto axis = axis_of(patch, (*axes)[i]);
    if (!axis) return patch.refuse("axis not known");
    OP_TRY(patch_pads(patch, *axis, (*pads)[i], (*pads)[i + axes->size()]));
  }
  if (!attribute) return patch.set_literal(1, *pads);
  patch.set_attribute(key, std::move(*pads));
  return {};
}

constexpr std::array kPatchers = {
    OpPatcher{"", "Split", split},
    OpPatcher{"", "Slice", slice},
    OpPatcher{"", "Gather", gather},
    OpPatcher{"", "Pad", pad},
};

}  // namespace

std::span<const OpPatcher> select_patchers() { return kPatchers; }

}  // namespace onnxpress
