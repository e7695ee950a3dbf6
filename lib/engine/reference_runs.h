// Internal to lib/engine: the model that others are compared with, call after call of collect_pairs.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/session.h"

namespace onnxpress {

// From the second call with the same model and values on, the session is kept; and so are the values of every sample,
// if they are small, so that the model need not run again. Whether a model is the same is told from its proto and its
// store of payloads, whose slots never change, not from its address.
class ReferenceRuns {
 public:
  // The observed values of one sample, by their position in the list; null where the run has not kept one.
  using Values = std::vector<std::shared_ptr<const Tensor>>;

  // A call begins. At most `budget` bytes of values are kept.
  Status begin(const Model& model, const std::vector<ObservedValue>& values, std::uint64_t budget);
  // What an earlier call has recorded of this sample; else nothing, and the session is there to run it.
  const Values* recorded(std::size_t sample) const;
  const Session& session() const { return *session_; }
  void record(std::size_t sample, const Values& values);  // thread-safe
  // The call was successful: all samples have been seen.
  void end();

 private:
  std::string key_;
  std::shared_ptr<const TensorStore> store_;
  std::unique_ptr<Session> session_;
  std::size_t calls_ = 0;  // with this key
  std::mutex mutex_;
  std::uint64_t budget_ = 0;
  std::vector<Values> recording_;
  bool recording_on_ = false, complete_ = false;
};

}  // namespace onnxpress
