// Samples given in the test itself.
#pragma once

#include <utility>
#include <vector>

#include "data/source.h"

namespace onnxpress::testing {

class MemorySource : public SampleSource {
 public:
  explicit MemorySource(std::vector<Batch> batches, bool is_synthetic = false)
      : batches_(std::move(batches)), synthetic_(is_synthetic) {}

  Result<std::optional<Batch>> next() override {
    if (at_ == batches_.size()) return std::optional<Batch>();
    return std::optional<Batch>(batches_[at_++]);
  }
  Status rewind() override {
    at_ = 0;
    return {};
  }
  std::size_t size() const override {
    std::size_t samples = 0;
    for (const Batch& batch : batches_) samples += batch.samples;
    return samples;
  }
  bool has_labels() const override { return !batches_.empty() && !batches_.front().labels.empty(); }
  bool synthetic() const override { return synthetic_; }
  std::string description() const override { return "memory"; }
  std::string digest() const override { return "0123"; }

 private:
  std::vector<Batch> batches_;
  bool synthetic_;
  std::size_t at_ = 0;
};

}  // namespace onnxpress::testing
