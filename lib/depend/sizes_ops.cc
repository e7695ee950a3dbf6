// Shapes of outputs, axis by axis, for the operators that networks are made of.
#include <algorithm>
#include <array>

#include "depend/rules.h"
#include "depend/sizes.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 40;

using DimList = std::vector<Dim>;
using Integers = std::optional<std::vector<std::int64_t>>;

std::optional<std::size_t> normal(std::int64_t axis, std::size_t rank) {
  if (axis < 0) axis += static_cast<std::int64_t>(rank);
  if (axis < 0 || axis >= static_cast<std::int64_t>(rank)) return std::nullopt;
  return static_cast<std::size_t>(axis);
}

Integers attr_or_input(const Sizes& sizes, const Node& node, std::string_view key, std::size_t slot) {
  if (node.has_attr(key)) return node.attr_ints(key);
  const SizeList list = sizes.integers(node.input(slot));
  if (!list) return std::nullopt;
  Integers result(std::in_place);
  for (const Dim& dim : *list) {
    if (!dim.value) return std::nullopt;
    result->push_back(*dim.value);
  }
  return result;
}

// The product of some dims: a number, one symbol, or nothing.
Dim product(std::span<const Dim> dims) {
  Dim result{1, {}};
  for (const Dim& dim : dims) {
    if (dim.value == 1) continue;
    if (result.value == 1) {
      result = dim;
    } else if (result.value && dim.value && *dim.value > 0 && *result.value <= kLargest / *dim.value) {
      *result.value *= *dim.value;
    } else {
      return {};
    }
  }
  return result;
}

SizeList matmul(const SizeList& a, const SizeList& b) {
  if (!a || !b || a->empty() || b->empty()) return std::nullopt;
  const auto leading = [](const DimList& dims) {
    return SizeList(DimList(dims.begin(), dims.end() - std::min<std::ptrdiff_t>(2, std::ssize(dims))));
  };
  SizeList result = broadcast_sizes(leading(*a), leading(*b));
  if (a->size() > 1) result->push_back((*a)[a->size() - 2]);
  if (b->size() > 1) result->push_back(b->back());
  return result;
}

SizeList fused_matmul(const Sizes& sizes, const Node& node) {
  if (node.attr_int("transBatchA", 0) != 0 || node.attr_int("transBatchB", 0) != 0) return std::nullopt;
  const auto operand = [&](std::size_t slot, std::string_view transposed) {
    SizeList dims = sizes.shape(node.input(slot));
    if (dims && dims->size() > 1 && node.attr_int(transposed, 0) != 0)
      std::swap(dims->back(), (*dims)[dims->size() - 2]);
    return dims;
  };
  return matmul(operand(0, "transA"), operand(1, "transB"));
}

SizeList gemm(const Sizes& sizes, const Node& node) {
  const SizeList a = sizes.shape(node.input(0)), b = sizes.shape(node.input(1));
  if (!a || !b || a->size() != 2 || b->size() != 2) return std::nullopt;
  return DimList{(*a)[node.attr_int("transA", 0) != 0 ? 1 : 0], (*b)[node.attr_int("transB", 0) != 0 ? 0 : 1]};
}

// Positions of a window along one axis, without automatic or asymmetric rounding.
Dim windows(const Node& node, const Dim& in, std::int64_t kernel, std::size_t axis, std::size_t axes) {
  const auto at = [&](std::string_view key, std::size_t i, std::int64_t fallback) {
    const auto list = node.attr_ints(key);
    return i < list.size() ? list[i] : fallback;
  };
  const std::int64_t stride = at("strides", axis, 1), dilation = at("dilations", axis, 1);
  const std::int64_t pads = at("pads", axis, 0) + at("pads", axis + axes, 0);
  const bool plain = node.attr_string("auto_pad", "NOTSET") == "NOTSET" && node.attr_int("ceil_mode", 0) == 0;
  if (!plain || !in.value || stride < 1 || dilation < 1 || kernel < 1 || *in.value > kLargest) return {};
  if (kernel > 1 << 20 || dilation > 1 << 20 || pads < -kLargest || pads > kLargest) return {};
  const std::int64_t room = *in.value + pads - dilation * (kernel - 1) - 1;
  return room < 0 ? Dim{} : Dim{room / stride + 1, {}};
}

SizeList convolution(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0)), w = sizes.shape(node.input(1));
  if (!x || !w || x->size() != w->size() || x->size() < 3) return std::nullopt;
  DimList result = {(*x)[0], (*w)[0]};
  const bool transposed = node.is("ConvTranspose");
  if (transposed) {
    const std::array factors = {(*w)[1], Dim{node.attr_int("group", 1), {}}};
    result[1] = product(factors);
  }
  for (std::size_t i = 2; i < x->size(); ++i)
    result.push_back(transposed ? Dim{} : windows(node, (*x)[i], (*w)[i].value.value_or(0), i - 2, x->size() - 2));
  return result;
}

