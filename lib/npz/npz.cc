#include "npz/npz.h"

#include <zip.h>

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "base/text.h"

namespace onnxpress {
namespace {

// Deflate cannot expand more than 1032-fold; the rest is room for its framing.
constexpr std::uint64_t kDeflateRatio = 1032;
constexpr std::uint64_t kDeflateSlack = 4096;

constexpr std::string_view kSuffix = ".npy";

std::string open_error_text(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

}  // namespace

struct NpzFile::Archive {
  zip_t* zip;
  std::uint64_t bytes;  // of the whole file
  Archive(zip_t* opened, std::uint64_t size) : zip(opened), bytes(size) {}
  ~Archive() { zip_discard(zip); }
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;
};

namespace {

// One entry. It keeps the archive open.
class ZipStream final : public ByteStream {
 public:
  ZipStream(std::shared_ptr<void> keep, zip_t* zip, std::uint64_t index, std::uint64_t size)
      : keep_(std::move(keep)), zip_(zip), index_(index), size_(size) {}
  ~ZipStream() override { close(); }
  ZipStream(const ZipStream&) = delete;
  ZipStream& operator=(const ZipStream&) = delete;

  std::uint64_t size() const override { return size_; }

  Status rewind() override {
    close();
    file_ = zip_fopen_index(zip_, index_, 0);
    if (!file_) return fail(Code::bad_input, "cannot unpack: {}", zip_strerror(zip_));
    return {};
  }

  Status read(std::span<std::byte> out) override {
    while (!out.empty()) {
      const zip_int64_t got = zip_fread(file_, out.data(), out.size());
      if (got < 0) return fail(Code::bad_input, "cannot unpack: {}", zip_file_strerror(file_));
      if (got == 0) return fail(Code::bad_input, "the data ends {} bytes before the declared size", out.size());
      out = out.subspan(static_cast<std::size_t>(got));
    }
    return {};
  }

  // Reading on at the end makes libzip compare the checksum.
  Status finish() override {
    std::byte more;
    const zip_int64_t got = zip_fread(file_, &more, 1);
    if (got < 0) return fail(Code::bad_input, "cannot unpack: {}", zip_file_strerror(file_));
    if (got > 0) return fail(Code::bad_input, "the data goes on after the declared size");
    return {};
  }

 private:
  void close() {
    if (file_) zip_fclose(std::exchange(file_, nullptr));
  }

  std::shared_ptr<void> keep_;
  zip_t* zip_;
  std::uint64_t index_;
  std::uint64_t size_;
  zip_file_t* file_ = nullptr;
};

Status check_entry(const zip_stat_t& stat, std::uint64_t archive_bytes) {
  constexpr zip_uint64_t wanted =
      ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if ((stat.valid & wanted) != wanted) return fail(Code::bad_input, "the zip entry declares no size");
  if (stat.encryption_method != ZIP_EM_NONE) return fail(Code::bad_input, "the zip entry is encrypted");
  if (stat.comp_method != ZIP_CM_STORE && stat.comp_method != ZIP_CM_DEFLATE)
    return fail(Code::bad_input, "zip method {} is not supported; save with numpy.savez or savez_compressed",
                stat.comp_method);
  if (stat.comp_size > archive_bytes)
    return fail(Code::bad_input, "the zip entry declares {} bytes, the file has {}", stat.comp_size, archive_bytes);
  const bool impossible =
      stat.comp_method == ZIP_CM_STORE
          ? stat.size != stat.comp_size
          : stat.size > kDeflateSlack && (stat.size - kDeflateSlack) / kDeflateRatio > stat.comp_size;
  if (impossible)
    return fail(Code::bad_input, "the zip entry declares {} bytes, which its {} stored bytes cannot hold", stat.size,
                stat.comp_size);
  return {};
}

}  // namespace

Result<NpzFile> NpzFile::open(const std::filesystem::path& path) {
  // libzip would block on a pipe and describes a missing file less well.
  OP_LET(const auto file, FileReader::open(path));
  NpzFile npz;
  npz.name_ = path.filename().string();
  int code = 0;
  zip_t* zip = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (!zip) return fail(Code::bad_input, "{}: not a readable .npz: {}", npz.name_, open_error_text(code));
  npz.archive_ = std::make_shared<Archive>(zip, file->size());
  const zip_int64_t count = zip_get_num_entries(zip, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<zip_uint64_t>(i);
    const char* raw = zip_get_name(zip, index, ZIP_FL_ENC_RAW);
    std::string key = raw ? raw : "";
    if (!key.ends_with(kSuffix))
      return fail(Code::bad_input, "{}: entry '{}' is not a .npy array", npz.name_, escape_control(key));
    key.resize(key.size() - kSuffix.size());
    npz.keys_.push_back(std::move(key));
    npz.indices_.push_back(index);
  }
  std::vector<std::string> sorted = npz.keys_;
  std::ranges::sort(sorted);
  if (const auto twice = std::ranges::adjacent_find(sorted); twice != sorted.end())
    return fail(Code::bad_input, "{}: key '{}' twice", npz.name_, escape_control(*twice));
  return npz;
}

bool NpzFile::has(const std::string& key) const { return std::ranges::contains(keys_, key); }

Result<NpyReader> NpzFile::array(const std::string& key) const {
  const std::string shown = fmt::format("{}: key '{}'", name_, escape_control(key));
  const auto found = std::ranges::find(keys_, key);
  if (found == keys_.end()) return fail(Code::bad_input, "{} is not there{}", shown, did_you_mean(key, keys_));
  const std::uint64_t index = indices_[static_cast<std::size_t>(found - keys_.begin())];
  zip_stat_t stat;
  zip_stat_init(&stat);
  zip_t* zip = archive_->zip;
  if (zip_stat_index(zip, index, 0, &stat) != 0) return fail(Code::bad_input, "{}: {}", shown, zip_strerror(zip));
  if (auto status = check_entry(stat, archive_->bytes); !status) return rethrow(status.error(), shown);
  auto stream = std::make_unique<ZipStream>(archive_, zip, index, stat.size);
  if (auto status = stream->rewind(); !status) return rethrow(status.error(), shown);
  return NpyReader::open(std::move(stream), shown);
}

}  // namespace onnxpress
