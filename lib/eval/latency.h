// How long one run takes. Runs of both models alternate, so that a slow moment of the machine hits both.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "num/tensor.h"

namespace onnxpress {

struct LatencyOptions {
  std::size_t runs = 100;   // timed runs of each model
  std::size_t warmup = 10;  // runs before that, of each model
  double max_seconds = 20;  // timing stops after this many seconds, but not before 5 runs of each
  unsigned threads = 1;     // of one run
};

struct LatencyStats {
  double p50 = 0, p90 = 0, mean = 0, min = 0;  // seconds
  std::size_t runs = 0;
};

struct Latency {
  LatencyStats before, after;
  unsigned threads = 1;
  double speedup() const { return after.p50 > 0 ? before.p50 / after.p50 : 0; }
};

// Quantile q in [0, 1] with linear interpolation between the two nearest values (Hyndman and Fan, type 7).
double quantile(std::vector<double> values, double q);
LatencyStats latency_stats(std::span<const double> seconds);

// Errors: engine, bad_input (the inputs do not fit the model).
Result<LatencyStats> measure_latency(const Model& model, std::span<const NamedTensor> inputs,
                                     const LatencyOptions& options = {});
Result<Latency> compare_latency(const Model& before, const Model& after, std::span<const NamedTensor> inputs,
                                const LatencyOptions& options = {});

}  // namespace onnxpress
