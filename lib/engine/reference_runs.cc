#include "engine/reference_runs.h"

#include <onnx/onnx_pb.h>

#include <algorithm>

#include "base/hash.h"

namespace onnxpress {
namespace {

std::string key_of(const Model& model, const std::vector<ObservedValue>& values) {
  Hasher hasher;
  hasher.add(model.proto().SerializeAsString());
  for (const ObservedValue& value : values) hasher.add(value.value).add(std::string_view("\0", 1));
  return hasher.hex();
}

}  // namespace

Status ReferenceRuns::begin(const Model& model, const std::vector<ObservedValue>& values, std::uint64_t budget) {
  std::string key = key_of(model, values);
  if (key != key_ || store_ != model.shared_store()) {
    session_.reset();
    recording_.clear();
    complete_ = false;
    calls_ = 0;
    key_ = std::move(key);
    store_ = model.shared_store();
  }
  ++calls_;
  if (complete_) return {};
  recording_.clear();
  recording_on_ = calls_ > 1;
  budget_ = budget;
  if (session_) return {};
  OP_LET(session_, Session::open(model, {.observe = values}));
  return {};
}

const ReferenceRuns::Values* ReferenceRuns::recorded(std::size_t sample) const {
  return complete_ ? &recording_.at(sample) : nullptr;
}

void ReferenceRuns::record(std::size_t sample, const Values& values) {
  const std::lock_guard lock(mutex_);
  if (!recording_on_) return;
  std::uint64_t bytes = 0;
  for (const auto& value : values) bytes += value ? value->bytes().size() : 0;
  if (std::ranges::contains(values, nullptr) || bytes > budget_) {
    recording_on_ = false;
    recording_.clear();
    return;
  }
  budget_ -= bytes;
  recording_.resize(std::max(recording_.size(), sample + 1));
  recording_[sample] = values;
}

void ReferenceRuns::end() {
  complete_ = complete_ || recording_on_;
  if (complete_ || calls_ == 1) session_.reset();
}

}  // namespace onnxpress
