// Relu and Clip in front of codes.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "quant/qdq_view.h"
#include "quant/runtime_steps.h"

namespace onnxpress::runtime {
namespace {

// Of a Relu or Clip, with constants that the runtime has folded by then.
std::optional<std::pair<double, double>> bounds_of(const RuntimeGraph& graph, const Item& clip) {
  return clip_bounds(clip.source, [&](std::size_t slot) { return graph.scalar(clip.input(slot)); });
}

bool is_16_bit(DType t) { return t == DType::i16 || t == DType::u16; }

}  // namespace

std::string clip_refusal(const RuntimeGraph& graph, const Item& clip, const Item& quantize) {
  const auto params = scalar_params(graph, quantize);
  if (!params) return fmt::format("the {} behind it is quantized with more than one scale", clip.op);
  const DType type = codes_type(graph, quantize);
  if (bit_width(type) != 8 && !is_16_bit(type)) return fmt::format("{} codes behind its {}", dtype_name(type), clip.op);
  const CodeRange codes = code_range(type, false);
  const auto bounds = bounds_of(graph, clip);
  if (!bounds) return "the bounds of the Clip behind it are not constant";
  const auto code = [&](double bound) {
    if (std::isinf(bound)) return bound;
    return std::rint(static_cast<double>(static_cast<float>(bound) / params->scale)) + params->zero_point;
  };
  const double low = static_cast<double>(codes.min - params->zero_point) * params->scale;
  const double high = static_cast<double>(codes.max - params->zero_point) * params->scale;
  if (clip.is("Relu") && params->zero_point != codes.min)
    return fmt::format("the Relu behind it is not absorbed: its codes reach down to {:.4g}, make the zero point {}",
                       low, codes.min);
  if (code(bounds->first) > codes.min)
    return fmt::format("Clip range: codes reach {:.6g} < {:.6g}", low, bounds->first);
  if (code(bounds->second) < codes.max)
    return fmt::format("Clip range: codes reach {:.6g} > {:.6g}", high, bounds->second);
  return {};
}

bool drop_redundant_clips(RuntimeGraph& graph) {
  bool changed = false;
  for (const std::size_t at : graph.order()) {
    const Item item = graph.at(at);
    if ((!item.is("Relu") && !item.is("Clip")) || !graph.single(at)) continue;
    const std::size_t next = graph.only_reader(at);
    const Item& quantize = graph.at(next);
    if (!is_quantize(quantize) || !quantize.domain.empty() || quantize.input(2).empty()) continue;
    if (bit_width(codes_type(graph, quantize)) != 8) continue;
    const auto params = scalar_params(graph, quantize);
    const auto bounds = bounds_of(graph, item);
    if (!params || !bounds) continue;
    const CodeRange codes = code_range(codes_type(graph, quantize), false);
    const float low = params->scale * static_cast<float>(codes.min - params->zero_point);
    const float high = params->scale * static_cast<float>(codes.max - params->zero_point);
    constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
    const bool redundant = item.is("Relu") ? params->zero_point == codes.min
                                           : bounds->first - low <= kEpsilon && high - bounds->second <= kEpsilon;
    if (!redundant) continue;
    graph.set_input(next, 0, item.input(0));
    graph.remove(at, "the codes behind it cannot leave its range: absorbed");
    changed = true;
  }
  return changed;
}

}  // namespace onnxpress::runtime
