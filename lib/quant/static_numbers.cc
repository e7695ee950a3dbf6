#include "quant/static_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace onnxpress {
namespace {

constexpr float kApart = 50;        // ranges of the inputs of a Concat
constexpr float kMaskApart = 1000;  // of an Add: what is added is a mask
constexpr float kMaskLike = 1e4F;   // and no ordinary activation

float reach(const ValueRange& range) { return std::max(std::abs(range.min), std::abs(range.max)); }

// The parameters whose codes lie within [low, high] and lose least of [min, max].
AffineParams within(float min, float max, float low, float high, CodeRange codes) {
  AffineParams best;
  double best_kept = -1;
  const AffineParams plain = choose_affine(min, max, codes, false);
  for (std::int32_t zero = plain.zero_point - 1; zero <= plain.zero_point + 1; ++zero) {
    if (zero < codes.min || zero > codes.max || (low == 0 && zero != codes.min)) continue;
    const double below = zero - codes.min, above = codes.max - zero;
    const double needed = std::max(below > 0 ? -min / below : 0, above > 0 ? max / above : 0);
    const double allowed = std::min(below > 0 ? -low / below : std::numeric_limits<double>::infinity(),
                                    above > 0 ? high / above : std::numeric_limits<double>::infinity());
    auto scale = static_cast<float>(std::min(needed, allowed));
    if (!(scale > 0)) continue;
    // The runtime compares in float.
    while (static_cast<float>(codes.min - zero) * scale < low || static_cast<float>(codes.max - zero) * scale > high)
      scale = std::nextafter(scale, 0.0F);
    const double kept = std::min(scale / needed, 1.0) - 1e-6 * (scale - plain.scale) / plain.scale;
    if (kept > best_kept) {
      best_kept = kept;
      best = {scale, zero};
    }
  }
  return best_kept < 0 ? plain : best;
}

}  // namespace

CodeParams choose_params(const ValueRange& range, const std::optional<Absorbed>& absorbed, const CodeRules& rules) {
  const DType dtype = activation_dtype(rules.format);
  float min = std::min(range.min, 0.0F), max = std::max(range.max, 0.0F);
  const bool never_negative = min == 0;
  const bool unsigned_codes = dtype == DType::u8 || dtype == DType::u16;
  const bool symmetric = is_symmetric(rules.format);
  // ONNX Runtime drops an activation only before codes that start at its lower bound.
  const bool drops = absorbed && resolve(rules.target) != Target::generic;
  if (symmetric && !drops && !(unsigned_codes && never_negative))
    return {choose_affine(min, max, code_range(dtype, true), true), dtype};
  const CodeRange codes = code_range(dtype, false);
  if (!absorbed) return {choose_affine(min, max, codes, false), dtype};
  const float high = absorbed->high.value_or(std::numeric_limits<float>::max());
  min = std::max(min, absorbed->low);
  max = std::min(max, high);
  if (min == 0 && max == 0) return {{1, codes.min}, dtype};
  return {within(min, max, absorbed->low, high, codes), dtype};
}

CodeParams unit_params(const CodeRules& rules) {
  const DType dtype = activation_dtype(rules.format);
  const CodeRange codes = code_range(dtype, false);
  return {{1.0F / static_cast<float>(codes.max - codes.min + 1), codes.min}, dtype};
}

std::optional<BadJoin> bad_join(const Node& node, const std::vector<NamedRange>& inputs) {
  const bool adds = node.is("Add");
  if (!adds && !node.is("Concat")) return {};
  const NamedRange* least = nullptr;
  const NamedRange* most = nullptr;
  for (const NamedRange& input : inputs) {
    if (input.range.empty() || reach(input.range) == 0) continue;  // nothing to lose
    if (least == nullptr || reach(input.range) < reach(least->range)) least = &input;
    if (most == nullptr || reach(input.range) > reach(most->range)) most = &input;
  }
  if (least == nullptr) return {};
  const float apart = reach(most->range) / reach(least->range);
  if (adds) {
    if (apart <= kMaskApart || reach(most->range) < kMaskLike) return {};
    return BadJoin{fmt::format("it adds '{}', which looks like a mask ({:.3g} to {:.3g})", most->value, most->range.min,
                               most->range.max),
                   ""};
  }
  if (apart <= kApart) return {};
  const std::string ranges =
      fmt::format("'{}' ({:.4g} to {:.4g}) with '{}' ({:.4g} to {:.4g})", most->value, most->range.min, most->range.max,
                  least->value, least->range.min, least->range.max);
  return BadJoin{
      fmt::format("it joins {}: no one scale serves both", ranges),
      fmt::format("'{}' joins {}: one scale would erase the smaller, so the join stays float", node.label(), ranges)};
}

std::string unfit_range(const ValueRange& range) { return range.infinite > 0 ? "it holds infinities (a mask?)" : ""; }

}  // namespace onnxpress
