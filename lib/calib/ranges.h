// Ranges of many values in one go.
#pragma once

#include <map>
#include <span>
#include <string>

#include "calib/min_max.h"
#include "pass/pass.h"

namespace onnxpress {

// How a range is chosen from what was seen of a value.
struct RangeSettings {};

// A value and the graph that defines it: null is the main graph, else a body of If, Loop or Scan.
struct ValueRef {
  std::string value;
  const Graph* scope = nullptr;
};
// Names a value of any scope: of the main graph its own name, of a body "<node that owns the body>.<value>".
std::string range_key(const ValueRef& ref);

// By range_key().
using RangeTable = std::map<std::string, ValueRange>;

// The range of each of `values` (duplicates welcome): from `known` where it has it, else over the calibration samples
// of context.activations. NaN and infinities are warned about once per value. Errors: usage when something has to be
// measured and there are no samples, and those of Activations::collect.
Result<RangeTable> measure_ranges(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                  const RangeSettings& settings, const RangeTable* known = nullptr);

}  // namespace onnxpress
