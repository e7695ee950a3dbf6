// Samples from folders of photographs.
#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "base/file.h"
#include "base/text.h"
#include "data/fit.h"
#include "data/preprocess.h"
#include "data/sources.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxLabelsFile = 64 << 20;
constexpr std::uint64_t kMaxImageFile = std::uint64_t{1} << 30;

struct Photo {
  fs::path path;
  std::string shown;  // below the folder, for messages and order
  std::string group;  // the sub-folder; empty for files of the folder itself
};

bool is_photo_name(const fs::path& path) {
  static constexpr std::array<std::string_view, 4> known = {".jpg", ".jpeg", ".png", ".webp"};
  std::string extension = path.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return std::ranges::contains(known, extension);
}

Status list_photos(const fs::path& folder, const std::string& group, std::vector<Photo>& photos) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const std::string shown = group.empty() ? name : group + "/" + name;
    std::error_code ignored;
    if (it->is_directory(ignored)) {
      if (!group.empty())
        return fail(Code::bad_input, "{}: folders of images may be nested one level, not two", escape_control(shown));
      OP_TRY(list_photos(it->path(), name, photos));
    } else if (is_photo_name(name)) {
      photos.push_back({it->path(), shown, group});
    }
  }
  if (error) return fail(Code::io, "{}: {}", folder.string(), error.message());
  return {};
}

// A run of `wanted` photos spread evenly over all: the first ones would all be of one class.
std::vector<Photo> spread(std::vector<Photo> photos, std::size_t wanted) {
  std::vector<Photo> chosen;
  for (std::size_t i = 0; i < wanted; ++i) chosen.push_back(std::move(photos[i * photos.size() / wanted]));
  return chosen;
}

using Labels = std::map<std::string, std::int64_t>;

// Lines "name index"; the name may hold spaces.
Result<Labels> read_labels(const std::string& path) {
  OP_LET(const std::string text, read_text_file(path, kMaxLabelsFile));
  const std::string file = fs::path(path).filename().string();
  Labels labels;
  std::size_t number = 0;
  for (const std::string& raw : split(text, '\n')) {
    ++number;
    const std::string_view line = trim(raw);
    if (line.empty()) continue;
    const std::size_t gap = line.find_last_of(" \t");
    const std::string name(trim(line.substr(0, gap)));
    std::int64_t index = -1;
    if (gap != std::string_view::npos) {
      const char* end = line.data() + line.size();
      const auto [stop, error] = std::from_chars(line.data() + gap + 1, end, index);
      if (error != std::errc() || stop != end) index = -1;
    }
    if (index < 0)
      return fail(Code::bad_input, "{} line {}: 'name index' expected, not '{}'", file, number, escape_control(line));
    if (!labels.emplace(name, index).second)
      return fail(Code::bad_input, "{} line {}: '{}' is there twice", file, number, escape_control(name));
  }
  return labels;
}

Result<std::vector<std::int64_t>> label_photos(std::span<const Photo> photos, const Labels& labels,
                                               const std::string& file) {
  std::vector<std::string> known;
  for (const auto& [name, index] : labels) known.push_back(name);
  std::vector<std::int64_t> classes;
  for (const Photo& photo : photos) {
    const auto found = labels.find(photo.group);
    if (found == labels.end()) {
      if (photo.group.empty())
        return fail(Code::bad_input, "{}: labels go by sub-folder, and this image is in none",
                    escape_control(photo.shown));
      return fail(Code::bad_input, "{}: class '{}' is not in {}{}", escape_control(photo.shown),
                  escape_control(photo.group), file, escape_control(did_you_mean(photo.group, known)));
    }
    classes.push_back(found->second);
  }
  return classes;
}

class ImageSource final : public SampleSource {
 public:
  ImageSource(std::vector<Photo> photos, std::vector<std::int64_t> classes, Preprocess preprocess, ValueInfo input)
      : photos_(std::move(photos)),
        classes_(std::move(classes)),
        preprocess_(std::move(preprocess)),
        input_(std::move(input)) {}

  Status plan(const DataOptions& options, const std::string& folder, std::size_t available);

  Result<std::optional<Batch>> next() override;
  Status rewind() override {
    done_ = 0;
    return {};
  }
  std::size_t size() const override { return photos_.size(); }
  bool has_labels() const override { return !classes_.empty(); }
  std::string description() const override { return description_; }
  std::string formula() const override {
    const bool whole = is_integer(input_.type.dtype);
    return preprocess_formula(preprocess_) +
           (whole ? fmt::format(", rounded to {}", dtype_name(input_.type.dtype)) : "");
  }
  std::string digest() const override { return digest_; }

 private:
  Result<Image> load(const Photo& photo) const;

  std::vector<Photo> photos_;
  std::vector<std::int64_t> classes_;
  Preprocess preprocess_;
  ValueInfo input_;
  std::string description_;
  std::string digest_;
  std::size_t group_ = 1;
  std::size_t done_ = 0;
};

