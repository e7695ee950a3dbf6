// Attributes that count channels: group of convolutions, num_groups, hidden_size.
#include <algorithm>
#include <array>

#include "depend/literals.h"

namespace onnxpress {
namespace {

// Whole groups may be gone, or the same positions in each: either way the groups are what is left of all channels of
// one side, over what is left of those of one group.
Status patch_group(NodePatch& patch, bool transposed) {
  const std::int64_t groups = patch.node().attr_int("group", 1);
  if (groups == 1) return {};
  const auto whole = [&](const Indices* kept, std::size_t slot_axis) -> std::optional<std::int64_t> {
    if (kept != nullptr) return static_cast<std::int64_t>(kept->size());
    const auto block = patch.old_in(1, slot_axis);
    return block ? std::optional(*block * groups) : std::nullopt;
  };
  const auto block = patch.new_in(1, 1);  // of W: in / group, or out / group when transposed
  const auto channels = transposed ? whole(patch.out(0, 1), 1) : whole(patch.in(0, 1), 1);
  const auto others = patch.new_in(1, 0);
  if (!block || !channels || !others || *block < 1 || *channels < 1 || *channels % *block != 0)
    return patch.refuse("what is left of its channels is no whole number of groups");
  const std::int64_t left = *channels / *block;
  if (*others % left != 0) return patch.refuse("what is left of its channels does not divide into its groups");
  if (left != groups) patch.set_attribute("group", left);
  return {};
}

Status conv(NodePatch& patch) { return patch_group(patch, false); }
Status conv_transpose(NodePatch& patch) { return patch_group(patch, true); }

// Either every group keeps equally many channels, or each keeps all or none.
Status group_normalization(NodePatch& patch) {
  const std::int64_t groups = patch.node().attr_int("num_groups", 0);
  const Indices* const kept = patch.in(0, 1);
  const auto channels = patch.old_in(0, 1);
  if (kept == nullptr) return {};
  if (!channels || groups < 1 || *channels % groups != 0) return patch.refuse("its groups do not divide its channels");
  const std::int64_t block = *channels / groups;
  std::vector<std::int64_t> left(static_cast<std::size_t>(groups));
  for (const std::uint32_t index : *kept) ++left[index / static_cast<std::size_t>(block)];
  if (std::ranges::all_of(left, [&](std::int64_t count) { return count == left.front(); })) return {};
  std::int64_t full = 0;
  for (const std::int64_t count : left) {
    if (count != 0 && count != block) return patch.refuse("its groups would have different sizes");
    full += count == block ? 1 : 0;
  }
  patch.set_attribute("num_groups", full);
  return {};
}

Status recurrent(NodePatch& patch) {
  const auto hidden = patch.new_in(2, 2);  // of R: [directions, gates * hidden, hidden]
  if (!hidden || *hidden < 1) return patch.refuse("the size of its recurrent weight is not known");
  if (patch.node().has_attr("hidden_size") && patch.node().attr_int("hidden_size", 0) != *hidden)
    patch.set_attribute("hidden_size", *hidden);
  return {};
}

constexpr std::array kPatchers = {
    OpPatcher{"", "Conv", conv},
    OpPatcher{"", "ConvTranspose", conv_transpose},
    OpPatcher{"com.microsoft", "FusedConv", conv},
    OpPatcher{"", "GroupNormalization", group_normalization},
    OpPatcher{"", "LSTM", recurrent},
    OpPatcher{"", "GRU", recurrent},
    OpPatcher{"", "RNN", recurrent},
};

}  // namespace

std::span<const OpPatcher> group_patchers() { return kPatchers; }

}  // namespace onnxpress
