#include "depend/attention_view.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace onnxpress {
namespace {

constexpr std::size_t kNone = 99;  // the operator has no such input

// Which input is what. With `weight` the projections are part of the operator, and `query` is what they read.
struct Slots {
  std::string_view op;
  std::size_t query = 0, key = kNone, value = kNone, weight = kNone, bias = kNone;
  std::size_t scores = kNone;                        // is added to the scores: [B or 1, H or 1, S, T]
  std::size_t past = kNone;                          // [2, B, H, P, d]
  std::size_t past_key = kNone, past_value = kNone;  // [B, K, P, d]
  std::size_t sink = kNone;                          // [H]
};
constexpr std::array kSlots = {
    Slots{.op = "Attention", .weight = 1, .bias = 2, .scores = 5, .past = 4},
    Slots{.op = "DecoderMaskedSelfAttention", .weight = 1, .bias = 2, .scores = 5, .past = 4},
    Slots{.op = "PackedAttention", .weight = 1, .bias = 2, .scores = 5},
    Slots{.op = "MultiHeadAttention", .key = 1, .value = 2, .bias = 3, .scores = 5, .past_key = 6, .past_value = 7},
    Slots{.op = "DecoderMaskedMultiHeadAttention",
          .key = 1,
          .value = 2,
          .bias = 10,
          .scores = 4,
          .past_key = 5,
          .past_value = 6},
    Slots{.op = "PackedMultiHeadAttention", .key = 1, .value = 2, .bias = 3, .scores = 6},
    Slots{.op = "GroupQueryAttention", .key = 1, .value = 2, .scores = 10, .past_key = 3, .past_value = 4, .sink = 11},
};

const Slots* slots_of(const Node& node) {
  if (node.domain() != "com.microsoft") return nullptr;
  const auto found = std::ranges::find(kSlots, node.op(), &Slots::op);
  return found == kSlots.end() ? nullptr : &*found;
}

// What the operator computes for one head, in channels.
struct Widths {
  std::int64_t query = 0, value = 0;
};

class Viewer {
 public:
  Viewer(const Node& node, const Slots& slots, const OperandDims& dims) : node_(node), slots_(slots), dims_(dims) {}

  Result<AttentionView> view() {
    view_.heads = node_.attr_int("num_heads", 0);
    view_.units = node_.op() == "GroupQueryAttention" ? node_.attr_int("kv_num_heads", 0) : view_.heads;
    constexpr std::int64_t kMostHeads = 1 << 20;
    if (view_.units < 1 || view_.heads < view_.units || view_.heads > kMostHeads || view_.heads % view_.units != 0)
      return misfit("num_heads");
    OP_TRY(add_projections());
    OP_TRY(add_states());
    return std::move(view_);
  }

 private:
  std::unexpected<Error> misfit(std::string_view what) const {
    return fail(Code::unsupported, "{} of {} does not fit the heads", what, node_.op());
  }
  std::int64_t repeats() const { return view_.heads / view_.units; }
  bool has(std::size_t slot) const { return slot != kNone && !node_.input(slot).empty(); }
  std::optional<Dims> dims_of(std::size_t slot) const { return has(slot) ? dims_(false, slot) : std::nullopt; }
  void add(HeadRun run) { view_.runs.push_back(run); }

  // Channels of `count` heads along the last axis of an operand of rank 2 or 3.
  Result<std::int64_t> width_of(std::optional<Dims> dims, std::int64_t count, std::string_view what) const {
    if (!dims || (dims->size() != 2 && dims->size() != 3) || dims->back() < 1 || dims->back() % count != 0)
      return misfit(what);
    return dims->back() / count;
  }

  // The output, then whatever has the heads of queries, keys and values side by side along one axis.
  Status add_projections() {
    Widths widths;
    const std::int64_t in_row = 2 * view_.units + view_.heads;
    const auto query = dims_of(slots_.query);
    const bool packed = slots_.weight == kNone && !has(slots_.key);
    if (slots_.weight != kNone) {
      OP_LET(widths, widths_of_weight());
    } else if (packed && query && query->size() > 3) {
      widths = {query->back(), query->back()};  // [B, S, H, 3, d] or [T, H, 3, d]
    } else {
      OP_LET(widths.query, width_of(query, packed ? in_row : view_.heads, "the query"));
      OP_LET(widths.value, value_width(widths.query, packed));
    }
    const auto output = dims_(true, 0);
    if (!output || output->size() < 2 || output->back() != view_.heads * widths.value) return misfit("the output");
    add({.output = true, .slot = 0, .axis = output->size() - 1, .per_unit = repeats() * widths.value});
    if (slots_.weight != kNone) {
      add_row(slots_.weight, 1, widths, true);
    } else if (packed && query->size() <= 3) {
      add_row(slots_.query, query->size() - 1, widths, false);
    } else {
      OP_TRY(add_heads(slots_.query, repeats(), widths.query));
      OP_TRY(add_heads(slots_.key, 1, widths.query));
      OP_TRY(add_heads(slots_.value, 1, widths.value));
    }
    const auto bias = dims_of(slots_.bias);
    if (!bias) return {};
    if (bias->size() != 1 || bias->front() != view_.heads * (2 * widths.query + widths.value))
      return misfit("the bias");
    add_row(slots_.bias, 0, widths, false);
    return {};
  }

