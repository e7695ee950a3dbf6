#include "depend/shape_operand.h"

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

// The choice's shape; "" when the node is no such choice.
std::string_view chosen_shape(const Node& where) {
  if (!where.is("Where")) return {};
  const Node test = where.graph().producer(where.input(0));
  const bool same = test && test.is("Equal") && (test.input(0) == where.input(2) || test.input(1) == where.input(2));
  return same ? where.input(2) : std::string_view();
}

}  // namespace

ShapeOrigin shape_origin(const Graph& graph, std::string_view value) {
  ShapeOrigin origin{std::string(value), false};
  for (int depth = 0; depth < kDepth; ++depth) {
    const Node node = graph.producer(origin.value);
    if (!node || !graph.defines(origin.value)) break;
    if (const std::string_view shape = chosen_shape(node); !shape.empty()) {
      origin = {std::string(shape), true};
    } else if (node.is("Identity") || (node.is("Reshape") && length(graph, node.input(0)) &&
                                       length(graph, node.input(0)) == length(graph, node.output(0)))) {
      origin.value = node.input(0);
    } else {
      break;
    }
  }
  return origin;
}

std::vector<ShapeSource> shape_sources(const Node& node, std::size_t slot) {
  const Graph& graph = node.graph();
  const std::string value = shape_origin(graph, node.input(slot)).value;
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
