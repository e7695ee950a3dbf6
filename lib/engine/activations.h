// Streams the activations of a model over a sample source into accumulators.
#pragma once

#include "data/source.h"
#include "engine/session.h"
#include "pass/pass.h"

namespace onnxpress {

// Each sample batch runs in one thread, `jobs` of them side by side: results are the same at any thread count.
// When the taps of one batch would exceed `memory_limit` bytes, they are collected in several passes over the data.
class EngineActivations : public Activations {
 public:
  EngineActivations(SampleSource& source, unsigned jobs, std::uint64_t memory_limit)
      : source_(source), jobs_(jobs), memory_limit_(memory_limit) {}
  Status collect(const Model& model, std::span<const Tap> taps) override;
  // All pairs in one pass over the samples: the tapped values of one batch and both models are in memory together.
  Status collect_pairs(const Model& a, const Model& b, std::span<const PairTap> taps) override;
  std::string description() const override;

 private:
  SampleSource& source_;
  unsigned jobs_;
  std::uint64_t memory_limit_;
};

}  // namespace onnxpress
