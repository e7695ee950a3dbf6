// Attributes of fused attention that count heads: num_heads, kv_num_heads, qkv_hidden_sizes. The widths of a head
// (scale, rotary_embedding_dim) stay.
#include <algorithm>
#include <array>

#include "depend/attention_view.h"
#include "depend/literals.h"

namespace onnxpress {
namespace {

std::optional<Dims> old_dims(const NodePatch& patch, bool output, std::size_t slot) {
  const auto rank = output ? patch.rank_out(slot) : patch.rank_in(slot);
  if (!rank) return std::nullopt;
  Dims dims;
  for (std::size_t i = 0; i < *rank; ++i)
    dims.push_back((output ? patch.old_out(slot, i) : patch.old_in(slot, i)).value_or(-1));
  return dims;
}

Status attention(NodePatch& patch) {
  const Node& node = patch.node();
  const auto view = view_attention(node, [&](bool output, std::size_t slot) { return old_dims(patch, output, slot); });
  if (!view) return {};  // the rule has fixed all of it
  const HeadRun& output = view->runs.front();
  const Indices* const kept = patch.out(0, output.axis);
  if (kept == nullptr) return {};
  const auto channels = static_cast<std::int64_t>(kept->size());
  if (channels == 0 || channels % output.per_unit != 0) return patch.refuse("what is left are no whole heads");
  const std::int64_t units = channels / output.per_unit;
  patch.set_attribute("num_heads", units * (view->heads / view->units));
  if (node.has_attr("kv_num_heads")) patch.set_attribute("kv_num_heads", units);
  if (!node.has_attr("qkv_hidden_sizes")) return {};
  std::vector<std::int64_t> sizes;
  for (const HeadRun& run : view->runs)
    if (run.weight) sizes.push_back(units * run.per_unit);
  patch.set_attribute("qkv_hidden_sizes", std::move(sizes));
  return {};
}

Status rotary_embedding(NodePatch& patch) {
  const std::int64_t heads = patch.node().attr_int("num_heads", 0);
  const auto rank = patch.rank_in(0);
  if (heads < 1 || !rank || (*rank != 3 && *rank != 4)) return {};
  const std::size_t axis = *rank == 4 ? 1 : 2;
  const auto before = patch.old_in(0, axis), after = patch.new_in(0, axis);
  if (!before || !after || before == after) return {};
  if (*before < 1 || heads * *after % *before != 0) return patch.refuse("what is left are no whole heads");
  patch.set_attribute("num_heads", heads * *after / *before);
  return {};
}

constexpr std::array kPatchers = {
    OpPatcher{"com.microsoft", "Attention", attention},
    OpPatcher{"com.microsoft", "PackedAttention", attention},
    OpPatcher{"com.microsoft", "DecoderMaskedSelfAttention", attention},
    OpPatcher{"com.microsoft", "MultiHeadAttention", attention},
    OpPatcher{"com.microsoft", "PackedMultiHeadAttention", attention},
    OpPatcher{"com.microsoft", "DecoderMaskedMultiHeadAttention", attention},
    OpPatcher{"com.microsoft", "GroupQueryAttention", attention},
    OpPatcher{"com.microsoft", "RotaryEmbedding", rotary_embedding},
};

}  // namespace

std::span<const OpPatcher> attention_patchers() { return kPatchers; }

}  // namespace onnxpress
