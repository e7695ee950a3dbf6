// What every command starts with: the model, its numbers, its samples, and the check of where output goes.
#pragma once

#include <memory>
#include <string>

#include "data/source.h"
#include "ir/model.h"
#include "report/report.h"

namespace onnxpress {

// A model with what a report says of its file.
struct LoadedModel {
  Model model;
  FileReport file;
  ModelStats stats;
};
// "-" is stdin; its size is that of the canonical form, and it has no hash. Errors: those of load_model().
Result<LoadedModel> load_with_stats(const std::string& path, unsigned jobs);

// Opens samples for the model and says what will be read, with the resolved preprocessing. Null when no path is given.
Result<std::unique_ptr<SampleSource>> open_samples(const DataOptions& options, const ModelStats& stats);

// Before any work: usage when PATH exists and `overwrite` is off, or it is a folder; io when its folder is missing or
// read-only. "-" always passes.
Status check_output_path(const std::string& path, bool overwrite);

}  // namespace onnxpress
