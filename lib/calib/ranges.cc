#include "calib/ranges.h"

#include <cassert>
#include <vector>

#include "base/file.h"
#include "base/parallel.h"
#include "calib/ort_tables.h"

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

Result<RangeSource> read_range_source(const std::string& path) {
  OP_LET(const auto file, FileReader::open(path));
  OP_LET(const Bytes content, file->read(0, file->size()));
  const std::string_view text(reinterpret_cast<const char*>(content.data.data()), content.data.size());
  RangeSource source;
  if (looks_like_statistics(text)) {
    OP_LET(source.statistics, parse_statistics(text, path));
  } else {
    OP_LET(source.ranges, parse_ort_ranges(text, path));
  }
  return source;
}

namespace {

// What the file says of the values that are still unknown; those it does not know stay in `unknown`.
Status take_from_file(PassContext& context, const Model& model, const RangeSettings& settings, DType dtype,
                      bool symmetric, std::vector<ValueRef>& unknown, RangeTable& ranges) {
  OP_LET(RangeSource source, read_range_source(settings.stats));
  if (source.statistics) {
    const ModelPrint& print = source.statistics->model;
    OP_LET(const ModelPrint now, model_print(model));
    if (print != now)
      context.journal.warning(
          fmt::format("{}: statistics of a model with {}; values of the same name are taken to be the same",
                      settings.stats, print.structure == now.structure ? "other weights" : "other nodes"));
    StatisticsTable wanted;
    for (const ValueRef& ref : unknown) {
      const auto found = source.statistics->values.find(range_key(ref));
      if (found != source.statistics->values.end()) wanted.insert(source.statistics->values.extract(found));
    }
    ranges.merge(choose_ranges(wanted, settings, dtype, symmetric, context.jobs));
  }
  std::vector<ValueRef> missing;
  for (const ValueRef& ref : unknown) {
    const std::string key = range_key(ref);
    if (ranges.contains(key)) continue;
    if (const auto found = source.ranges.find(key); found != source.ranges.end())
      ranges.insert(*found);
    else
      missing.push_back(ref);
  }
  if (!missing.empty() && context.activations == nullptr)
    return fail(Code::usage, "{} says nothing of '{}'{}; with --data it is measured", settings.stats,
                range_key(missing.front()),
                missing.size() == 1 ? "" : fmt::format(" and {} more values", missing.size() - 1));
  unknown = std::move(missing);
  return {};
}

}  // namespace

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
  if (!settings.stats.empty() && !unknown.empty())
    OP_TRY(take_from_file(context, model, settings, dtype, symmetric, unknown, ranges));
  OP_LET(const StatisticsTable statistics, collect_statistics(context, model, unknown, settings.needs_histogram()));
  ranges.merge(choose_ranges(statistics, settings, dtype, symmetric, context.jobs));
  return ranges;
}

}  // namespace onnxpress
