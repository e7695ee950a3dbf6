#include "calib/ranges.h"

#include "base/log.h"

namespace onnxpress {

std::string range_key(const ValueRef& ref) {
  if (ref.scope == nullptr || ref.scope->parent() == nullptr) return ref.value;
  return ref.scope->owner().label() + "." + ref.value;
}

Result<RangeTable> measure_ranges(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                  const RangeSettings&, const RangeTable* known) {
  RangeTable ranges;
  std::map<std::string, MinMaxAccumulator> accumulators;
  std::vector<Tap> taps;
  for (const ValueRef& ref : values) {
    const std::string key = range_key(ref);
    if (known != nullptr && known->contains(key))
      ranges.emplace(key, known->at(key));
    else if (const auto [entry, added] = accumulators.try_emplace(key); added)
      taps.push_back({ref.value, &entry->second, ref.scope});
  }
  if (taps.empty()) return ranges;
  if (context.activations == nullptr) return fail(Code::usage, "the range of '{}' needs --data", taps.front().value);
  OP_TRY(context.activations->collect(model, taps));
  for (const auto& [value, accumulator] : accumulators) {
    const ValueRange& range = accumulator.range();
    if (range.nan + range.infinite > 0)
      log::warning("calibration: '{}' has {} NaN and {} infinite values; its range leaves them out", value, range.nan,
                   range.infinite);
    ranges.emplace(value, range);
  }
  return ranges;
}

}  // namespace onnxpress
