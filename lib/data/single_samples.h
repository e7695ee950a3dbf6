// One sample a run, however the source groups them.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "data/source.h"

namespace onnxpress {

// Float kernels round differently for different batch sizes, so what is measured on single samples does not depend on
// how they come. Takes a batch of several samples apart along the leading axis of its inputs when the model leaves that
// axis free in all of them; a model with a fixed batch gets its batches whole. Labels and expected outputs are left
// out.
class SingleSamples {
 public:
  // `inputs` are the model's.
  SingleSamples(SampleSource& source, std::vector<ValueInfo> inputs) : source_(source), model_(std::move(inputs)) {}
  Result<std::optional<Batch>> next();  // nullopt at the end
  Status rewind();

 private:
  bool divisible(const Batch& batch) const;

  SampleSource& source_;
  std::vector<ValueInfo> model_;
  Batch batch_;           // being taken apart
  std::size_t next_ = 1;  // of its samples; at batch_.samples nothing is left of it
};

}  // namespace onnxpress
