// Integers computed from sizes: what exporters write around Reshape, Expand and Slice.
#include <algorithm>
#include <array>

#include "depend/sizes.h"

namespace onnxpress {
namespace {

std::optional<std::vector<std::int64_t>> constants(const SizeList& list) {
  if (!list) return std::nullopt;
  std::vector<std::int64_t> result;
  for (const Dim& dim : *list) {
    if (!dim.value) return std::nullopt;
    result.push_back(*dim.value);
  }
  return result;
}

SizeList shape_of(const Sizes& sizes, const Node& node) {
  SizeList dims = sizes.shape(node.input(0));
  if (!dims) return std::nullopt;
  const auto rank = static_cast<std::int64_t>(dims->size());
  const auto bound = [&](std::int64_t at) { return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank); };
  const std::int64_t start = bound(node.attr_int("start", 0)), end = bound(node.attr_int("end", rank));
  return std::vector<Dim>(dims->begin() + start, dims->begin() + std::max(start, end));
}

SizeList gather(const Sizes& sizes, const Node& node) {
  const SizeList data = sizes.integers(node.input(0));
  const auto indices = constants(sizes.integers(node.input(1)));
  if (!data || !indices) return std::nullopt;
  SizeList result(std::in_place);
  for (std::int64_t index : *indices) {
    if (index < 0) index += static_cast<std::int64_t>(data->size());
    if (index < 0 || index >= static_cast<std::int64_t>(data->size())) return std::nullopt;
    result->push_back((*data)[static_cast<std::size_t>(index)]);
  }
  return result;
}

SizeList slice(const Sizes& sizes, const Node& node) {
  const SizeList data = sizes.integers(node.input(0));
  const auto number = [&](std::string_view key, std::size_t slot) -> std::optional<std::int64_t> {
    const auto list =
        node.has_attr(key) ? std::optional(node.attr_ints(key)) : constants(sizes.integers(node.input(slot)));
    return list && list->size() == 1 ? std::optional(list->front()) : std::nullopt;
  };
  const auto start = number("starts", 1), end = number("ends", 2);
  const bool plain = node.input(4).empty() || number("", 4) == 1;
  if (!data || !start || !end || !plain) return std::nullopt;
  const auto size = static_cast<std::int64_t>(data->size());
  const auto bound = [&](std::int64_t at) { return std::clamp<std::int64_t>(at < 0 ? at + size : at, 0, size); };
  return std::vector<Dim>(data->begin() + bound(*start), data->begin() + std::max(bound(*start), bound(*end)));
}

SizeList concat(const Sizes& sizes, const Node& node) {
  SizeList result(std::in_place);
  for (const std::string& input : node.inputs()) {
    const SizeList part = sizes.integers(input);
    if (!part) return std::nullopt;
    result->insert(result->end(), part->begin(), part->end());
  }
  return result;
}

Dim combine(std::string_view op, const Dim& a, const Dim& b) {
  if (op == "Mul" && a.value == 1) return b;
  if ((op == "Mul" || op == "Div") && b.value == 1) return a;
  if ((op == "Add" || op == "Sub") && b.value == 0) return a;
  // A size is never negative: asked in  Where(Equal(shape, -1), 1, shape)  before an Expand.
  if (op == "Equal" && (a.value < 0 || b.value < 0) && a.value != b.value) return {0, {}};
  if (!a.value || !b.value) return {};
  std::int64_t result = 0;
  bool wraps = false;
  if (op == "Add") wraps = __builtin_add_overflow(*a.value, *b.value, &result);
  if (op == "Sub") wraps = __builtin_sub_overflow(*a.value, *b.value, &result);
  if (op == "Mul") wraps = __builtin_mul_overflow(*a.value, *b.value, &result);
  if (op == "Equal") result = *a.value == *b.value ? 1 : 0;
  if (op == "Div" || op == "Mod") {
    if (*b.value <= 0 || *a.value < 0) return {};  // which way they round depends on the sign
    result = op == "Div" ? *a.value / *b.value : *a.value % *b.value;
  }
  return wraps ? Dim{} : Dim{result, {}};
}

SizeList arithmetic(const Sizes& sizes, const Node& node) {
  const SizeList a = sizes.integers(node.input(0)), b = sizes.integers(node.input(1));
  if (!a || !b || a->empty() || b->empty()) return std::nullopt;
  if (a->size() != b->size() && a->size() != 1 && b->size() != 1) return std::nullopt;
  SizeList result(std::in_place);
  for (std::size_t i = 0; i < std::max(a->size(), b->size()); ++i)
    result->push_back(combine(node.op(), (*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]));
  return result;
}

SizeList where(const Sizes& sizes, const Node& node) {
  const SizeList condition = sizes.integers(node.input(0));
  const SizeList yes = sizes.integers(node.input(1)), no = sizes.integers(node.input(2));
  if (!condition || !yes || !no || yes->size() != condition->size() || no->size() != condition->size())
    return std::nullopt;
  SizeList result(std::in_place);
  for (std::size_t i = 0; i < condition->size(); ++i) {
    const auto& test = (*condition)[i].value;
    result->push_back(!test ? Dim{} : *test != 0 ? (*yes)[i] : (*no)[i]);
  }
  return result;
}

SizeList constant_of_shape(const Sizes& sizes, const Node& node) {
  const auto dims = constants(sizes.integers(node.input(0)));
  if (!dims || dims->size() > 1 || element_count(*dims).value_or(65) > 64) return std::nullopt;
  const auto fill = node.attr_tensor("value");
  if (!fill || !*fill || !is_integer((*fill)->dtype()) || (*fill)->size() != 1) return std::nullopt;
  const auto values = to_int64s((*fill)->view());
  if (!values) return std::nullopt;
  return std::vector<Dim>(*element_count(*dims), Dim{values->front(), {}});
}

}  // namespace

SizeList output_integers(const Sizes& sizes, const Node& node) {
  if (!node.domain().empty()) return std::nullopt;
  if (node.is("Shape")) return shape_of(sizes, node);
  if (node.is("Gather")) return gather(sizes, node);
  if (node.is("Slice")) return slice(sizes, node);
  if (node.is("Concat")) return concat(sizes, node);
  if (node.is("Where")) return where(sizes, node);
  if (node.is("ConstantOfShape")) return constant_of_shape(sizes, node);
  constexpr std::array kArithmetic = {"Add", "Sub", "Mul", "Div", "Mod", "Equal"};
  if (std::ranges::any_of(kArithmetic, [&](const char* op) { return node.is(op); })) return arithmetic(sizes, node);
  constexpr std::array kSame = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"};
  if (std::ranges::any_of(kSame, [&](const char* op) { return node.is(op); })) return sizes.integers(node.input(0));
  return std::nullopt;
}

}  // namespace onnxpress
