// Calibration by itself: statistics of a model's values, from samples or merged from files, to a file or as ranges.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "calib/ort_tables.h"
#include "calib/ranges.h"
#include "data/source.h"
#include "pass/pipeline.h"

namespace onnxpress {

struct CalibrateRequest {
  std::string model;  // "" when files are merged
  Pipeline before;    // what is done to the model first, so that values are those the quantizer will see
  DataOptions data;
  std::vector<std::string> merge;  // statistics files, in the order of their samples
  std::string output;              // statistics; "" = none
  std::string export_path;         // ranges; "" = none
  OrtForm export_form = OrtForm::overrides;
  RangeSettings ranges;  // of the exported ranges and the summary
  DType dtype = DType::u8;
  bool symmetric = false;
  unsigned jobs = 0;
  std::uint64_t memory_limit = 0;
  std::uint64_t seed = 0;
  bool overwrite = false;
};

struct CalibratedValue {
  std::string name;  // range_key()
  ValueRange seen;
  ValueRange chosen;
  double sqnr_db = 0;  // of the value in codes that cover `chosen`, as its histogram tells it; +inf without error
};

struct CalibrateResult {
  std::vector<CalibratedValue> values;
  std::uint64_t samples = 0;  // the most that any value was seen in
  std::vector<std::string> warnings;
};

// Every value of type float, float16, bfloat16 or double that is known when the model is not run: inputs and outputs of
// nodes, in the main graph and in bodies of If, Loop and Scan; no constants, nothing inside functions.
std::vector<ValueRef> calibratable_values(const Model& model);

// Errors: usage (output exists, no data), bad_input (model, data, statistics of another model), io, resource, engine.
Result<CalibrateResult> calibrate(const CalibrateRequest& request);

}  // namespace onnxpress