SizeList pool(const Sizes& sizes, const Node& node) {
  SizeList x = sizes.shape(node.input(0));
  if (!x || x->size() < 3) return std::nullopt;
  const auto kernel = node.attr_ints("kernel_shape");
  const bool global = node.op().starts_with("Global");
  for (std::size_t i = 2; i < x->size(); ++i) {
    const Dim in = (*x)[i];
    (*x)[i] = global                  ? Dim{1, {}}
              : i - 2 < kernel.size() ? windows(node, in, kernel[i - 2], i - 2, x->size() - 2)
                                      : Dim{};
  }
  return x;
}

// The entry of -1 takes what is left: a number, or a free dimension when all numbers are used up.
void fill_rest(const DimList& from, DimList& to, std::size_t rest) {
  DimList left = from, others;
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (i == rest) continue;
    const auto same = std::ranges::find(left, to[i]);
    if (same != left.end() && (to[i].value || !to[i].symbol.empty())) {
      left.erase(same);
    } else {
      others.push_back(to[i]);
    }
  }
  const auto free = std::ranges::partition(left, [](const Dim& dim) { return dim.value.has_value(); });
  const Dim a = product(std::span(left).first(left.size() - free.size())), b = product(others);
  to[rest] = {};
  if (!a.value || !b.value || *b.value < 1 || *a.value % *b.value != 0) return;
  if (free.empty()) to[rest] = {*a.value / *b.value, {}};
  if (free.size() == 1 && *a.value == *b.value) to[rest] = free.front();
}

SizeList reshape(const Sizes& sizes, const Node& node) {
  SizeList target;
  if (node.has_attr("shape")) {
    target.emplace();
    for (const std::int64_t dim : node.attr_ints("shape")) target->push_back({dim, {}});
  } else {
    target = sizes.integers(node.input(1));
  }
  const SizeList from = sizes.shape(node.input(0));
  if (!target) {
    const SizeList count = sizes.shape(node.input(1));
    if (!count || count->size() != 1 || count->front().value.value_or(65) > 64) return std::nullopt;
    return DimList(static_cast<std::size_t>(std::max<std::int64_t>(*count->front().value, 0)));
  }
  std::optional<std::size_t> rest;
  for (std::size_t i = 0; i < target->size(); ++i) {
    Dim& dim = (*target)[i];
    if (dim.value == 0 && node.attr_int("allowzero", 0) == 0) dim = from && i < from->size() ? (*from)[i] : Dim{};
    if (dim.value == -1) rest = i;
    if (dim.value && *dim.value < 0) dim = {};
  }
  if (rest && from) fill_rest(*from, *target, *rest);
  return target;
}

SizeList flatten(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0));
  if (!x) return std::nullopt;
  std::int64_t axis = node.attr_int("axis", 1);
  if (axis < 0) axis += std::ssize(*x);
  if (axis < 0 || axis > std::ssize(*x)) return std::nullopt;
  const std::span<const Dim> dims(*x);
  return DimList{product(dims.first(static_cast<std::size_t>(axis))),
                 product(dims.subspan(static_cast<std::size_t>(axis)))};
}

SizeList transpose(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0));
  if (!x) return std::nullopt;
  const auto perm = node.attr_ints("perm");
  if (perm.empty()) return DimList(x->rbegin(), x->rend());
  DimList result;
  for (const std::int64_t axis : perm) {
    if (axis < 0 || axis >= std::ssize(*x)) return std::nullopt;
    result.push_back((*x)[static_cast<std::size_t>(axis)]);
  }
  return result;
}

SizeList squeeze(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0));
  const Integers axes = attr_or_input(sizes, node, "axes", 1);
  if (!x || !axes) return std::nullopt;
  std::vector<bool> gone(x->size());
  for (const std::int64_t axis : *axes) {
    const auto at = normal(axis, x->size());
    if (!at) return std::nullopt;
    gone[*at] = true;
  }
  DimList result;
  for (std::size_t i = 0; i < x->size(); ++i)
    if (!gone[i]) result.push_back((*x)[i]);
  return result;
}

SizeList unsqueeze(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0));
  const Integers axes = attr_or_input(sizes, node, "axes", 1);
  if (!x || !axes || axes->size() > 64) return std::nullopt;
  const std::size_t rank = x->size() + axes->size();
  std::vector<bool> fresh(rank);
  for (const std::int64_t axis : *axes) {
    const auto at = normal(axis, rank);
    if (!at || fresh[*at]) return std::nullopt;
    fresh[*at] = true;
  }
  DimList result;
  for (std::size_t i = 0, from = 0; i < rank; ++i) result.push_back(fresh[i] ? Dim{1, {}} : (*x)[from++]);
  return result;
}

