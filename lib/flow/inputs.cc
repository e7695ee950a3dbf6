#include "flow/inputs.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "io/load.h"
#include "io/save.h"

namespace onnxpress {
namespace {

constexpr std::uint64_t kHashBlock = std::uint64_t{8} << 20;

Result<std::string> hash_file(const FileReader& file) {
  Hasher hasher;
  for (std::uint64_t offset = 0; offset < file.size(); offset += kHashBlock) {
    OP_LET(const Bytes block, file.read(offset, std::min(kHashBlock, file.size() - offset)));
    hasher.add(block.data);
  }
  return hasher.hex();
}

std::uint64_t external_bytes(const Model& model) {
  std::uint64_t total = 0;
  for (const Graph* graph : model.graphs()) {
    for (const Initializer& initializer : graph->initializers()) {
      const auto slot = TensorStore::slot_of(*initializer.proto());
      if (slot && model.store().origin(*slot) == TensorStore::Origin::external) total += model.store().length(*slot);
    }
  }
  return total;
}

Result<FileReport> describe_file(const std::string& path, const Model& model) {
  FileReport report;
  report.path = path;
  if (path == "-") {
    OP_LET(report.model_bytes, serialized_size(model));
    return report;
  }
  OP_LET(const auto file, FileReader::open(path));
  report.model_bytes = file->size();
  report.data_bytes = external_bytes(model);
  OP_LET(report.hash, hash_file(*file));
  return report;
}

}  // namespace

Result<LoadedModel> load_with_stats(const std::string& path, unsigned jobs) {
  OP_LET(Model model, load_model(path));
  auto file = describe_file(path, model);
  if (!file) return rethrow(std::move(file).error(), path);
  auto stats = model_stats(model, {.jobs = jobs});
  if (!stats) return rethrow(std::move(stats).error(), path);
  return LoadedModel{std::move(model), std::move(*file), std::move(*stats)};
}

Result<std::unique_ptr<SampleSource>> open_samples(const DataOptions& options, const ModelStats& stats) {
  if (options.path.empty()) return nullptr;
  OP_LET(auto source, open_source(options, stats.inputs));
  log::info("  reading     {}", source->description());
  if (const std::string formula = source->formula(); !formula.empty()) log::info("  pixels      {}", formula);
  if (source->synthetic()) log::warning("{} is invented data: accuracy and ranges mean little", options.path);
  return source;
}

Status check_output_path(const std::string& path, bool overwrite) {
  if (path == "-") return {};
  std::error_code error;
  const std::filesystem::path target(path);
  if (std::filesystem::is_directory(target, error)) return fail(Code::usage, "{} is a folder", path);
  if (!overwrite && std::filesystem::exists(std::filesystem::symlink_status(target, error)))
    return fail(Code::usage, "{} exists; --force overwrites it", path);
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  if (!std::filesystem::is_directory(folder, error)) return fail(Code::io, "{}: no such folder", folder.string());
  if (::access(folder.c_str(), W_OK | X_OK) != 0) return fail(Code::io, "{}: no permission to write", folder.string());
  return {};
}

}  // namespace onnxpress
