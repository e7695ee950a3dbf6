// Internal to lib/engine: the operator behind Session::observe. It has one input of any tensor type and no output;
// its kernel shows the tensor to the observer of the thread that runs the session.
#pragma once

#include <onnxruntime_cxx_api.h>

#include "engine/session.h"

namespace onnxpress {

// To be added to the options of every session whose model has observing nodes. Lives until the process ends.
OrtCustomOpDomain* observe_domain();

// While it lives, runs of this thread show what they observe to `observer`. Runs of the sessions here stay in the
// thread that calls them: one stream, executed in order, and kernels that only hand loops to other threads.
class Observation {
 public:
  explicit Observation(const Observer& observer);
  ~Observation();
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;

  // The first error of the observer: it ended the run, whose own error only repeats it.
  Status take_status() { return std::move(status_); }

 private:
  friend struct ObserveKernel;
  const Observer& observer_;
  Status status_;
  Observation* outer_;
};

}  // namespace onnxpress
