// What calibration remembers of a value: all that any range method needs, in fixed memory. Statistics of shards of the
// samples merge to exactly those of all samples.
#pragma once

#include <map>
#include <mutex>
#include <span>
#include <string>

#include "calib/min_max.h"
#include "num/exact_sum.h"
#include "num/histogram.h"

namespace onnxpress {

struct ValueStatistics {
  ValueRange range;                 // over everything
  ExactSum sum_of_min, sum_of_max;  // of the extremes of each sample
  std::uint64_t samples = 0;        // that had a finite value
  Histogram histogram;              // empty when only extremes were asked for

  // Means over the samples; 0 without any. They do not depend on how samples were batched or ordered.
  double mean_of_min() const;
  double mean_of_max() const;
  void merge(const ValueStatistics& other);
  bool operator==(const ValueStatistics&) const = default;
};

// One call of reduce() is one sample. Counts go straight into the histogram, in whatever order threads come: sums of
// integers do not depend on it.
class StatisticsAccumulator : public Accumulator {
 public:
  explicit StatisticsAccumulator(bool with_histogram) : with_histogram_(with_histogram) {}
  std::any reduce(const TensorView& value) const override;  // the ValueRange of the sample
  void merge(std::any partial) override;
  std::uint64_t bytes() const override;
  ValueStatistics take();

 private:
  bool with_histogram_;
  ValueStatistics statistics_;
  mutable Histogram histogram_;
  mutable std::mutex mutex_;
};

// A value and the graph that defines it: null is the main graph, else a body of If, Loop or Scan.
struct ValueRef {
  std::string value;
  const Graph* scope = nullptr;
};
// Names a value of any scope: of the main graph its own name, of a body "<node that owns the body>.<value>".
std::string range_key(const ValueRef& ref);

// By range_key().
using StatisticsTable = std::map<std::string, ValueStatistics>;

// Statistics of each of `values` (duplicates welcome) over the calibration samples of context.activations, in one pass
// over them unless the memory limit asks for several. NaN and infinities are warned about once per value. Errors:
// usage when there are no samples, and those of Activations::collect.
Result<StatisticsTable> collect_statistics(PassContext& context, const Model& model, std::span<const ValueRef> values,
                                           bool with_histograms = true);

}  // namespace onnxpress
