#include "calib/ranges.h"

#include "base/log.h"

namespace onnxpress {

Result<std::map<std::string, ValueRange>> collect_min_max(Activations& activations, const Model& model,
                                                          std::span<const std::string> values) {
  std::map<std::string, MinMaxAccumulator> accumulators;
  std::vector<Tap> taps;
  for (const std::string& value : values)
    if (const auto [entry, added] = accumulators.try_emplace(value); added) taps.push_back({value, &entry->second});
  OP_TRY(activations.collect(model, taps));
  std::map<std::string, ValueRange> ranges;
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
