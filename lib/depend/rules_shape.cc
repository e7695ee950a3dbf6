// Operators that only change how axes are laid out: Reshape, Flatten, Squeeze, Unsqueeze, Transpose, and those that
// make a tensor of a given shape.
#include <algorithm>
#include <array>

#include "depend/rules.h"
#include "depend/shape_operand.h"

namespace onnxpress {
namespace {

constexpr std::int64_t kLargestProduct = std::int64_t{1} << 40;

struct ReshapedDim {
  Axis axis = kNone;
  std::optional<std::int64_t> size;
  std::string_view symbol;
};
using ReshapedDims = std::vector<ReshapedDim>;

// Axes of size 1 come and go freely.
ReshapedDims dims_of(const Ties& ties, Operand operand) {
  ReshapedDims dims;
  for (std::int64_t i = 0; i < *ties.rank(operand); ++i) {
    const Axis axis = ties.axis(operand, i);
    if (ties.size(axis) != 1) dims.push_back({axis, ties.size(axis), ties.scope().axes[axis].symbol});
  }
  return dims;
}

// Matches the axes of two shapes with the same product: from both ends inwards, in the shortest runs of equal product.
// Free dimensions match one to one only.
class Segments {
 public:
  // `reason`: what is said of axes that match nothing.
  Segments(Ties& ties, ReshapedDims before, ReshapedDims after, std::string_view reason)
      : ties_(ties),
        reason_(reason),
        x_(std::move(before)),
        y_(std::move(after)),
        x_end_(x_.size()),
        y_end_(y_.size()) {}

  void tie() {
    while (x_begin_ < x_end_ && y_begin_ < y_end_ && step(true)) continue;
    while (x_begin_ < x_end_ && y_begin_ < y_end_ && step(false)) continue;
    fix(x_, x_begin_, x_end_);
    fix(y_, y_begin_, y_end_);
  }

 private:
  // Number `i` of what is left, counted from the side that is worked on.
  static std::size_t place(bool left, std::size_t begin, std::size_t end, std::size_t i) {
    return left ? begin + i : end - 1 - i;
  }

  bool step(bool left) {
    std::size_t xs = 0, ys = 0;  // axes taken
    const auto x = [&] { return x_[place(left, x_begin_, x_end_, xs)]; };
    const auto y = [&] { return y_[place(left, y_begin_, y_end_, ys)]; };
    std::int64_t p = 0, q = 0;
    if (!x().size || !y().size) {
      if (x().size || y().size || !same_free(x(), y())) return false;
      xs = ys = 1;
    } else {
      p = *x().size;
      q = *y().size;
      xs = ys = 1;
    }
    while (p != q) {
      const bool shorter = p < q;
      if (shorter ? xs == x_end_ - x_begin_ : ys == y_end_ - y_begin_) return false;
      const auto next = shorter ? x().size : y().size;
      if (!next || *next * (shorter ? p : q) > kLargestProduct) return false;
      (shorter ? p : q) *= *next;
      ++(shorter ? xs : ys);
    }
    const std::size_t x_from = left ? x_begin_ : x_end_ - xs, y_from = left ? y_begin_ : y_end_ - ys;
    segment(x_from, xs, y_from, ys);
    if (left) {
      x_begin_ += xs;
      y_begin_ += ys;
    } else {
      x_end_ -= xs;
      y_end_ -= ys;
    }
    return true;
  }

  // The same symbol, or the only free dimensions that are left, with equal products around them.
  bool same_free(const ReshapedDim& x, const ReshapedDim& y) const {
    if (!x.symbol.empty() && x.symbol == y.symbol) return true;
    const auto known_product = [](const ReshapedDims& dims, std::size_t begin, std::size_t end) {
      std::optional<std::int64_t> product = 1;
      int free = 0;
      for (std::size_t i = begin; i < end; ++i) {
        free += dims[i].size ? 0 : 1;
        if (dims[i].size && product) product = *product * *dims[i].size;
        if (product > kLargestProduct) product.reset();
      }
      return free == 1 ? product : std::nullopt;
    };
    const auto p = known_product(x_, x_begin_, x_end_), q = known_product(y_, y_begin_, y_end_);
    return p && p == q;
  }