  // qkv_hidden_sizes, or thirds.
  Result<Widths> widths_of_weight() const {
    const auto dims = dims_of(slots_.weight);
    if (!dims || dims->size() != 2) return misfit("the weight");
    std::vector<std::int64_t> sizes = node_.attr_ints("qkv_hidden_sizes");
    if (sizes.empty()) sizes.assign(3, dims->back() / 3);
    if (sizes.size() != 3 || sizes[0] != sizes[1] || std::ranges::min(sizes) < 1 ||
        sizes[0] + sizes[1] + sizes[2] != dims->back() || sizes[0] % view_.heads != 0 || sizes[2] % view_.heads != 0)
      return misfit("the weight");
    return Widths{sizes[0] / view_.heads, sizes[2] / view_.heads};
  }

  Result<std::int64_t> value_width(std::int64_t query_width, bool packed) const {
    if (packed) return query_width;
    const auto key = dims_of(slots_.key), value = dims_of(slots_.value);
    if (!has(slots_.value) && key && key->size() == 5) return query_width;  // [B, L, H, 2, d]
    if (value && value->size() == 4) return value->back();
    return width_of(value, view_.units, "the value");
  }

  // Queries, keys and values behind one another along `axis`.
  void add_row(std::size_t slot, std::size_t axis, Widths widths, bool weight) {
    const std::int64_t queries = view_.heads * widths.query, keys = view_.units * widths.query;
    HeadRun run{.slot = slot, .axis = axis, .weight = weight, .bias = slot == slots_.bias};
    for (const auto& [start, per_unit] : {std::pair(std::int64_t{0}, repeats() * widths.query),
                                          std::pair(queries, widths.query), std::pair(queries + keys, widths.value)}) {
      run.start = start;
      run.per_unit = per_unit;
      add(run);
    }
  }

  // [T, h*d], [B, S, h*d], [B, h, S, d] or [T, h, 3, d], [B, S, h, 2 or 3, d]; `heads` of them make a unit.
  Status add_heads(std::size_t slot, std::int64_t heads, std::int64_t width) {
    if (!has(slot)) return {};
    const auto dims = dims_of(slot);
    if (!dims || dims->size() < 2 || dims->size() > 5) return misfit("an input");
    const std::size_t axis = dims->size() == 4 ? 1 : std::min<std::size_t>(dims->size() - 1, 2);
    const std::int64_t per_unit = heads * (dims->size() > 3 ? 1 : width);
    if ((*dims)[axis] != per_unit * view_.units) return misfit("an input");
    add({.slot = slot, .axis = axis, .per_unit = per_unit});
    return {};
  }

  // What has an axis of heads: caches, and what is added to the scores.
  Status add_states() {
    OP_TRY(add_axis(false, slots_.past, 2, 1));
    OP_TRY(add_axis(false, slots_.past_key, 1, 1));
    OP_TRY(add_axis(false, slots_.past_value, 1, 1));
    const std::size_t head_axis = slots_.past == kNone ? 1 : 2;
    for (std::size_t slot = 1; slot < node_.output_count(); ++slot)
      OP_TRY(add_axis(true, slot, slot == 3 ? 1 : head_axis, slot == 3 ? repeats() : 1));
    OP_TRY(add_axis(false, slots_.sink, 0, repeats()));
    const auto scores = dims_of(slots_.scores);
    if (!has(slots_.scores) || (scores && scores->size() == 4 && (*scores)[1] == 1)) return {};
    return add_axis(false, slots_.scores, 1, repeats());
  }

  Status add_axis(bool output, std::size_t slot, std::size_t axis, std::int64_t per_unit) {
    if (output ? node_.output(slot).empty() : !has(slot)) return {};
    const auto dims = dims_(output, slot);
    if (!dims || dims->size() <= axis || (*dims)[axis] != per_unit * view_.units)
      return misfit(output ? "a state that is handed out" : "a state or a bias");
    add({.output = output, .slot = slot, .axis = axis, .per_unit = per_unit});
    return {};
  }

  const Node& node_;
  const Slots& slots_;
  const OperandDims& dims_;
  AttentionView view_;
};

}  // namespace

bool is_fused_attention(const Node& node) { return slots_of(node) != nullptr; }

Result<AttentionView> view_attention(const Node& node, const OperandDims& dims) {
  return Viewer(node, *slots_of(node), dims).view();
}

}  // namespace onnxpress
