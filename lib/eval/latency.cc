#include "eval/latency.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <memory>
#include <numeric>

#include "base/interrupt.h"
#include "engine/session.h"

namespace onnxpress {
namespace {

constexpr std::size_t kFewestRuns = 5;

// Times every session in turn, run by run; result k holds the seconds of session k.
Result<std::vector<std::vector<double>>> time_in_turn(std::span<const std::unique_ptr<Session>> sessions,
                                                      std::span<const NamedTensor> inputs,
                                                      const LatencyOptions& options) {
  for (std::size_t run = 0; run < options.warmup; ++run) {
    OP_TRY(check_interrupt());
    for (const auto& session : sessions) OP_TRY(session->time(inputs));
  }
  std::vector<std::vector<double>> seconds(sessions.size());
  double total = 0;
  for (std::size_t run = 0; run < options.runs; ++run) {
    if (run >= kFewestRuns && total >= options.max_seconds) break;
    OP_TRY(check_interrupt());
    // The order changes every run: whoever goes second may find warm caches or a throttled core.
    for (std::size_t turn = 0; turn < sessions.size(); ++turn) {
      const std::size_t k = run % 2 == 0 ? turn : sessions.size() - 1 - turn;
      OP_LET(const double taken, sessions[k]->time(inputs));
      seconds[k].push_back(taken);
      total += taken;
    }
  }
  return seconds;
}

}  // namespace

double quantile(std::vector<double> values, double q) {
  assert(q >= 0 && q <= 1);
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const double position = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (position - static_cast<double>(low)) * (values[high] - values[low]);
}

LatencyStats latency_stats(std::span<const double> seconds) {
  LatencyStats stats;
  stats.runs = seconds.size();
  if (seconds.empty()) return stats;
  const std::vector<double> values(seconds.begin(), seconds.end());
  stats.p50 = quantile(values, 0.5);
  stats.p90 = quantile(values, 0.9);
  stats.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  stats.min = std::ranges::min(values);
  return stats;
}

Result<LatencyStats> measure_latency(const Model& model, std::span<const NamedTensor> inputs,
                                     const LatencyOptions& options) {
  std::vector<std::unique_ptr<Session>> sessions(1);
  OP_LET(sessions[0], Session::open(model, {.threads = options.threads}));
  OP_LET(const auto seconds, time_in_turn(sessions, inputs, options));
  return latency_stats(seconds[0]);
}

Result<Latency> compare_latency(const Model& before, const Model& after, std::span<const NamedTensor> inputs,
                                const LatencyOptions& options) {
  std::vector<std::unique_ptr<Session>> sessions(2);
  OP_LET(sessions[0], Session::open(before, {.threads = options.threads}));
  OP_LET(sessions[1], Session::open(after, {.threads = options.threads}));
  OP_LET(const auto seconds, time_in_turn(sessions, inputs, options));
  return Latency{latency_stats(seconds[0]), latency_stats(seconds[1]), options.threads};
}

}  // namespace onnxpress
