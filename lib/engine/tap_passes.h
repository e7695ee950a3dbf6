// Internal to lib/engine: many taps served in as few passes over the samples as memory allows.
#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace onnxpress {

// Where a run of one sample leaves what it has reduced.
class Sink {
 public:
  virtual ~Sink() = default;
  // Whether this pass serves the tap. `extra` is what serving it keeps in memory for the length of the run.
  virtual bool wants(std::size_t tap, std::uint64_t extra) = 0;
  virtual void give(std::size_t tap, std::any partial) = 0;
};

struct TapWork {
  std::string label;              // for progress
  std::size_t taps = 0;           // how many
  std::vector<ValueInfo> inputs;  // of the model
  // Runs one sample, counted from 0 in each pass. Thread-safe.
  std::function<Status(std::size_t sample, std::span<const NamedTensor> inputs, Sink& sink)> run = {};
  std::function<void(std::size_t tap, std::any partial)> merge = {};  // in sample order
  std::function<std::uint64_t(std::size_t tap)> bytes = {};           // Accumulator::bytes()
};

// Runs every sample of the source by itself, `jobs` of them side by side. With a limit (0 = none), the first sample
// of a pass tells which taps fit: what their accumulators hold, what their runs keep and the samples in flight. The
// others wait for the next pass. Each tap is given the same partials in the same order at any limit and any number of
// jobs. A tap that exceeds the limit alone gets a pass of its own with fewer samples side by side.
Status run_passes(const TapWork& work, SampleSource& source, unsigned jobs, std::uint64_t limit);

}  // namespace onnxpress
