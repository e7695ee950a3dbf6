#include "depend/sizes.h"

#include <algorithm>

namespace onnxpress {
namespace {

constexpr std::uint64_t kMostIntegers = 64;

// Names that onnx made up say nothing about what is equal to what.
bool is_named(const Dim& dim) { return !dim.symbol.empty() && !dim.symbol.starts_with("unk__"); }

bool is_static(const SizeList& sizes) {
  return sizes && std::ranges::all_of(*sizes, [](const Dim& dim) { return dim.value.has_value(); });
}

// What both know.
SizeList merge(const SizeList& a, const SizeList& b) {
  if (!a || !b || a->size() != b->size()) return a ? a : b;
  SizeList result = a;
  for (std::size_t i = 0; i < a->size(); ++i)
    if (!(*a)[i].value && ((*b)[i].value || (!is_named((*a)[i]) && is_named((*b)[i])))) (*result)[i] = (*b)[i];
  return result;
}

Dim broadcast_dim(const Dim& a, const Dim& b) {
  if (a.value == 1) return b;
  if (b.value == 1) return a;
  if (a.value) return a;  // the other is 1 or the same
  if (b.value) return b;
  return a.symbol == b.symbol ? a : Dim{};
}

}  // namespace

SizeList broadcast_sizes(const SizeList& a, const SizeList& b) {
  if (!a || !b) return std::nullopt;
  const auto &longer = a->size() >= b->size() ? *a : *b, &shorter = a->size() >= b->size() ? *b : *a;
  std::vector<Dim> result = longer;
  const std::size_t offset = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) result[offset + i] = broadcast_dim(longer[offset + i], shorter[i]);
  return result;
}

Sizes::Sizes(const Graph& graph) : graph_(graph) {
  for (const Node& node : graph.nodes())
    if (!node.has_subgraph()) visit(node);
}

void Sizes::visit(const Node& node) {
  for (std::size_t slot = 0; slot < node.output_count(); ++slot) {
    if (node.output(slot).empty() || is_static(graph_.type(node.output(slot)).shape)) continue;
    learn(node.output(slot), output_shape(*this, node, slot));
  }
  if (node.output_count() == 0) return;
  if (SizeList integers = output_integers(*this, node); integers && integers->size() <= kMostIntegers)
    integers_.emplace(node.output(0), std::move(integers));
}

void Sizes::learn(std::string_view value, const SizeList& shape) {
  if (SizeList known = merge(graph_.type(value).shape, shape)) shapes_.emplace(value, std::move(known));
}

SizeList Sizes::shape(std::string_view value) const {
  if (value.empty()) return std::nullopt;
  if (const auto found = shapes_.find(std::string(value)); found != shapes_.end()) return found->second;
  if (const auto constant = graph_.constant_type(value)) {
    SizeList dims(std::in_place);
    for (const std::int64_t dim : constant->second) dims->push_back({dim, {}});
    return dims;
  }
  const ValueType type = graph_.type(value);
  return type.is_tensor ? type.shape : std::nullopt;
}

SizeList Sizes::integers(std::string_view value) const {
  if (value.empty()) return std::nullopt;
  if (const auto found = integers_.find(std::string(value)); found != integers_.end()) return found->second;
  const auto type = graph_.constant_type(value);
  if (!type || type->second.size() > 1 || !is_integer(type->first)) return std::nullopt;
  if (element_count(type->second).value_or(kMostIntegers + 1) > kMostIntegers) return std::nullopt;
  const auto tensor = graph_.constant(value);  // what cannot be read is found by the rules
  if (!tensor || !*tensor) return std::nullopt;
  const auto values = to_int64s((*tensor)->view());
  if (!values) return std::nullopt;
  SizeList result(std::in_place);
  for (const std::int64_t number : *values) result->push_back({number, {}});
  return result;
}

}  // namespace onnxpress