SizeList concat(const Sizes& sizes, const Node& node) {
  SizeList result = sizes.shape(node.input(0));
  const auto axis = result ? normal(node.attr_int("axis", 1), result->size()) : std::nullopt;
  if (!axis) return std::nullopt;
  for (std::size_t slot = 1; slot < node.input_count(); ++slot) {
    const SizeList part = sizes.shape(node.input(slot));
    if (!part || part->size() != result->size()) return std::nullopt;
    for (std::size_t i = 0; i < part->size(); ++i) {
      Dim& dim = (*result)[i];
      const Dim& other = (*part)[i];
      if (i != *axis) {
        if (!dim.value && (other.value || dim.symbol.empty())) dim = other;
      } else if (!dim.value || !other.value || *dim.value > kLargest || *other.value > kLargest) {
        dim = {};
      } else {
        *dim.value += *other.value;
      }
    }
  }
  return result;
}

SizeList split_part(const Sizes& sizes, const Node& node, std::size_t slot) {
  SizeList x = sizes.shape(node.input(0));
  const auto axis = x ? normal(node.attr_int("axis", 0), x->size()) : std::nullopt;
  if (!axis) return std::nullopt;
  Dim& dim = (*x)[*axis];
  const Integers parts = attr_or_input(sizes, node, "split", 1);
  if (parts && slot < parts->size()) {
    dim = {(*parts)[slot], {}};
  } else if (node.input(1).empty() && dim.value && *dim.value % static_cast<std::int64_t>(node.output_count()) == 0) {
    dim = {*dim.value / static_cast<std::int64_t>(node.output_count()), {}};
  } else {
    dim = {};
  }
  return x;
}

SizeList slice(const Sizes& sizes, const Node& node) {
  SizeList x = sizes.shape(node.input(0));
  Integers axes = attr_or_input(sizes, node, "axes", 3);
  const Integers starts = attr_or_input(sizes, node, "starts", 1), ends = attr_or_input(sizes, node, "ends", 2);
  const Integers steps = attr_or_input(sizes, node, "steps", 4);
  if (!axes && starts && node.input(3).empty()) {
    axes.emplace();
    for (std::int64_t i = 0; i < std::ssize(*starts); ++i) axes->push_back(i);
  }
  if (!x || !axes) return std::nullopt;
  const bool plain = node.input(4).empty() || (steps && std::ranges::all_of(*steps, [](auto s) { return s == 1; }));
  for (std::size_t k = 0; k < axes->size(); ++k) {
    const auto at = normal((*axes)[k], x->size());
    if (!at) return std::nullopt;
    Dim& dim = (*x)[*at];
    if (plain && starts && ends && dim.value && k < starts->size() && k < ends->size()) {
      const auto bound = [&](std::int64_t b) {
        return std::clamp<std::int64_t>(b < 0 ? b + *dim.value : b, 0, *dim.value);
      };
      dim = {std::max<std::int64_t>(bound((*ends)[k]) - bound((*starts)[k]), 0), {}};
    } else {
      dim = {};
    }
  }
  return x;
}

SizeList gather(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0)), indices = sizes.shape(node.input(1));
  const auto axis = x ? normal(node.attr_int("axis", 0), x->size()) : std::nullopt;
  if (!axis || !indices) return std::nullopt;
  DimList result(x->begin(), x->begin() + static_cast<std::ptrdiff_t>(*axis));
  result.insert(result.end(), indices->begin(), indices->end());
  result.insert(result.end(), x->begin() + static_cast<std::ptrdiff_t>(*axis) + 1, x->end());
  return result;
}

SizeList pad(const Sizes& sizes, const Node& node) {
  SizeList x = sizes.shape(node.input(0));
  const Integers pads = attr_or_input(sizes, node, "pads", 1);
  if (!x) return std::nullopt;
  const bool known = pads && pads->size() == 2 * x->size() && node.input(3).empty();
  for (std::size_t i = 0; i < x->size(); ++i) {
    const std::int64_t before = known ? (*pads)[i] : 0, after = known ? (*pads)[i + x->size()] : 0;
    Dim& dim = (*x)[i];
    if (known && before == 0 && after == 0) continue;
    const bool sane =
        dim.value && *dim.value < kLargest && std::max(before, after) < kLargest && std::min(before, after) > -kLargest;
    dim = known && sane ? Dim{*dim.value + before + after, {}} : Dim{};
  }
  return x;
}

