// Normalizations. Statistics per channel (batch, instance, group) leave channels independent; statistics over the
// channels (layer, RMS, local response) do not: there a removed unit is missing in the mean.
#include <array>

#include "depend/rules.h"

namespace onnxpress {
namespace {

// One number per channel.
void tie_parameters(Ties& ties, std::size_t first_slot, Axis channels) {
  for (std::size_t slot = first_slot; slot < ties.inputs(); ++slot) {
    const Axis axis = ties.axis(ties.in(slot), 0);
    ties.tie_broadcast(axis, channels);
    ties.role(axis, slot == first_slot ? AxisRole::scales : AxisRole::follows);
  }
}

Status batch_norm(Ties& ties) {
  ties.tie_operands(ties.in(0), ties.out(0));
  tie_parameters(ties, 1, ties.axis(ties.in(0), 1));
  for (std::size_t slot = 1; slot < ties.outputs(); ++slot)
    ties.tie(ties.axis(ties.out(slot), 0), ties.axis(ties.in(0), 1));
  return {};
}

Status instance_norm(Ties& ties) {
  const Operand x = ties.in(0);
  ties.tie_operands(x, ties.out(0));
  tie_parameters(ties, 1, ties.axis(x, 1));
  for (std::int64_t i = 2; i < ties.rank(x).value_or(0); ++i)
    ties.approximate(ties.axis(x, i), "normalized over this axis");
  return {};
}

// Whole groups go; `num_groups` shrinks.
Status group_norm(Ties& ties) {
  const Operand x = ties.in(0);
  const Axis channels = ties.axis(x, 1);
  const std::int64_t groups = ties.node().attr_int("num_groups", 0);
  const auto size = ties.size(channels);
  if (!size || groups < 1 || *size % groups != 0) {
    ties.fix_all("groups that do not divide the channels");
    return {};
  }
  ties.tie_operands(x, ties.out(0));
  const std::int64_t block = *size / groups;
  ties.tie_blocks(channels, block);
  for (const std::size_t slot : {1UZ, 2UZ}) {
    const Axis axis = ties.axis(ties.in(slot), 0);
    ties.role(axis, slot == 1 ? AxisRole::scales : AxisRole::follows);
    if (ties.size(axis) == size) {
      ties.tie(axis, channels);
    } else {
      for (std::int64_t g = 0; g < groups; ++g) ties.tie_at(axis, g, channels, g * block);
    }
  }
  for (std::int64_t i = 2; i < ties.rank(x).value_or(0); ++i) ties.fix(ties.axis(x, i), "normalized over this axis");
  return {};
}

// From `axis` to the last.
void normalize_from(Ties& ties, std::int64_t axis) {
  const Operand x = ties.in(0);
  for (std::int64_t i = axis; i < ties.rank(x).value_or(0); ++i) {
    ties.approximate(ties.axis(x, i), "normalized over this axis");
    ties.approximate(ties.axis(ties.out(0), i), "normalized over this axis");
  }
}

// Right-aligned with the input: scale, bias.
void tie_trailing(Ties& ties, std::size_t slot, AxisRole role) {
  const Operand parameter = ties.in(slot);
  for (std::int64_t i = 1; i <= ties.rank(parameter).value_or(0); ++i) {
    ties.tie_broadcast(ties.axis(parameter, -i), ties.axis(ties.in(0), -i));
    ties.role(ties.axis(parameter, -i), role);
  }
}

Status layer_norm(Ties& ties) {
  const Operand x = ties.in(0);
  const auto axis = ties.axis_attr("axis", -1, x);
  if (!axis) {
    ties.fix_all("rank not known");
    return {};
  }
  ties.tie_operands(x, ties.out(0));
  tie_trailing(ties, 1, AxisRole::scales);
  tie_trailing(ties, 2, AxisRole::follows);
  for (std::size_t slot = 1; slot < ties.outputs(); ++slot)  // mean and deviation
    for (std::int64_t i = 0; i < *axis; ++i) ties.tie(ties.axis(ties.out(slot), i), ties.axis(x, i));
  normalize_from(ties, *axis);
  return {};
}

// norm(input + skip + bias): over the last axis. The sum is output 3.
Status skip_norm(Ties& ties, std::size_t parameters_end) {
  const Operand x = ties.in(0);
  const auto rank = ties.rank(x);
  if (!rank || *rank < 1) {
    ties.fix_all("rank not known");
    return {};
  }
  const Operand skip = ties.in(1);
  for (std::int64_t i = 1; i <= ties.rank(skip).value_or(0); ++i)
    ties.tie_broadcast(ties.axis(skip, -i), ties.axis(x, -i));
  if (!ties.rank(skip)) ties.fix_all("rank not known");
  ties.tie_operands(x, ties.out(0));
  ties.tie_operands(x, ties.out(3));
  for (std::size_t slot = 2; slot < ties.inputs(); ++slot)
    tie_trailing(ties, slot, slot == 2 ? AxisRole::scales : slot < parameters_end ? AxisRole::follows : AxisRole::bias);
  for (const std::size_t slot : {1UZ, 2UZ})
    for (std::int64_t i = 0; i + 1 < *rank; ++i)
      if (ties.out(slot) != kNone) ties.tie(ties.axis(ties.out(slot), i), ties.axis(x, i));
  normalize_from(ties, *rank - 1);
  return {};
}

Status skip_layer_norm(Ties& ties) { return skip_norm(ties, 4); }
Status skip_rms_norm(Ties& ties) { return skip_norm(ties, 3); }

// Every channel is divided by a sum over its neighbours.
Status local_response(Ties& ties) {
  ties.tie_operands(ties.in(0), ties.out(0));
  ties.approximate(ties.axis(ties.in(0), 1), "normalized over neighbouring channels");
  return {};
}

// Each vector along the axis is divided by its norm: nothing changes when what is removed was zero.
Status lp_norm(Ties& ties) {
  ties.tie_operands(ties.in(0), ties.out(0));
  return {};
}

Status mean_variance(Ties& ties) {
  ties.tie_operands(ties.in(0), ties.out(0));
  const auto rank = ties.rank(ties.in(0)).value_or(0);
  for (std::int64_t axis : ties.node().attr_ints("axes", {0, 2, 3}))
    ties.approximate(axis < rank ? ties.axis(ties.in(0), axis) : kNone, "normalized over this axis");
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "BatchNormalization", batch_norm},
    OpRule{"", "InstanceNormalization", instance_norm},
    OpRule{"", "GroupNormalization", group_norm},
    OpRule{"", "LayerNormalization", layer_norm},
    OpRule{"", "RMSNormalization", layer_norm},
    OpRule{"", "SimplifiedLayerNormalization", layer_norm},
    OpRule{kMicrosoft, "SimplifiedLayerNormalization", layer_norm},
    OpRule{kMicrosoft, "SkipLayerNormalization", skip_layer_norm},
    OpRule{kMicrosoft, "SkipSimplifiedLayerNormalization", skip_rms_norm},
    OpRule{"", "LRN", local_response},
    OpRule{"", "LpNormalization", lp_norm},
    OpRule{"", "MeanVarianceNormalization", mean_variance},
};

}  // namespace

std::span<const OpRule> norm_rules() { return kRules; }

}  // namespace onnxpress
