// Statistics on disk. One file, because one file is there or not, and cannot be paired with another's counts:
//
//   8 bytes   "OPXSTAT" and the version, 1
//   8 bytes   length of the header, little-endian
//   header    JSON: {"format", "model": {"structure", "content"}, "payload": {"bytes", "hash"}, "values": {NAME:
//             {"min", "max", "finite", "nan", "infinite", "samples", "sum_of_min", "sum_of_max", "histogram":
//             {"top", "zeros", "positive": {"first", "bins"}, "negative": {...}}}}}
//   payload   the counts of the bins first, first + 1, ... of every side, in the order of the header, each as a
//   base-128
//             number, low digits first, the high bit set on all but the last (LEB128)
//
// Nothing in it depends on paths, time or how the samples were batched: merged shards give the bytes of one run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "calib/statistics.h"
#include "ir/model.h"

namespace onnxpress {

// What the statistics were taken of.
struct ModelPrint {
  std::string structure;  // hash of all nodes, their names and values
  std::string content;    // hash of everything, weights too
  bool operator==(const ModelPrint&) const = default;
};
Result<ModelPrint> model_print(const Model& model);

struct StatisticsFile {
  ModelPrint model;
  StatisticsTable values;
  bool operator==(const StatisticsFile&) const = default;
};

std::string statistics_bytes(const StatisticsFile& file);
// Error bad_input says what is wrong; resource when it asks for more than 16 GiB of counts. `name` is for messages.
Result<StatisticsFile> parse_statistics(std::string_view bytes, const std::string& name);
bool looks_like_statistics(std::string_view bytes);

// Whole or not at all.
Status write_statistics(const std::filesystem::path& path, const StatisticsFile& file);
// Errors: io, and those of parse_statistics().
Result<StatisticsFile> read_statistics(const std::filesystem::path& path);

// Adds a shard: statistics of the same model over other samples. Errors (bad_input): another model, other values.
Status merge_statistics(StatisticsFile& into, const StatisticsFile& shard, const std::string& name);

}  // namespace onnxpress