SizeList reduce(const Sizes& sizes, const Node& node) {
  const SizeList x = sizes.shape(node.input(0));
  Integers axes = node.input(1).empty() ? Integers(node.attr_ints("axes")) : attr_or_input(sizes, node, "axes", 1);
  if (!x || !axes) return std::nullopt;
  if (axes->empty() && node.attr_int("noop_with_empty_axes", 0) != 0) return x;
  const bool keep = node.attr_int("keepdims", 1) != 0;
  DimList result;
  for (std::size_t i = 0; i < x->size(); ++i) {
    const bool reduced = axes->empty() || std::ranges::any_of(*axes, [&](auto a) { return normal(a, x->size()) == i; });
    if (!reduced) result.push_back((*x)[i]);
    if (reduced && keep) result.push_back({1, {}});
  }
  return result;
}

// Y [steps, dirs, batch, hidden], then the last states.
SizeList recurrent(const Sizes& sizes, const Node& node, std::size_t slot) {
  const SizeList x = sizes.shape(node.input(0)), r = sizes.shape(node.input(2));
  if (!x || !r || x->size() != 3 || r->size() != 3) return std::nullopt;
  const bool batch_first = node.attr_int("layout", 0) != 0;
  const Dim steps = (*x)[batch_first ? 1 : 0], batch = (*x)[batch_first ? 0 : 1];
  if (slot > 0) return batch_first ? DimList{batch, (*r)[0], (*r)[2]} : DimList{(*r)[0], batch, (*r)[2]};
  return batch_first ? DimList{batch, steps, (*r)[0], (*r)[2]} : DimList{steps, (*r)[0], batch, (*r)[2]};
}

bool is_any(const Node& node, std::span<const char* const> ops) {
  return std::ranges::any_of(ops, [&](const char* op) { return node.op() == op; });
}

constexpr std::array kLikeInput = {"BatchNormalization",
                                   "InstanceNormalization",
                                   "GroupNormalization",
                                   "LRN",
                                   "LpNormalization",
                                   "Softmax",
                                   "LogSoftmax",
                                   "Hardmax",
                                   "CumSum",
                                   "Trilu",
                                   "QuantizeLinear",
                                   "DequantizeLinear",
                                   "MeanVarianceNormalization"};
constexpr std::array kNorms = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
                               "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"};
constexpr std::array kConvolutions = {"Conv", "ConvTranspose", "FusedConv"};
constexpr std::array kRecurrent = {"LSTM", "GRU", "RNN"};

SizeList layout_shape(const Sizes& sizes, const Node& node, std::size_t slot) {
  if (node.is("Reshape")) return reshape(sizes, node);
  if (node.is("Flatten")) return flatten(sizes, node);
  if (node.is("Transpose")) return transpose(sizes, node);
  if (node.is("Squeeze")) return squeeze(sizes, node);
  if (node.is("Unsqueeze")) return unsqueeze(sizes, node);
  if (node.is("Concat")) return concat(sizes, node);
  if (node.is("Split")) return split_part(sizes, node, slot);
  if (node.is("Slice")) return slice(sizes, node);
  if (node.is("Gather")) return gather(sizes, node);
  if (node.is("Pad")) return pad(sizes, node);
  if (node.is("Expand")) return broadcast_sizes(sizes.shape(node.input(0)), sizes.integers(node.input(1)));
  if (node.is("ConstantOfShape")) return sizes.integers(node.input(0));
  return std::nullopt;
}

}  // namespace

SizeList output_shape(const Sizes& sizes, const Node& node, std::size_t slot) {
  if (!node.domain().empty() && node.domain() != kMicrosoft) return std::nullopt;
  const SizeList x = sizes.shape(node.input(0));
  if (is_unary(node) || (is_any(node, kLikeInput) && slot == 0)) return x;
  if (is_any(node, kNorms) && (slot == 0 || slot == 3)) return x;
  if (slot == 0 && is_broadcast(node)) {
    SizeList result = x;
    for (std::size_t i = 1; i < node.input_count(); ++i) result = broadcast_sizes(result, sizes.shape(node.input(i)));
    return node.has_attr("axis") ? x : result;  // before opset 7 the first operand had the shape
  }
  if (is_any(node, kRecurrent)) return recurrent(sizes, node, slot);
  if (slot > 0 && !node.is("Split")) return std::nullopt;
  if (is_any(node, kConvolutions)) return convolution(sizes, node);
  if (node.op().ends_with("Pool")) return pool(sizes, node);
  if (node.op() == "Gemm" || node.op() == "FusedGemm") return gemm(sizes, node);
  if (node.op() == "FusedMatMul") return fused_matmul(sizes, node);
  if (node.is("MatMul")) return matmul(x, sizes.shape(node.input(1)));
  if (node.op().starts_with("Reduce")) return reduce(sizes, node);
  return layout_shape(sizes, node, slot);
}

}  // namespace onnxpress
