// Samples from the test_data_set_N folders of the ONNX backend tests and the Model Zoo.
#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "data/fit.h"
#include "data/sources.h"
#include "io/load.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSetPrefix = "test_data_set_";
constexpr std::string_view kSuffix = ".pb";

// N of "<prefix>N<suffix>".
std::optional<std::uint64_t> number_in(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (!name.starts_with(prefix) || !name.ends_with(suffix) || name.size() < prefix.size() + suffix.size())
    return std::nullopt;
  const std::string_view digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  std::uint64_t number = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

using Numbered = std::vector<std::pair<std::uint64_t, fs::path>>;

// The entries of `folder` called "<prefix>N<suffix>", by N.
Result<Numbered> numbered_entries(const fs::path& folder, std::string_view prefix, std::string_view suffix) {
  Numbered found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (const auto number = number_in(it->path().filename().string(), prefix, suffix))
      found.emplace_back(*number, it->path());
  }
  if (error) return fail(Code::io, "{}: {}", folder.string(), error.message());
  std::ranges::sort(found);
  return found;
}

struct DataSet {
  std::string name;
  Numbered inputs;
  Numbered outputs;
};

Result<DataSet> list_set(const fs::path& folder) {
  DataSet set;
  set.name = folder.filename().string();
  OP_LET(set.inputs, numbered_entries(folder, "input_", kSuffix));
  OP_LET(set.outputs, numbered_entries(folder, "output_", kSuffix));
  return set;
}

class PbSource final : public SampleSource {
 public:
  PbSource(std::vector<DataSet> sets, std::vector<ValueInfo> inputs, std::string description, std::string digest)
      : sets_(std::move(sets)),
        inputs_(std::move(inputs)),
        description_(std::move(description)),
        digest_(std::move(digest)) {}

  Result<std::optional<Batch>> next() override {
    if (done_ == sets_.size()) return std::nullopt;
    OP_LET(Batch batch, load(sets_[done_]));
    ++done_;
    return batch;
  }
  Status rewind() override {
    done_ = 0;
    return {};
  }
  std::size_t size() const override { return sets_.size(); }
  bool has_labels() const override { return false; }
  std::string description() const override { return description_; }
  std::string digest() const override { return digest_; }

 private:
  Result<Batch> load(const DataSet& set) const;
  // The input a file feeds: the one its tensor names, else the one at the file's number.
  Result<std::size_t> place_of(const std::string& tensor_name, std::uint64_t number) const {
    const auto named = std::ranges::find(inputs_, tensor_name, &ValueInfo::name);
    if (named != inputs_.end() && !tensor_name.empty()) return static_cast<std::size_t>(named - inputs_.begin());
    if (number < inputs_.size()) return static_cast<std::size_t>(number);
    return fail(Code::bad_input, "the model has {} inputs, none of them called '{}'", inputs_.size(),
                escape_control(tensor_name));
  }

  std::vector<DataSet> sets_;
  std::vector<ValueInfo> inputs_;
  std::string description_;
  std::string digest_;
  std::size_t done_ = 0;
};

Result<Batch> PbSource::load(const DataSet& set) const {
  std::vector<std::optional<Tensor>> tensors(inputs_.size());
  for (const auto& [number, path] : set.inputs) {
    const std::string shown = set.name + "/" + path.filename().string();
    auto loaded = load_tensor_pb(path);
    if (!loaded) return rethrow(loaded.error(), shown);
    const auto place = place_of(loaded->name, number);
    if (!place) return rethrow(place.error(), shown);
    const ValueInfo& input = inputs_[*place];
    if (tensors[*place])
      return fail(Code::bad_input, "{}: a second tensor for input '{}'", shown, escape_control(input.name));
    if (auto status = check_kind(loaded->tensor.dtype(), input); !status) return rethrow(status.error(), shown);
    if (auto status = check_shape(loaded->tensor.dims(), input); !status) return rethrow(status.error(), shown);
    auto fitted = fit_tensor(std::move(loaded->tensor), input);
    if (!fitted) return rethrow(fitted.error(), shown);
    tensors[*place] = std::move(*fitted);
  }
  Batch batch;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (!tensors[i])
      return fail(Code::bad_input, "{}: no input_{}.pb for input '{}'", set.name, i, escape_control(inputs_[i].name));
    batch.inputs.push_back({inputs_[i].name, std::move(*tensors[i])});
  }
  for (const auto& [number, path] : set.outputs) {
    auto loaded = load_tensor_pb(path);
    if (!loaded) return rethrow(loaded.error(), set.name + "/" + path.filename().string());
    batch.expected.push_back(std::move(*loaded));
  }
  return batch;
}

fs::path without_trailing_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

bool is_pb_folder(const fs::path& folder) {
  const auto sets = numbered_entries(folder, kSetPrefix, "");
  const auto inputs = numbered_entries(folder, "input_", kSuffix);
  const auto outputs = numbered_entries(folder, "output_", kSuffix);
  return (sets && !sets->empty()) || (inputs && !inputs->empty()) || (outputs && !outputs->empty());
}

SourceResult open_pb_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  const fs::path folder = without_trailing_slash(options.path);
  const std::string name = folder.filename().string();
  OP_LET(Numbered folders, numbered_entries(folder, kSetPrefix, ""));
  if (folders.empty()) folders.emplace_back(0, folder);
  OP_LET(const std::size_t samples, wanted_samples(options, folders.size(), name));
  std::vector<DataSet> sets;
  std::vector<fs::path> files;
  for (std::size_t i = 0; i < samples; ++i) {
    OP_LET(DataSet set, list_set(folders[i].second));
    for (const auto& list : {set.inputs, set.outputs})
      for (const auto& [number, path] : list) files.push_back(path);
    sets.push_back(std::move(set));
  }
  OP_LET(std::string digest, digest_of_files(files));
  auto source = std::make_unique<PbSource>(std::move(sets), std::vector(inputs.begin(), inputs.end()),
                                           fmt::format("{} (pb, {})", name, samples_text(samples, folders.size())),
                                           std::move(digest));
  // Data that do not fit should be known before work begins, not at the first run.
  OP_TRY(source->next());
  OP_TRY(source->rewind());
  return source;
}

}  // namespace onnxpress
