// Streams the activations of a model over a sample source into accumulators.
#pragma once

#include "data/source.h"
#include "engine/reference_runs.h"
#include "engine/session.h"
#include "pass/pass.h"

namespace onnxpress {

// Each sample runs by itself in one thread (with the others of its batch only where the model fixes the batch), `jobs`
// of them side by side: results are the same at any thread count, batch size and memory limit. Values are reduced while
// the model runs and freed by the runtime as ever. What the accumulators hold and the samples in flight stay below
// `memory_limit` bytes (0 = no limit) by several passes over the data when one is not enough.
class EngineActivations : public Activations {
 public:
  EngineActivations(SampleSource& source, unsigned jobs, std::uint64_t memory_limit)
      : source_(source), jobs_(jobs), memory_limit_(memory_limit) {}
  Status collect(const Model& model, std::span<const Tap> taps) override;
  // Model `a` runs first; the tapped values of its run are kept until their counterparts come by. Calls in a row with
  // the same `a` and the same values of it are cheaper (see reference_runs.h).
  Status collect_pairs(const Model& a, const Model& b, std::span<const PairTap> taps) override;
  Status probe(const Model& model, std::span<const Tap> taps) override;
  std::string description() const override;

 private:
  SampleSource& source_;
  unsigned jobs_;
  std::uint64_t memory_limit_;
  ReferenceRuns reference_;
};

}  // namespace onnxpress
