#include "prune/shape_operand.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

namespace onnxpress {
namespace {

constexpr int kDepth = 16;

// Whether everything a value is computed from is the shape of something, and constants.
bool follows_shapes(const Graph& graph, std::string_view value, int depth) {
  if (graph.is_constant(value)) return true;
  const Node node = graph.producer(value);
  if (!node || depth == 0) return false;
  if (node.is("Shape") || node.is("Size")) return true;
  constexpr std::array kMoves = {"Gather", "Slice", "Squeeze", "Unsqueeze", "Cast",   "Identity",
                                 "Concat", "Mul",   "Div",     "Floor",     "Reshape"};
  if (std::ranges::none_of(kMoves, [&](const char* op) { return node.is(op); })) return false;
  for (std::size_t i = 0; i < node.input_count(); ++i)
    if (!node.input(i).empty() && !follows_shapes(graph, node.input(i), depth - 1)) return false;
  return true;
}

std::optional<std::size_t> length(const Graph& graph, std::string_view value) {
  const ValueType type = graph.type(value);
  if (const auto constant = graph.constant_type(value))
    return constant->second.size() == 1 ? std::optional(static_cast<std::size_t>(constant->second[0])) : std::nullopt;
  if (type.rank() != 1 || !type.dim(0) || *type.dim(0) < 0 || *type.dim(0) > 64) return std::nullopt;
  return static_cast<std::size_t>(*type.dim(0));
}

// Before an Expand exporters write  Where(Equal(shape, -1), 1, shape): the shape itself.
std::string behind_choice(const Graph& graph, std::string_view value) {
  const Node where = graph.producer(value);
  if (!where || !where.is("Where")) return std::string(value);
  const Node test = graph.producer(where.input(0));
  const bool same = test && test.is("Equal") && (test.input(0) == where.input(2) || test.input(1) == where.input(2));
  return std::string(same ? where.input(2) : value);
}

}  // namespace

std::vector<ShapeSource> shape_sources(const Node& node, std::size_t slot) {
  const Graph& graph = node.graph();
  const std::string value = behind_choice(graph, node.input(slot));
  const auto count = length(graph, value);
  if (graph.is_constant(value)) return std::vector(count.value_or(0), ShapeSource::literal);
  const Node producer = graph.producer(value);
  std::vector<ShapeSource> sources;
  if (producer && producer.is("Concat")) {
    for (std::size_t i = 0; i < producer.input_count(); ++i) {
      const std::string_view part = producer.input(i);
      const auto numbers = length(graph, part);
      if (!numbers) return {};
      const ShapeSource source = graph.is_constant(part)               ? ShapeSource::literal
                                 : follows_shapes(graph, part, kDepth) ? ShapeSource::followed
                                                                       : ShapeSource::unknown;
      sources.insert(sources.end(), *numbers, source);
    }
    return sources;
  }
  if (!count) return {};
  const bool follows = follows_shapes(graph, value, kDepth);
  return std::vector(*count, follows ? ShapeSource::followed : ShapeSource::unknown);
}

}  // namespace onnxpress
