// Shapes: Reshape, Expand, Tile, ConstantOfShape, Resize. A literal number of a cut axis becomes what is left of it; 0
// and -1 mean the same as before.
#include <algorithm>
#include <array>

#include "depend/literals.h"

namespace onnxpress {
namespace {

// The size of a cut axis of the output; none when it is whole.
std::optional<std::int64_t> cut_size(const NodePatch& patch, std::size_t axis) {
  return patch.out(0, axis) != nullptr ? patch.new_out(0, axis) : std::nullopt;
}

Status reshape(NodePatch& patch) {
  const bool copies = patch.node().attr_int("allowzero", 0) == 0;
  const auto number = [&](std::size_t i, std::int64_t old) -> std::optional<std::int64_t> {
    if (old == -1) return std::nullopt;
    if (old == 0 && copies) {  // the size of the input's axis, which may be cut in another way
      const auto size = patch.new_out(0, i);
      return size && size != patch.new_in(0, i) ? size : std::nullopt;
    }
    return cut_size(patch, i);
  };
  if (!patch.node().has_attr("shape")) return patch.set_shape(1, number);
  std::vector<std::int64_t> shape = patch.node().attr_ints("shape");
  for (std::size_t i = 0; i < shape.size(); ++i) shape[i] = number(i, shape[i]).value_or(shape[i]);
  patch.set_attribute("shape", std::move(shape));
  return {};
}

// The shape is aligned to the right; 1 leaves an axis as it is.
Status expand(NodePatch& patch) {
  const auto rank = patch.rank_out(0);
  const auto length = patch.old_in(1, 0);
  if (!rank || !length || *length < 0 || static_cast<std::size_t>(*length) > *rank)
    return patch.refuse("the rank of its shape is not known");
  const std::size_t first = *rank - static_cast<std::size_t>(*length);
  return patch.set_shape(
      1, [&](std::size_t i, std::int64_t old) { return old == 1 ? std::nullopt : cut_size(patch, first + i); });
}

Status constant_of_shape(NodePatch& patch) {
  return patch.set_shape(0, [&](std::size_t i, std::int64_t) { return cut_size(patch, i); });
}

// Y holds X `repeats` times; only where X is not cut along with Y does that number change.
Status tile(NodePatch& patch) {
  OP_LET(auto repeats, patch.literal(1));
  for (std::size_t axis = 0; axis < patch.rank_out(0).value_or(0); ++axis) {
    const auto before = patch.new_in(0, axis), after = cut_size(patch, axis);
    if (!after) continue;
    if (!before || *before < 1 || *after % *before != 0 || !repeats || axis >= repeats->size())
      return patch.refuse("what is left is no whole number of tiles");
    (*repeats)[axis] = *after / *before;
  }
  return repeats ? patch.set_literal(1, *repeats) : Status();
}

// Sizes for all axes, or for those in `axes` (opset 18). Factors stay: that of a cut axis is 1.
Status resize(NodePatch& patch) {
  const std::size_t slot = 3;
  if (patch.node().input(slot).empty()) return {};
  const auto rank = patch.rank_out(0);
  std::vector<std::int64_t> axes = patch.node().attr_ints("axes");
  if (!rank) return patch.refuse("rank not known");
  if (axes.empty())
    for (std::size_t i = 0; i < *rank; ++i) axes.push_back(static_cast<std::int64_t>(i));
  return patch.set_shape(slot, [&](std::size_t i, std::int64_t) -> std::optional<std::int64_t> {
    if (i >= axes.size()) return std::nullopt;
    const std::int64_t axis = axes[i] < 0 ? axes[i] + static_cast<std::int64_t>(*rank) : axes[i];
    return axis < 0 ? std::nullopt : cut_size(patch, static_cast<std::size_t>(axis));
  });
}

constexpr std::array kPatchers = {
    OpPatcher{"", "Reshape", reshape}, OpPatcher{"", "Expand", expand},
    OpPatcher{"", "Tile", tile},       OpPatcher{"", "ConstantOfShape", constant_of_shape},
    OpPatcher{"", "Resize", resize},
};

}  // namespace

std::span<const OpPatcher> shape_patchers() { return kPatchers; }

}  // namespace onnxpress