Status ImageSource::plan(const DataOptions& options, const std::string& folder, std::size_t available) {
  const bool batch_axis = input_.type.rank().value_or(4) == 4;
  const auto fixed = input_.type.shape && batch_axis ? input_.type.dim(0) : std::nullopt;
  if (fixed && *fixed < 1)
    return fail(Code::bad_input, "input '{}' has a batch of {}", escape_control(input_.name), *fixed);
  if (batch_axis) group_ = fixed ? static_cast<std::size_t>(*fixed) : std::max<std::size_t>(1, options.batch);
  const std::size_t left_over = fixed ? photos_.size() % group_ : 0;
  if (left_over == photos_.size())
    return fail(Code::bad_input, "{}: {} images are fewer than the {} the model takes in one run", folder, left_over,
                group_);
  const std::size_t chosen = photos_.size();
  photos_.resize(chosen - left_over);
  if (!classes_.empty()) classes_.resize(photos_.size());
  std::vector<fs::path> paths;
  for (const Photo& photo : photos_) paths.push_back(photo.path);
  OP_LET(digest_, digest_of_files(paths));
  description_ = fmt::format("{} (images, {}", folder, samples_text(photos_.size(), available));
  if (chosen != available) description_ += ", evenly spread";
  if (group_ > 1) description_ += fmt::format(" in runs of {}", group_);
  description_ += left_over > 0 ? fmt::format(", {} left over)", left_over) : ")";
  return {};
}

Result<Image> ImageSource::load(const Photo& photo) const {
  const auto load_plain = [&]() -> Result<Image> {
    OP_LET(const auto file, FileReader::open(photo.path));
    if (file->size() > kMaxImageFile)
      return fail(Code::bad_input, "{} are too much for one image", human_bytes(file->size()));
    OP_LET(const Bytes bytes, file->read(0, file->size()));
    OP_LET(const Image decoded, decode_image(bytes.data));
    return apply_geometry(decoded, preprocess_);
  };
  auto image = load_plain();
  if (!image) return rethrow(image.error(), escape_control(photo.shown));
  return image;
}

Result<std::optional<Batch>> ImageSource::next() {
  if (done_ == photos_.size()) return std::nullopt;
  Batch batch;
  batch.samples = std::min(group_, photos_.size() - done_);
  Tensor tensor;
  for (std::size_t i = 0; i < batch.samples; ++i) {
    const Photo& photo = photos_[done_ + i];
    OP_LET(const Image image, load(photo));
    Dims dims = preprocess_.layout == Layout::nhwc ? Dims{image.height, image.width, image.channels}
                                                   : Dims{image.channels, image.height, image.width};
    if (input_.type.rank().value_or(4) == 4) dims.insert(dims.begin(), static_cast<std::int64_t>(batch.samples));
    if (i == 0) {
      if (auto status = check_shape(dims, input_); !status) return rethrow(status.error(), escape_control(photo.shown));
      OP_TRY(allocation_bytes(DType::f32, dims, escape_control(photo.shown)));
      tensor = Tensor(DType::f32, dims);
    } else if (dims != tensor.dims()) {
      return fail(Code::bad_input,
                  "{}: {}x{} pixels, unlike the other images of its run; add resize=WxH to --preprocess",
                  escape_control(photo.shown), image.width, image.height);
    }
    write_values(image, preprocess_, tensor.as_mutable<float>().subspan(i * image.pixels.size(), image.pixels.size()));
    if (!classes_.empty()) batch.labels.push_back(classes_[done_ + i]);
  }
  OP_LET(Tensor values, convert(tensor.view(), input_.type.dtype));
  batch.inputs.push_back({input_.name, std::move(values)});
  done_ += batch.samples;
  return batch;
}

}  // namespace

SourceResult open_image_source(const DataOptions& options, std::span<const ValueInfo> inputs) {
  const fs::path path(options.path);
  const fs::path folder = path.has_filename() ? path : path.parent_path();
  const std::string name = folder.filename().string();
  if (inputs.size() != 1)
    return fail(Code::bad_input, "{}: images feed models with one input, this one has {}", name, inputs.size());
  OP_LET(Preprocess preprocess, parse_preprocess(options.preprocess));
  OP_TRY(resolve_preprocess(preprocess, inputs[0]));
  std::vector<Photo> photos;
  OP_TRY(list_photos(folder, "", photos));
  if (photos.empty()) return fail(Code::bad_input, "{}: no .jpg, .jpeg, .png or .webp files in this folder", name);
  std::ranges::sort(photos, {}, &Photo::shown);
  const std::size_t available = photos.size();
  OP_LET(const std::size_t wanted, wanted_samples(options, available, name));
  photos = spread(std::move(photos), wanted);
  std::vector<std::int64_t> classes;
  if (!options.labels.empty()) {
    OP_LET(const Labels labels, read_labels(options.labels));
    OP_LET(classes, label_photos(photos, labels, fs::path(options.labels).filename().string()));
  }
  auto source = std::make_unique<ImageSource>(std::move(photos), std::move(classes), std::move(preprocess), inputs[0]);
  OP_TRY(source->plan(options, name, available));
  return source;
}

}  // namespace onnxpress
