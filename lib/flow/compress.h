// One compression, from file to file: what `onnxpress compress` and the pass commands do.
#pragma once

#include <cstdint>
#include <string>

#include "data/source.h"
#include "eval/metrics.h"
#include "io/save.h"
#include "pass/pipeline.h"
#include "report/report.h"

namespace onnxpress {

// The key of the model's metadata that says how it was made: canonical pipeline text.
inline constexpr std::string_view kPipelineKey = "onnxpress.pipeline";

struct CompressRequest {
  std::string command = "compress";  // for the report
  std::string tool_version;
  std::string input, output;  // "-" is stdin and stdout; output may be empty for a dry run
  Pipeline pipeline;
  DataOptions data, eval;  // path "" = none
  Metric metric = Metric::automatic;
  bool latency = true, layers = true;  // measured with `eval`
  unsigned jobs = 0;
  std::uint64_t seed = 0;
  std::uint64_t memory_limit = 0;  // bytes; 0 = none
  GateLimits gates;
  bool keep_on_fail = false;  // write the output also when a gate failed
  bool strict = false;        // write nothing when the pipeline changes nothing
  bool dry_run = false;       // everything but writing
  bool verify_each = false;   // ONNX checker after each pass
  bool overwrite = false;
  bool metadata = true;  // store the pipeline in the model, if it changed something
  SaveOptions::Data placement = SaveOptions::Data::automatic;
};

struct CompressResult {
  Report report;
  // ok, gate_failed, or unsupported (strict, and nothing applied).
  Code code = Code::ok;
  bool written = false;
};

// Loads, runs the pipeline, compares both models on the evaluation samples, applies the gates, saves whole or not at
// all. Gates see the sizes of the embedded form. A model the ONNX checker accepts must still be accepted afterwards.
// Errors: usage (output exists, data missing), bad_input, io, resource, engine, internal (a pass broke the model).
Result<CompressResult> compress(const CompressRequest& request);

}  // namespace onnxpress
