// Ranges of many values in one go.
#pragma once

#include <map>
#include <span>
#include <string>

#include "calib/choose.h"
#include "pass/pass.h"

namespace onnxpress {

// By range_key().
using RangeTable = std::map<std::string, ValueRange>;

// The range of each of `values` (duplicates welcome) for codes of `dtype`: from `known` where it has it, else from the
// file settings.stats, else over the calibration samples of context.activations. Errors: those of
// collect_statistics() and RangeSettings::check(); bad_input and io of the file; usage when it lacks a value.
Result<RangeTable> measure_ranges(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                  const RangeSettings& settings, const RangeTable* known = nullptr,
                                  DType dtype = DType::u8, bool symmetric = false);

// choose_range() for every entry, in parallel.
RangeTable choose_ranges(const StatisticsTable& statistics, const RangeSettings& settings, DType dtype, bool symmetric,
                         unsigned jobs);

}  // namespace onnxpress
