// The measuring commands: inspect, eval and compare, each from files to a report.
#pragma once

#include <string>

#include "data/source.h"
#include "report/report.h"

namespace onnxpress {

struct InspectRequest {
  std::string tool_version;
  std::string model;
  unsigned jobs = 0;
};
Result<Report> inspect(const InspectRequest& request);

struct EvalRequest {
  std::string tool_version;
  std::string model;
  DataOptions eval;
  Metric metric = Metric::automatic;
  bool latency = true;
  unsigned jobs = 0;
};
Result<Report> eval_model(const EvalRequest& request);

struct CompareSettings {
  Metric metric = Metric::automatic;
  unsigned jobs = 0;
  bool latency = true, layers = true;
  std::uint64_t memory_limit = 0;
};

struct CompareRequest {
  std::string tool_version;
  std::string before, after;
  DataOptions eval;  // path "" compares sizes and operators only
  CompareSettings settings;
  GateLimits gates;
};
// The gates are in the report; gates_pass() says whether they were met.
Result<Report> compare_models(const CompareRequest& request);

// Accuracy, per-layer error and latency of both models over the source, as parts of the report.
Status compare_into(Report& report, const Model& before, const Model& after, SampleSource& source,
                    const CompareSettings& settings);

}  // namespace onnxpress
