// Samples from .npz and .npy files, streamed: the keys advance in lockstep, one run at a time.
#include <algorithm>

#include "base/text.h"
#include "data/fit.h"
#include "data/sources.h"
#include "npz/npy.h"
#include "npz/npz.h"

namespace onnxpress {
namespace {

constexpr std::string_view kLabelsKey = "labels";

// One model input and the array that feeds it.
struct Column {
  ValueInfo input;
  NpyReader reader;
  bool stacks = false;  // samples lack the input's batch axis and are put one upon the other along it

  Dims run_dims(std::size_t samples) const {
    Dims dims(reader.item_dims().begin(), reader.item_dims().end());
    if (stacks) dims.insert(dims.begin(), static_cast<std::int64_t>(samples));
    return dims;
  }
};

Result<Column> make_column(const ValueInfo& input, NpyReader reader) {
  Column column{input, std::move(reader), true};
  if (auto status = check_kind(column.reader.dtype(), input); !status)
    return rethrow(status.error(), column.reader.name());
  const std::size_t sample_rank = column.reader.item_dims().size();
  if (const auto rank = input.type.rank()) {
    if (sample_rank != *rank && sample_rank + 1 != *rank)
      return fail(
          Code::bad_input,
          "{}: {} has samples of shape {} (its first axis counts samples), which do not fit input '{}' of type {}",
          column.reader.name(), dims_text(column.reader.dims()), dims_text(column.reader.item_dims()),
          escape_control(input.name), type_text(input.type));
    column.stacks = sample_rank + 1 == *rank;
  }
  return column;
}

// How many samples one run takes.
struct Grouping {
  std::size_t samples = 1;
  bool fixed = false;  // by the model, so that a smaller last run is impossible
};

Result<Grouping> find_grouping(std::span<const Column> columns, std::size_t wanted) {
  const ValueInfo* decided = nullptr;
  bool stackable = true;
  for (const Column& column : columns) {
    stackable = stackable && column.stacks;
    const auto size = column.stacks && column.input.type.shape ? column.input.type.dim(0) : std::nullopt;
    if (!size) continue;
    if (*size < 1)
      return fail(Code::bad_input, "input '{}' has a batch of {}", escape_control(column.input.name), *size);
    if (decided && decided->type.dim(0) != size)
      return fail(Code::bad_input, "inputs '{}' and '{}' have different fixed batches ({} and {})",
                  escape_control(decided->name), escape_control(column.input.name), *decided->type.dim(0), *size);
    decided = &column.input;
  }
  if (!decided) return Grouping{stackable ? std::max<std::size_t>(1, wanted) : 1, false};
  const auto batch = static_cast<std::size_t>(*decided->type.dim(0));
  if (batch > 1 && !stackable)
    return fail(
        Code::bad_input,
        "input '{}' takes {} samples a run, but not every array can be stacked; give each key samples of one run",
        escape_control(decided->name), batch);
  return Grouping{batch, true};
}

// A label array is [N] or [N, 1] of any integer type.
Status check_labels(const NpyReader& labels) {
  const auto rest = labels.item_dims();
  if (is_integer(labels.dtype()) && (rest.empty() || (rest.size() == 1 && rest[0] == 1))) return {};
  return fail(Code::bad_input, "{}: labels are one integer a sample, not {}{}", labels.name(),
              dtype_name(labels.dtype()), dims_text(labels.dims()));
}

class ArraySource final : public SampleSource {
 public:
  ArraySource(std::vector<Column> columns, std::optional<NpyReader> labels, std::string digest)
      : columns_(std::move(columns)), labels_(std::move(labels)), digest_(std::move(digest)) {}

  Status plan(const DataOptions& options, const std::string& file, std::string_view format, const std::string& remark);

  Result<std::optional<Batch>> next() override;
  Status rewind() override;
  std::size_t size() const override { return size_; }
  bool has_labels() const override { return labels_.has_value(); }
  std::string description() const override { return description_; }
  std::string digest() const override { return digest_; }

