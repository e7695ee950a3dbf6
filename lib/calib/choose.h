// From statistics of a value to the range that its integer codes cover.
#pragma once

#include <cstdint>
#include <string>

#include "calib/statistics.h"
#include "pass/options.h"

namespace onnxpress {

enum class RangeMethod {
  automatic,       // minmax, mse or entropy, whichever the statistics of the value speak for
  minmax,          // all of it
  moving_average,  // mean of the samples' smallest and largest values
  percentile,      // all but the outermost values
  entropy,         // least information lost (Kullback-Leibler divergence)
  mse,             // least squared error of rounding and clipping
  global,          // one given threshold
};

// How a range is chosen from what was seen of a value, as options of a pass.
struct RangeSettings {
  RangeMethod method = RangeMethod::automatic;
  double percentile = 99.999;
  double threshold = 0;    // of `global`
  std::string stats = {};  // a file to read statistics or ranges from instead of running samples; "" = none

  static void describe(Schema<RangeSettings>& schema);
  Status check() const;  // usage: global without threshold
  bool needs_histogram() const;
};

// The range for codes of `dtype`. It includes 0 and never exceeds what was seen (`global` apart); `symmetric` asks for
// the best range among those with low = -high, and gives that one cut to what was seen, where a side with values keeps
// the bound. Counts are those of the statistics. An empty range stays empty. Methods that need a histogram fall back to
// minmax without one.
ValueRange choose_range(const ValueStatistics& statistics, const RangeSettings& settings, DType dtype, bool symmetric);

// Mean squared error over all values when they go through codes of `dtype` that cover `range`, as the histogram tells
// it. The measure of `mse` and `auto`.
double quantization_mse(const ValueStatistics& statistics, const ValueRange& range, DType dtype, bool symmetric);

// Mean of the squares of all values, as the histogram tells it: the signal to that noise.
double mean_square(const ValueStatistics& statistics);

}  // namespace onnxpress