  void segment(std::size_t x_from, std::size_t xs, std::size_t y_from, std::size_t ys) {
    if (xs == 1 && ys == 1) return ties_.tie(x_[x_from].axis, y_[y_from].axis);
    const auto factors = refine(x_from, xs, y_from, ys);
    if (factors.empty()) {
      fix(x_, x_from, x_from + xs);
      fix(y_, y_from, y_from + ys);
    } else {
      ties_.tie_factors(factors);
    }
  }

  // The factors, most significant first, of which every axis of both sides is a run. Empty when there are none, as for
  // [4, 6] and [3, 8].
  std::vector<Factor> refine(std::size_t i, std::size_t xs, std::size_t j, std::size_t ys) const {
    const std::size_t x_to = i + xs, y_to = j + ys;
    std::vector<Factor> factors;
    std::int64_t p = *x_[i].size, q = *y_[j].size;  // what is left of the current axes
    while (true) {
      const std::int64_t size = std::min(p, q);
      if (p % size != 0 || q % size != 0) return {};
      p /= size;
      q /= size;
      factors.push_back({size, {x_[i].axis, p, size == *x_[i].size}, {y_[j].axis, q, size == *y_[j].size}});
      if (p == 1 && ++i < x_to) p = *x_[i].size;
      if (q == 1 && ++j < y_to) q = *y_[j].size;
      if (i == x_to || j == y_to) break;
    }
    return factors;
  }

  void fix(const ReshapedDims& dims, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) ties_.fix(dims[i].axis, reason_);
  }

