#include "calib/statistics.h"

#include <vector>

#include "base/log.h"

namespace onnxpress {
double ValueStatistics::mean_of_min() const {
  return samples == 0 ? 0 : sum_of_min.value() / static_cast<double>(samples);
}

double ValueStatistics::mean_of_max() const {
  return samples == 0 ? 0 : sum_of_max.value() / static_cast<double>(samples);
}

void ValueStatistics::merge(const ValueStatistics& other) {
  range.merge(other.range);
  sum_of_min.merge(other.sum_of_min);
  sum_of_max.merge(other.sum_of_max);
  samples += other.samples;
  histogram.merge(other.histogram);
}

std::any StatisticsAccumulator::reduce(const TensorView& value) const {
  std::vector<float> converted;
  std::span<const float> values;
  if (value.dtype == DType::f32) {
    values = value.as<float>();
  } else if (auto floats = to_floats(value)) {
    converted = std::move(*floats);
    values = converted;
  }
  const MinMax found = min_max(values);
  if (with_histogram_) histogram_.add(values, found, &mutex_);
  return range_of_floats(values, found);
}

void StatisticsAccumulator::merge(std::any partial) {
  const auto& sample = std::any_cast<const ValueRange&>(partial);
  statistics_.range.merge(sample);
  if (sample.empty()) return;
  statistics_.sum_of_min.add(sample.min);
  statistics_.sum_of_max.add(sample.max);
  ++statistics_.samples;
}

std::uint64_t StatisticsAccumulator::bytes() const {
  constexpr std::uint64_t counts = 2 * Histogram::kBins * sizeof(std::uint64_t);
  return sizeof(*this) + (with_histogram_ ? counts : 0);
}

ValueStatistics StatisticsAccumulator::take() {
  statistics_.histogram = std::move(histogram_);
  return std::move(statistics_);
}

std::string range_key(const ValueRef& ref) {
  if (ref.scope == nullptr || ref.scope->parent() == nullptr) return ref.value;
  return ref.scope->owner().label() + "." + ref.value;
}

Result<StatisticsTable> collect_statistics(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                           bool with_histograms) {
  StatisticsTable table;
  std::map<std::string, StatisticsAccumulator> accumulators;
  std::vector<Tap> taps;
  for (const ValueRef& ref : values) {
    const auto [entry, added] = accumulators.try_emplace(range_key(ref), with_histograms);
    if (added) taps.push_back({ref.value, &entry->second, ref.scope});
  }
  if (taps.empty()) return table;
  if (context.activations == nullptr) return fail(Code::usage, "the range of '{}' needs --data", taps.front().value);
  OP_TRY(context.activations->collect(model, taps));
  for (auto& [key, accumulator] : accumulators) {
    const ValueStatistics& statistics = table[key] = accumulator.take();
    const ValueRange& range = statistics.range;
    if (range.nan + range.infinite > 0)
      log::warning("calibration: '{}' has {} NaN and {} infinite values; its range leaves them out", key, range.nan,
                   range.infinite);
  }
  return table;
}

}  // namespace onnxpress