 private:
  std::vector<Column> columns_;
  std::optional<NpyReader> labels_;
  std::string digest_;
  std::string description_;
  std::size_t group_ = 1;
  std::size_t size_ = 0;
  std::size_t done_ = 0;
};

Status ArraySource::plan(const DataOptions& options, const std::string& file, std::string_view format,
                         const std::string& remark) {
  const NpyReader& first = columns_.front().reader;
  const auto same_count = [&](const NpyReader& other) -> Status {
    if (other.items() == first.items()) return {};
    return fail(Code::bad_input, "{} has {} samples, {} has {}", first.name(), first.items(), other.name(),
                other.items());
  };
  for (const Column& column : columns_) OP_TRY(same_count(column.reader));
  if (labels_) {
    OP_TRY(check_labels(*labels_));
    OP_TRY(same_count(*labels_));
  }
  const auto available = static_cast<std::size_t>(first.items());
  OP_LET(size_, wanted_samples(options, available, file));
  OP_LET(const Grouping grouping, find_grouping(columns_, options.batch));
  const std::size_t left_over = grouping.fixed ? size_ % grouping.samples : 0;
  if (left_over == size_)
    return fail(Code::bad_input, "{}: {} samples are fewer than the {} the model takes in one run", file, size_,
                grouping.samples);
  size_ -= left_over;
  group_ = std::min(grouping.samples, size_);
  for (const Column& column : columns_) {
    const Dims dims = column.run_dims(group_);
    if (auto status = check_shape(dims, column.input); !status) return rethrow(status.error(), column.reader.name());
    OP_TRY(allocation_bytes(column.reader.dtype(), dims, column.reader.name()));
    OP_TRY(allocation_bytes(column.input.type.dtype, dims, column.reader.name()));
  }
  description_ = fmt::format("{} ({}, {}", file, format, samples_text(size_, available));
  if (group_ > 1) description_ += fmt::format(" in runs of {}", group_);
  if (left_over > 0) description_ += fmt::format(", {} left over", left_over);
  description_ += remark + ")";
  return {};
}

Result<std::optional<Batch>> ArraySource::next() {
  if (done_ == size_) return std::nullopt;
  Batch batch;
  batch.samples = std::min(group_, size_ - done_);
  for (Column& column : columns_) {
    Tensor tensor(column.reader.dtype(), column.run_dims(batch.samples));
    OP_TRY(column.reader.read(tensor.mutable_bytes()));
    auto fitted = fit_tensor(std::move(tensor), column.input);
    if (!fitted) return rethrow(fitted.error(), column.reader.name());
    batch.inputs.push_back({column.input.name, std::move(*fitted)});
  }
  if (labels_) {
    Tensor tensor(labels_->dtype(), {static_cast<std::int64_t>(batch.samples)});
    OP_TRY(labels_->read(tensor.mutable_bytes()));
    const ValueInfo index{std::string(kLabelsKey), {DType::i64, std::nullopt, true}};
    auto fitted = fit_tensor(std::move(tensor), index);
    if (!fitted) return rethrow(fitted.error(), labels_->name());
    const auto values = fitted->as<std::int64_t>();
    batch.labels.assign(values.begin(), values.end());
  }
  done_ += batch.samples;
  return batch;
}

Status ArraySource::rewind() {
  done_ = 0;
  for (Column& column : columns_) OP_TRY(column.reader.rewind());
  return labels_ ? labels_->rewind() : Status();
}

std::vector<std::string> names_of(std::span<const ValueInfo> inputs) {
  std::vector<std::string> names;
  for (const ValueInfo& input : inputs) names.push_back(input.name);
  return names;
}

std::string quoted_list(std::span<const std::string> names) {
  std::vector<std::string> quoted;
  for (const std::string& name : names) quoted.push_back("'" + escape_control(name) + "'");
  return join(quoted, ", ");
}

// Every input needs its key. A near miss is named; what stays unused is said in the description.
Result<std::vector<std::string>> match_keys(const NpzFile& npz, const std::string& file,
                                            std::span<const std::string> inputs) {
  std::vector<std::string> unused;
  for (const std::string& key : npz.keys())
    if (!std::ranges::contains(inputs, key) && key != kLabelsKey) unused.push_back(key);
  for (const std::string& input : inputs) {
    if (npz.has(input)) continue;
    return fail(Code::bad_input, "{} has no key '{}' for that input of the model{} (keys: {}; inputs: {})", file,
                escape_control(input), escape_control(did_you_mean(input, unused)), quoted_list(npz.keys()),
                quoted_list(inputs));
  }
  return unused;
}

}  // namespace

SourceResult open_npz_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  const std::filesystem::path path = options.path;
  const std::string file = path.filename().string();
  if (inputs.empty()) return fail(Code::bad_input, "the model has no inputs that {} could feed", file);
  OP_LET(const NpzFile npz, NpzFile::open(path));
  const std::vector<std::string> names = names_of(inputs);
  OP_LET(const auto unused, match_keys(npz, file, names));
  std::vector<Column> columns;
  for (const ValueInfo& input : inputs) {
    OP_LET(NpyReader reader, npz.array(input.name));
    OP_LET(Column column, make_column(input, std::move(reader)));
    columns.push_back(std::move(column));
  }
  std::optional<NpyReader> labels;
  if (const std::string key(kLabelsKey); npz.has(key) && !std::ranges::contains(names, key)) {
    OP_LET(labels, npz.array(key));
  }
  OP_LET(std::string digest, digest_of_files(std::span(&path, 1)));
  auto source = std::make_unique<ArraySource>(std::move(columns), std::move(labels), std::move(digest));
  OP_TRY(source->plan(options, file, "npz", unused.empty() ? "" : ", unused: " + quoted_list(unused)));
  return source;
}

SourceResult open_npy_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  const std::filesystem::path path = options.path;
  const std::string file = path.filename().string();
  if (inputs.size() != 1)
    return fail(Code::bad_input, "{} holds one array, the model has {} inputs ({}); use an .npz with these keys", file,
                inputs.size(), quoted_list(names_of(inputs)));
  OP_LET(NpyReader reader, open_npy(path));
  std::vector<Column> columns;
  OP_LET(Column column, make_column(inputs[0], std::move(reader)));
  columns.push_back(std::move(column));
  OP_LET(std::string digest, digest_of_files(std::span(&path, 1)));
  auto source = std::make_unique<ArraySource>(std::move(columns), std::nullopt, std::move(digest));
  OP_TRY(source->plan(options, file, "npy", ""));
  return source;
}

}  // namespace onnxpress
