// Files that cannot be half written, and readers that never trust a declared size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace onnxpress {

// Bytes that stay valid while `keep` lives.
struct Bytes {
  std::span<const std::byte> data;
  std::shared_ptr<const void> keep;
};

// A regular file opened once for reading; thread-safe.
class FileReader {
 public:
  // Error io when it cannot be opened; bad_input when it is not a regular file.
  static Result<std::shared_ptr<FileReader>> open(const std::filesystem::path& path);
  // Opens `relative` below the folder `root`: no absolute path, no "..", no device; a symbolic link only when its
  // target stays below the folder, below `also_below` (the folder of the model's canonical path), or in the blobs/
  // folder of a Hugging Face cache. Error bad_input names what was refused.
  static Result<std::shared_ptr<FileReader>> open_beneath(const std::filesystem::path& root,
                                                          const std::string& relative,
                                                          const std::filesystem::path& also_below = {});
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  std::uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Exactly [offset, offset + length), aligned for any element type: copied up to 64 MiB and mapped above that (copied
  // too when the offset is not a multiple of 16). Error bad_input when out of range.
  Result<Bytes> read(std::uint64_t offset, std::uint64_t length) const;
  Status read_into(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  FileReader(int fd, std::string path, std::uint64_t size) : fd_(fd), path_(std::move(path)), size_(size) {}
  static Result<std::shared_ptr<FileReader>> adopt(int fd, std::string path);

  int fd_;
  std::string path_;
  std::uint64_t size_;
};

// Anonymous temporary file (unlinked at once) that bytes are appended to and read back from. Thread-safe.
class SpillFile {
 public:
  static Result<std::shared_ptr<SpillFile>> create(const std::filesystem::path& folder);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;
  Result<std::uint64_t> append(std::span<const std::byte> bytes);  // the offset it was written at
  Result<Bytes> read(std::uint64_t offset, std::uint64_t length) const;

 private:
  SpillFile(int fd, std::string folder) : fd_(fd), folder_(std::move(folder)) {}
  int fd_;
  std::string folder_;  // for messages: the file itself has no name
  mutable std::mutex mutex_;
  std::uint64_t end_ = 0;
};

// Writes <folder>/.<name>.<pid>.tmp, then commit() syncs and renames it: the target holds the old content or the
// new, whole. Without commit() the temporary is removed. A target that is a symbolic link is replaced, not followed;
// one that is a folder or a device is refused.
class AtomicFile {
 public:
  static Result<AtomicFile> create(const std::filesystem::path& target);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  Status write(std::span<const std::byte> bytes);
  Status pad_to(std::uint64_t alignment);  // zeros up to a multiple of alignment
  std::uint64_t written() const { return written_; }
  Status sync();                                  // everything written is on disk
  const std::filesystem::path& temporary() const { return temporary_; }
  Status commit();                                // to the target given to create()
  Status commit_as(const std::filesystem::path& target);  // to another name in the same folder

 private:
  AtomicFile(int fd, std::filesystem::path target, std::filesystem::path temporary)
      : fd_(fd), target_(std::move(target)), temporary_(std::move(temporary)) {}
  int fd_;
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  std::uint64_t written_ = 0;
};

Result<std::string> read_text_file(const std::filesystem::path& path, std::uint64_t max_bytes);
Status write_text_file(const std::filesystem::path& path, std::string_view text);  // atomically

std::string errno_text(int error);

}  // namespace onnxpress
