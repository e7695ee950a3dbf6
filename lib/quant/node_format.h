// The precisions one node of a network can run in.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

namespace onnxpress {

enum class NodeFormat {
  float32,  // as it was
  int16,    // 8-bit weights, 16-bit activations; runtimes compute it in float
  int8,     // 8-bit weights and activations, whatever it costs
  int4,     // 4-bit weights, 8-bit activations
};

inline constexpr std::array<std::pair<NodeFormat, std::string_view>, 4> kNodeFormats = {
    {{NodeFormat::float32, "float32"},
     {NodeFormat::int16, "int16"},
     {NodeFormat::int8, "int8"},
     {NodeFormat::int4, "int4"}}};

constexpr std::string_view node_format_name(NodeFormat format) {
  for (const auto& [value, name] : kNodeFormats)
    if (value == format) return name;
  return "";
}

constexpr std::optional<NodeFormat> node_format_from(std::string_view text) {
  for (const auto& [value, name] : kNodeFormats)
    if (name == text) return value;
  return std::nullopt;
}

}  // namespace onnxpress
