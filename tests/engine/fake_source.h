// Samples from memory, for tests of what consumes a SampleSource.
#pragma once

#include "data/source.h"

namespace onnxpress::testing {

class FakeSource : public SampleSource {
 public:
  explicit FakeSource(std::vector<Batch> batches) : batches_(std::move(batches)) {}
  Result<std::optional<Batch>> next() override {
    if (at_ == fail_at) return fail(Code::io, "sample {} cannot be read", at_);
    if (at_ == batches_.size()) return std::nullopt;
    return batches_[at_++];
  }
  Status rewind() override {
    at_ = 0;
    ++rewinds;
    return {};
  }
  std::size_t size() const override { return batches_.size(); }
  bool has_labels() const override { return false; }
  bool synthetic() const override { return invented; }
  std::string description() const override { return "fake samples"; }
  std::string digest() const override { return ""; }

  std::size_t rewinds = 0;
  std::size_t fail_at = ~std::size_t{0};
  bool invented = false;

 private:
  std::vector<Batch> batches_;
  std::size_t at_ = 0;
};

}  // namespace onnxpress::testing
