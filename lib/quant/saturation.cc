#include "quant/saturation.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

namespace onnxpress {
namespace {

// 255 * 128 < 2^15: pairs up to here cannot overflow, whatever the activations are.
constexpr int kPairLimit = 128;

// Slot of the weight, or nullopt for other ops.
std::optional<std::size_t> weight_slot(const Node& node) {
  struct Slot {
    std::string_view op, domain;
    std::size_t slot;
  };
  constexpr std::array kSlots = {Slot{"Conv", "", 1},
                                 Slot{"Gemm", "", 1},
                                 Slot{"MatMul", "", 1},
                                 Slot{"QLinearConv", "", 3},
                                 Slot{"QLinearMatMul", "", 3},
                                 Slot{"MatMulInteger", "", 1},
                                 Slot{"QGemm", "com.microsoft", 3},
                                 Slot{"MatMulIntegerToFloat", "com.microsoft", 1},
                                 Slot{"DynamicQuantizeMatMul", "com.microsoft", 1}};
  const auto found =
      std::ranges::find_if(kSlots, [&](const Slot& s) { return s.op == node.op() && s.domain == node.domain(); });
  return found == kSlots.end() ? std::nullopt : std::optional(found->slot);
}

// The codes behind input `slot`: the constant itself or that of a DequantizeLinear.
std::string codes_of(const Node& node, std::size_t slot) {
  const Graph& graph = node.graph();
  const Node from = graph.producer(node.input(slot));
  return std::string(from && from.is("DequantizeLinear") ? from.input(0) : node.input(slot));
}

bool may_saturate(int a, int b) { return (a < 0) == (b < 0) && std::abs(a + b) > kPairLimit; }

// [channels, inputs, positions]: pairs run over the inputs of a position first, then over positions.
Saturation rows(std::span<const std::int8_t> codes, std::size_t channels, std::size_t inputs) {
  Saturation out{.channels = channels};
  const std::size_t length = codes.size() / channels, positions = length / inputs;
  for (std::size_t c = 0; c < channels; ++c) {
    const auto at = [&](std::size_t k) { return codes[c * length + k % inputs * positions + k / inputs]; };
    bool any = false;
    for (std::size_t k = 0; k + 1 < length && !any; k += 2) any = may_saturate(at(k), at(k + 1));
    out.saturating += any;
  }
  return out;
}

// [rows, channels]: pairs run down the columns.
Saturation columns(std::span<const std::int8_t> codes, std::size_t channels) {
  std::vector<bool> any(channels, false);
  for (std::size_t k = 0; k + 2 * channels <= codes.size(); k += 2 * channels)
    for (std::size_t c = 0; c < channels; ++c)
      if (may_saturate(codes[k + c], codes[k + channels + c])) any[c] = true;
  return {.channels = channels, .saturating = static_cast<std::size_t>(std::ranges::count(any, true))};
}

}  // namespace

Result<std::optional<Saturation>> saturation_of(const Node& node) {
  const auto slot = weight_slot(node);
  if (!slot) return std::nullopt;
  const std::string name = codes_of(node, *slot);
  const auto type = node.graph().constant_type(name);
  if (!type || type->first != DType::i8 || type->second.size() < 2 || element_count(type->second) == 0)
    return std::nullopt;
  const Dims& dims = type->second;
  const bool conv = node.op().ends_with("Conv");
  if (conv && dims[1] == 1 && node.attr_int("group", 1) > 1) return std::nullopt;
  if (!conv && dims.size() != 2) return std::nullopt;
  OP_LET(const auto codes, node.graph().constant(name));
  const auto values = codes->as<std::int8_t>();
  const bool by_row = conv || (node.op().ends_with("Gemm") && node.attr_int("transB", 0) != 0);
  if (!by_row) return columns(values, static_cast<std::size_t>(dims[1]));
  // A matrix given by rows is packed along the row.
  return rows(values, static_cast<std::size_t>(dims[0]), static_cast<std::size_t>(dims[1]));
}

}  // namespace onnxpress
