// Pools, resizing and the moves between channels and space.
#include <array>
#include <numeric>

#include "depend/rules.h"

namespace onnxpress {
namespace {

// Batch and channels as they are; rows and columns stay.
void keep_channels(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  for (const std::int64_t i : {0, 1}) ties.tie(ties.axis(x, i), ties.axis(y, i));
  for (const Operand operand : {x, y})
    for (std::int64_t i = 2; i < ties.rank(operand).value_or(0); ++i)
      ties.fix(ties.axis(operand, i), "rows and columns of an image");
}

Status pool(Ties& ties) {
  const Graph& graph = *ties.scope().graph;
  const std::string_view positions = ties.node().output(1);
  if (!positions.empty() && (!graph.uses(positions).empty() || graph.is_output(positions))) {
    ties.fix_all("positions of the maxima count through all channels");
    return {};
  }
  keep_channels(ties);
  return {};
}

// Whatever names sizes or factors names them for all axes; `apply` rewrites that of a cut axis. Here it matters that no
// axis but the ones resized changes its size.
Status resize(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  if (ties.node().attr_string("coordinate_transformation_mode", "") == "tf_crop_and_resize") {
    ties.fix_all("a crop that is given relative to the size");
    return {};
  }
  if (!ties.rank(x) || ties.rank(x) != ties.rank(y)) {
    ties.fix_all("rank not known");
    return {};
  }
  for (std::int64_t i = 0; i < *ties.rank(x); ++i) {
    const Axis from = ties.axis(x, i), to = ties.axis(y, i);
    if (i < 2) {
      ties.tie(from, to);
    } else {
      for (const Axis axis : {from, to}) ties.fix(axis, "rows and columns of an image");
    }
  }
  return {};
}

// The grid, or the boxes, hold positions only.
Status sample(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  ties.tie(ties.axis(x, 1), ties.axis(y, 1));
  for (std::size_t slot = 1; slot < ties.inputs(); ++slot) ties.fix_operand(ties.in(slot), "positions in an image");
  for (const Operand operand : {x, y})
    for (std::int64_t i = 0; i < ties.rank(operand).value_or(0); ++i)
      if (i != 1) ties.fix(ties.axis(operand, i), "rows and columns of an image");
  return {};
}

// Channel c of the narrow side is b*b channels of the wide one.
void tie_depth(Ties& ties, Operand narrow, Operand wide, bool column_row_depth) {
  const std::int64_t b = ties.node().attr_int("blocksize", 0);
  const Axis few = ties.axis(narrow, 1), many = ties.axis(wide, 1);
  const auto few_size = ties.size(few), many_size = ties.size(many);
  if (b < 1 || b > 1024 || !few_size || !many_size || *few_size * b * b != *many_size) {
    ties.fix_all("block size that does not fit");
    return;
  }
  for (std::int64_t i = 0; i < *many_size; ++i)
    ties.tie_at(many, i, few, column_row_depth ? i / (b * b) : i % *few_size);
  ties.tie(ties.axis(narrow, 0), ties.axis(wide, 0));
  for (const Operand operand : {narrow, wide})
    for (const std::int64_t i : {2, 3}) ties.fix(ties.axis(operand, i), "rows and columns of an image");
}

Status depth_to_space(Ties& ties) {
  tie_depth(ties, ties.out(0), ties.in(0), ties.node().attr_string("mode", "DCR") == "CRD");
  return {};
}

Status space_to_depth(Ties& ties) {
  tie_depth(ties, ties.in(0), ties.out(0), false);
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "MaxPool", pool},
    OpRule{"", "AveragePool", pool},
    OpRule{"", "LpPool", pool},
    OpRule{"", "GlobalMaxPool", pool},
    OpRule{"", "GlobalAveragePool", pool},
    OpRule{"", "GlobalLpPool", pool},
    OpRule{"", "Resize", resize},
    OpRule{"", "Upsample", resize},
    OpRule{"", "GridSample", sample},
    OpRule{"", "RoiAlign", sample},
    OpRule{"", "DepthToSpace", depth_to_space},
    OpRule{"", "SpaceToDepth", space_to_depth},
};

}  // namespace

std::span<const OpRule> spatial_rules() { return kRules; }

}  // namespace onnxpress
