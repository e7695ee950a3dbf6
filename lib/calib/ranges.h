// Ranges of many values in one go.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include "calib/choose.h"
#include "calib/stats_file.h"
#include "pass/pass.h"

namespace onnxpress {

// By range_key().
using RangeTable = std::map<std::string, ValueRange>;

// A file that spares running samples: statistics, or the ranges themselves (see ort_tables.h), told by content.
struct RangeSource {
  std::optional<StatisticsFile> statistics;
  RangeTable ranges;
};
// Errors: io, bad_input, resource.
Result<RangeSource> read_range_source(const std::string& path);

// The range of each of `values` (duplicates welcome) for codes of `dtype`: from `known` where it has it, else from the
// file settings.stats, else over the calibration samples of context.activations. When the file is of another model the
// journal is warned. Errors: those of collect_statistics(), RangeSettings::check() and read_range_source(); usage when
// the file lacks a value and there are no samples.
Result<RangeTable> measure_ranges(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                  const RangeSettings& settings, const RangeTable* known = nullptr,
                                  DType dtype = DType::u8, bool symmetric = false);

// choose_range() for every entry, in parallel.
RangeTable choose_ranges(const StatisticsTable& statistics, const RangeSettings& settings, DType dtype, bool symmetric,
                         unsigned jobs);

}  // namespace onnxpress
