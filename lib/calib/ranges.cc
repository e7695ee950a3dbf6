#include "calib/ranges.h"

#include <vector>

#include "base/parallel.h"

namespace onnxpress {

RangeTable choose_ranges(const StatisticsTable& statistics, const RangeSettings& settings, DType dtype, bool symmetric,
                         unsigned jobs) {
  std::vector<const StatisticsTable::value_type*> entries;
  for (const auto& entry : statistics) entries.push_back(&entry);
  std::vector<ValueRange> chosen(entries.size());
  const Status done = parallel_for(entries.size(), jobs, [&](std::size_t i) -> Status {
    chosen[i] = choose_range(entries[i]->second, settings, dtype, symmetric);
    return {};
  });
  assert(done);
  RangeTable ranges;
  for (std::size_t i = 0; i < entries.size(); ++i) ranges.emplace(entries[i]->first, chosen[i]);
  return ranges;
}

Result<RangeTable> measure_ranges(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                  const RangeSettings& settings, const RangeTable* known, DType dtype, bool symmetric) {
  OP_TRY(settings.check());
  RangeTable ranges;
  std::vector<ValueRef> unknown;
  for (const ValueRef& ref : values) {
    const std::string key = range_key(ref);
    if (known != nullptr && known->contains(key))
      ranges.emplace(key, known->at(key));
    else
      unknown.push_back(ref);
  }
  OP_LET(const StatisticsTable statistics, collect_statistics(context, model, unknown, settings.needs_histogram()));
  ranges.merge(choose_ranges(statistics, settings, dtype, symmetric, context.jobs));
  return ranges;
}

}  // namespace onnxpress