  Ties& ties_;
  std::string_view reason_;
  ReshapedDims x_, y_;
  std::size_t x_begin_ = 0, y_begin_ = 0, x_end_ = 0, y_end_ = 0;
};

// Numbers that are known, though computed, count as literals: fold_known_sizes() makes them such before a cut.
std::vector<ShapeSource> sources_of(const Ties& ties, std::size_t slot) {
  std::vector<ShapeSource> sources = shape_sources(ties.node(), slot);
  const SizeList known = ties.scope().sizes.integers(ties.node().input(slot));
  if (!known) return sources;
  sources.resize(known->size(), ShapeSource::unknown);
  for (std::size_t i = 0; i < sources.size(); ++i)
    if ((*known)[i].value) sources[i] = ShapeSource::literal;
  return sources;
}

constexpr std::string_view kRunTime = "its shape is computed at run time; run @clean first";

// What is computed in ways that do not follow a cut: those axes of the output stay.
void check_target(Ties& ties, std::size_t slot) {
  const Operand y = ties.out(0);
  const auto sources = sources_of(ties, slot);
  const auto rank = ties.rank(y);
  if (rank && sources.size() != static_cast<std::size_t>(*rank)) {
    ties.fix_operand(y, kRunTime);
    return;
  }
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (sources[i] == ShapeSource::unknown) ties.fix(ties.axis(y, static_cast<std::int64_t>(i)), kRunTime);
}

Status tie_reshaped(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto sources = ties.node().is("Reshape") ? sources_of(ties, 1) : std::vector<ShapeSource>();
  const bool computed = std::ranges::find(sources, ShapeSource::unknown) != sources.end();
  if (!ties.rank(x) || !ties.rank(y)) {
    ties.fix_all(kRunTime);
    return {};
  }
  Segments(ties, dims_of(ties, x), dims_of(ties, y), computed ? kRunTime : "reshaped together with other axes").tie();
  return {};
}

Status reshape(Ties& ties) {
  if (!ties.node().has_attr("shape")) check_target(ties, 1);
  return tie_reshaped(ties);
}

// Squeeze and Unsqueeze: the wide side has the listed axes, of size 1, and those of the narrow side in order.
Status tie_inserted(Ties& ties, Operand narrow, Operand wide) {
  const auto narrow_rank = ties.rank(narrow), rank = ties.rank(wide);
  std::optional<std::vector<std::int64_t>> axes;
  if (ties.node().has_attr("axes")) {
    axes = ties.node().attr_ints("axes");
  } else {
    OP_LET(axes, ties.literal(1));
  }
  if (!narrow_rank || !rank) {
    ties.fix_all("rank not known");
    return {};
  }
  if (!axes || *narrow_rank + static_cast<std::int64_t>(axes->size()) != *rank) return tie_reshaped(ties);
  for (std::int64_t& axis : *axes) axis += axis < 0 ? *rank : 0;
  std::int64_t from = 0;
  for (std::int64_t i = 0; i < *rank; ++i)
    if (std::ranges::find(*axes, i) == axes->end()) ties.tie(ties.axis(wide, i), ties.axis(narrow, from++));
  return {};
}

Status squeeze(Ties& ties) { return tie_inserted(ties, ties.out(0), ties.in(0)); }
Status unsqueeze(Ties& ties) { return tie_inserted(ties, ties.in(0), ties.out(0)); }

Status transpose(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto rank = ties.rank(x);
  std::vector<std::int64_t> perm = ties.node().attr_ints("perm");
  if (!rank || (!perm.empty() && static_cast<std::int64_t>(perm.size()) != *rank)) {
    ties.fix_all("rank not known");
    return {};
  }
  for (std::int64_t i = 0; i < *rank; ++i) {
    const std::int64_t from = perm.empty() ? *rank - 1 - i : perm[static_cast<std::size_t>(i)];
    ties.tie(from < 0 ? kNone : ties.axis(x, from), ties.axis(y, i));
  }
  return {};
}

// A new axis, or one of size 1 that is repeated, has its size from the literal alone.
Status expand(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  const auto rank = ties.rank(x), out_rank = ties.rank(y);
  if (!rank || !out_rank) {
    ties.fix_all(kRunTime);
    return {};
  }
  const auto sources = sources_of(ties, 1);
  for (std::int64_t i = 1; i <= *out_rank; ++i) {
    const Axis from = i <= *rank ? ties.axis(x, -i) : kNone, to = ties.axis(y, -i);
    const std::size_t number = sources.size() - static_cast<std::size_t>(i);
    if (from == kNone || ties.size(from) == 1) {
      ties.fix(to, "repeated by an Expand");
    } else if (static_cast<std::size_t>(i) <= sources.size() && sources[number] == ShapeSource::unknown) {
      ties.fix(to, kRunTime);
      ties.tie(from, to);
    } else {
      ties.tie(from, to);
    }
  }
  if (sources.empty()) ties.fix_operand(y, kRunTime);
  return {};
}

// The same value everywhere: any index can go, as long as the shape can be rewritten.
Status constant_of_shape(Ties& ties) {
  check_target(ties, 0);
  return {};
}

// Y[k] ~ X[k mod D]
Status tile(Ties& ties) {
  const Operand x = ties.in(0), y = ties.out(0);
  OP_LET(const auto repeats, ties.literal(1));
  const auto rank = ties.rank(x);
  if (!rank || rank != ties.rank(y) || !repeats || static_cast<std::int64_t>(repeats->size()) != *rank) {
    ties.fix_all(kRunTime);
    return {};
  }
  for (std::int64_t i = 0; i < *rank; ++i) {
    const Axis from = ties.axis(x, i), to = ties.axis(y, i);
    if ((*repeats)[static_cast<std::size_t>(i)] == 1) {
      ties.tie(from, to);
    } else if (ties.size(from) == 1) {
      ties.fix(to, "repeated by a Tile");
    } else {
      ties.tie_digit(to, from, 1);
    }
  }
  return {};
}

constexpr std::array kRules = {
    OpRule{"", "Reshape", reshape},     OpRule{"", "Flatten", tie_reshaped},
    OpRule{"", "Squeeze", squeeze},     OpRule{"", "Unsqueeze", unsqueeze},
    OpRule{"", "Transpose", transpose}, OpRule{"", "Expand", expand},
    OpRule{"", "Tile", tile},           OpRule{"", "ConstantOfShape", constant_of_shape},
};

}  // namespace

std::span<const OpRule> shape_rules() { return kRules; }

}  // namespace onnxpress
