// Which format is it?
#include <algorithm>

#include "base/file.h"
#include "base/hash.h"
#include "data/sources.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDigestPiece = 1 << 20;

// Options of image folders must not be ignored silently elsewhere.
Status refuse_image_options(const DataOptions& options, std::string_view format) {
  if (!options.preprocess.empty())
    return fail(Code::usage, "--preprocess is for folders of images, not for {} data", format);
  if (!options.labels.empty())
    return fail(Code::usage, "--labels is for folders of images; {} data take no labels file{}", format,
                format == "npz" ? ", their labels are under the key 'labels'" : "");
  return {};
}

Result<std::string> first_bytes(const fs::path& path) {
  OP_LET(const auto file, FileReader::open(path));
  std::string start(static_cast<std::size_t>(std::min<std::uint64_t>(6, file->size())), '\0');
  OP_TRY(file->read_into(0, std::as_writable_bytes(std::span(start))));
  return start;
}

}  // namespace

Result<std::string> digest_of_files(std::span<const fs::path> paths) {
  Hasher hasher;
  std::vector<std::byte> piece(kDigestPiece);
  for (const fs::path& path : paths) {
    OP_LET(const auto file, FileReader::open(path));
    for (std::uint64_t offset = 0; offset < file->size(); offset += piece.size()) {
      const auto part = std::span(piece).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), file->size() - offset)));
      OP_TRY(file->read_into(offset, part));
      hasher.add(part);
    }
  }
  return hasher.hex();
}

Result<std::size_t> wanted_samples(const DataOptions& options, std::size_t available, const std::string& name) {
  if (options.samples == 0) return fail(Code::usage, "--samples 0 leaves nothing to read");
  if (available == 0) return fail(Code::bad_input, "{}: no samples", name);
  return std::min(available, options.samples.value_or(available));
}

std::string samples_text(std::size_t delivered, std::size_t available) {
  const std::string of = delivered == available ? "" : fmt::format(" of {}", available);
  return fmt::format("{}{} sample{}", delivered, of, available == 1 ? "" : "s");
}

SourceResult open_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  if (options.path.starts_with("random:")) {
    OP_TRY(refuse_image_options(options, "random"));
    return open_random_source(options, inputs);
  }
  const fs::path path = options.path;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (!is_pb_folder(path)) return open_image_source(options, inputs);
    OP_TRY(refuse_image_options(options, "pb"));
    return open_pb_source(options, inputs);
  }
  OP_LET(const std::string start, first_bytes(path));
  if (start.starts_with("PK")) {
    OP_TRY(refuse_image_options(options, "npz"));
    return open_npz_source(options, inputs);
  }
  if (start.starts_with("\x93NUMPY")) {
    OP_TRY(refuse_image_options(options, "npy"));
    return open_npy_source(options, inputs);
  }
  return fail(
      Code::bad_input,
      "{} is none of the data formats: an .npz or .npy file, a folder of test_data_set_N/input_K.pb, a folder of "
      "images, or random:seed=N",
      options.path);
}

}  // namespace onnxpress
