// A model with its samples, ready to try changes on: what the commands share that measure many variants of one model.
#pragma once

#include <memory>
#include <string>

#include "data/source.h"
#include "engine/activations.h"
#include "engine/session.h"
#include "pass/pipeline.h"

namespace onnxpress {

struct TrialRequest {
  std::string model;
  Pipeline pipeline;       // run first
  DataOptions data, eval;  // for the passes; to compare on (path "": `data` too)
  unsigned jobs = 0;
  std::uint64_t memory_limit = 0;  // bytes; 0 = none
};

class Trial {
 public:
  // Errors: usage (no data, `what` needs it), bad_input, io, engine.
  static Result<std::unique_ptr<Trial>> open(const TrialRequest& request, const std::string& what);

  Model model;  // after the pipeline
  PassContext context;
  Activations& compared();
  std::string samples() const;  // for readers
  std::string digest() const;   // of all samples and what is done to them

 private:
  Trial() = default;
  std::unique_ptr<SampleSource> data_, eval_;
  std::unique_ptr<EngineActivations> activations_, compared_;
  EngineRunner runner_;
};

}  // namespace onnxpress
