// The flags of every command that writes a model, and the run they describe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common.h"
#include "flow/compress.h"

namespace onnxpress::cmd {

struct DataFlags {
  std::string data, eval, labels, preprocess, metric = "auto";
  std::optional<std::size_t> samples;
  void add_data(CLI::App* command);
  void add_eval(CLI::App* command);  // with --labels, --preprocess and --metric
  void add_samples(CLI::App* command, const std::string& help);
};

struct CompressFlags {
  std::string input, output, memory_limit, max_drop, max_size;
  std::optional<double> min_sqnr;
  std::vector<std::string> reports;
  DataFlags samples;
  unsigned jobs = 0;
  std::uint64_t seed = 0;
  bool force = false, keep_on_fail = false, strict = false, dry_run = false, verify_each = false;
  bool embed = false, external = false, no_metadata = false, no_latency = false, no_layers = false;

  void add(CLI::App* command);
  // Everything but the pipeline.
  Result<CompressRequest> request() const;
};

// Says what will be done, does it, prints and writes the reports. `origin` is where the pipeline came from.
int run_compress(const Cli& cli, const CLI::App& command, const CompressFlags& flags, Pipeline pipeline,
                 const std::string& origin);

}  // namespace onnxpress::cmd
