#include "base/file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/text.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMapAbove = std::uint64_t{64} << 20;
constexpr std::uint64_t kMapAlignment = 16;
// Never wait for the other end of a FIFO, never become a terminal's process group.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

// Owns a descriptor until release().
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Names come from files too: control characters must not reach a terminal through a message.
std::string shown(const fs::path& path) { return escape_control(path.string()); }

std::unexpected<Error> io_error(std::string_view doing, const fs::path& path, int error) {
  return fail(Code::io, "cannot {} {}: {}", doing, shown(path), errno_text(error));
}

fs::path folder_of(const fs::path& path) {
  const fs::path folder = path.parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

Status read_exactly(int fd, std::uint64_t offset, std::span<std::byte> out, const std::string& path) {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read", path, errno);
    if (got == 0) return fail(Code::io, "cannot read {}: it became shorter while being read", escape_control(path));
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Status write_exactly(int fd, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return io_error("write", path, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return {};
}

Result<Bytes> copy_range(int fd, std::uint64_t offset, std::uint64_t length, const std::string& path) {
  const auto size = static_cast<std::size_t>(length);
  // Plain new[] is aligned for every element type, which make_shared of a byte array does not promise.
  std::shared_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[size]);
  if (!buffer) return fail(Code::resource, "not enough memory for {} of {}", human_bytes(length), escape_control(path));
  OP_TRY(read_exactly(fd, offset, {buffer.get(), size}, path));
  return Bytes{{buffer.get(), size}, buffer};
}

Result<Bytes> map_range(int fd, std::uint64_t offset, std::uint64_t length, const std::string& path) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = offset / page * page;
  const auto mapped = static_cast<std::size_t>(offset - begin + length);
  void* base = ::mmap(nullptr, mapped, PROT_READ, MAP_PRIVATE, fd, static_cast<off_t>(begin));
  if (base == MAP_FAILED) return copy_range(fd, offset, length, path);
  std::shared_ptr<const void> keep(base,
                                   [mapped](const void* address) { ::munmap(const_cast<void*>(address), mapped); });
  const auto* data = static_cast<const std::byte*>(base) + (offset - begin);
  return Bytes{{data, static_cast<std::size_t>(length)}, std::move(keep)};
}

Result<Bytes> read_range(int fd, std::uint64_t offset, std::uint64_t length, const std::string& path) {
  if (length == 0) return Bytes{};
  if (length > kMapAbove && offset % kMapAlignment == 0) return map_range(fd, offset, length, path);
  return copy_range(fd, offset, length, path);
}

// --- opening below a folder ---

Status check_relative(const fs::path& root, const std::string& relative) {
  const auto refuse = [&](std::string_view why) {
    return fail(Code::bad_input, "file '{}' is refused: {} (it must be a file below {})", escape_control(relative), why,
                shown(root));
  };
  if (relative.empty()) return refuse("the name is empty");
  if (relative.find('\0') != std::string::npos) return refuse("the name has a zero byte");
  if (relative.front() == '/') return refuse("the path is absolute");
  for (const std::string& part : split(relative, '/')) {
    if (part == "..") return refuse("the path has a '..'");
  }
  return {};
}

// The kernel's own containment, where it has it (Linux 5.6). ENOSYS or EPERM (a sandbox) mean: walk.
int openat2_no_links(int root, const char* relative) {
  struct open_how how = {};
  how.flags = static_cast<decltype(how.flags)>(kReadFlags | O_NOFOLLOW);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  for (int tries = 0;; ++tries) {
    const long fd = ::syscall(SYS_openat2, root, relative, &how, sizeof(how));
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN) || tries == 100) return static_cast<int>(fd);
  }
}

// Opens each component by hand, refusing links with ELOOP.
int walk_no_links(int root, const std::string& relative) {
  std::vector<std::string> parts = split(relative, '/');
  std::erase_if(parts, [](const std::string& part) { return part.empty() || part == "."; });
  if (parts.empty()) {
    errno = EISDIR;
    return -1;
  }
  Fd folder(-1);
  const auto at = [&] { return folder ? folder.get() : root; };
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    Fd next(::openat(at(), parts[i].c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
    if (!next) return -1;
    struct stat info = {};
    if (::fstat(next.get(), &info) != 0) return -1;
    if (!S_ISDIR(info.st_mode)) {
      errno = S_ISLNK(info.st_mode) ? ELOOP : ENOTDIR;
      return -1;
    }
    folder = std::move(next);
  }
  return ::openat(at(), parts.back().c_str(), kReadFlags | O_NOFOLLOW);
}

// A descriptor, or -1 with errno; ELOOP when a link is on the way.
Fd open_no_links(const fs::path& root, const std::string& relative) {
  const Fd folder(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return Fd(-1);
  const int fd = openat2_no_links(folder.get(), relative.c_str());
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return Fd(fd);
  return Fd(walk_no_links(folder.get(), relative));
}

// `path` as seen from `folder` when it lies below it; both canonical.
std::optional<std::string> below(const fs::path& folder, const fs::path& path) {
  if (folder.empty()) return std::nullopt;
  const auto [end, rest] = std::ranges::mismatch(folder, path);
  if (end != folder.end() || rest == path.end()) return std::nullopt;
  fs::path relative;
  for (auto part = rest; part != path.end(); ++part) relative /= *part;
  return relative.string();
}

// A Hugging Face cache keeps models--NAME/snapshots/REV/file as a link into models--NAME/blobs/.
fs::path hugging_face_blobs(const fs::path& folder) {
  fs::path at = folder;
  while (at.has_relative_path()) {
    const fs::path parent = at.parent_path();
    if (at.filename() == "snapshots" && parent.filename().string().starts_with("models--")) return parent / "blobs";
    at = parent;
  }
  return {};
}

// The link is resolved once; the result, which has no links, is opened beneath the folder that allows it, so a swap
// in between is caught by the open.
Result<Fd> open_link(const fs::path& root, const std::string& relative, const fs::path& also_below) {
  std::error_code error;
  const fs::path named = root / relative;
  const fs::path target = fs::canonical(named, error);
  if (error) return io_error("open", named, error.value());
  const fs::path home = fs::canonical(root, error);
  if (error) return io_error("open", root, error.value());
  fs::path second = also_below.empty() ? fs::path() : fs::canonical(also_below, error);
  if (error) second.clear();
  for (const fs::path& allowed : {home, second, hugging_face_blobs(home)}) {
    if (const auto inside = below(allowed, target)) {
      Fd fd = open_no_links(allowed, *inside);
      if (!fd) return io_error("open", target, errno);
      return fd;
    }
  }
  return fail(Code::bad_input, "file '{}' is refused: it is a link to {}, outside of {}", escape_control(relative),
              shown(target), shown(home));
}

}  // namespace

std::string errno_text(int error) { return std::generic_category().message(error); }

// --- FileReader ---

Result<std::shared_ptr<FileReader>> FileReader::adopt(int fd, std::string path) {
  Fd owned(fd);
  struct stat info = {};
  if (::fstat(owned.get(), &info) != 0) return io_error("open", path, errno);
  if (!S_ISREG(info.st_mode)) {
    return fail(Code::bad_input, "{} is {}, not a regular file", escape_control(path),
                S_ISDIR(info.st_mode) ? "a folder" : "a device, pipe or socket");
  }
  return std::shared_ptr<FileReader>(
      new FileReader(owned.release(), std::move(path), static_cast<std::uint64_t>(info.st_size)));
}

Result<std::shared_ptr<FileReader>> FileReader::open(const fs::path& path) {
  const int fd = ::open(path.c_str(), kReadFlags);
  if (fd < 0 && errno == ENXIO) return fail(Code::bad_input, "{} is a socket, not a regular file", shown(path));
  if (fd < 0) return io_error("open", path, errno);
  return adopt(fd, path.string());
}

Result<std::shared_ptr<FileReader>> FileReader::open_beneath(const fs::path& root, const std::string& relative,
                                                             const fs::path& also_below) {
  OP_TRY(check_relative(root, relative));
  const fs::path folder = root.empty() ? fs::path(".") : root;
  Fd fd = open_no_links(folder, relative);
  if (!fd && errno == ELOOP) {
    OP_LET(fd, open_link(folder, relative, also_below));
  } else if (!fd && errno == ENXIO) {
    return fail(Code::bad_input, "{} is a socket, not a regular file", shown(folder / relative));
  } else if (!fd && errno == EXDEV) {
    return fail(Code::bad_input, "file '{}' is refused: it leaves {}", escape_control(relative), shown(folder));
  } else if (!fd) {
    return io_error("open", folder / relative, errno);
  }
  return adopt(fd.release(), (folder / relative).string());
}

FileReader::~FileReader() { ::close(fd_); }

Result<Bytes> FileReader::read(std::uint64_t offset, std::uint64_t length) const {
  const auto end = checked_add(offset, length);
  if (!end || *end > size_) {
    return fail(Code::bad_input, "{}: {} bytes wanted at offset {}, but the file has {} bytes", escape_control(path_),
                length, offset, size_);
  }
  return read_range(fd_, offset, length, path_);
}

Status FileReader::read_into(std::uint64_t offset, std::span<std::byte> out) const {
  const auto end = checked_add(offset, out.size());
  if (!end || *end > size_) {
    return fail(Code::bad_input, "{}: {} bytes wanted at offset {}, but the file has {} bytes", escape_control(path_),
                out.size(), offset, size_);
  }
  return read_exactly(fd_, offset, out, path_);
}

// --- SpillFile ---

Result<std::shared_ptr<SpillFile>> SpillFile::create(const fs::path& folder) {
  const fs::path where = folder.empty() ? fs::path(".") : folder;
  Fd fd(::open(where.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {  // no O_TMPFILE on this file system
    std::string name = (where / ".onnxpress-spill.XXXXXX").string();
    fd = Fd(::mkostemp(name.data(), O_CLOEXEC));
    if (fd) ::unlink(name.c_str());
  }
  if (!fd) return io_error("make a temporary file in", where, errno);
  return std::shared_ptr<SpillFile>(new SpillFile(fd.release(), where.string()));
}

SpillFile::~SpillFile() { ::close(fd_); }

Result<std::uint64_t> SpillFile::append(std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  // Starts that are multiples of 64 keep every range mappable and aligned. A failed write leaves end_ where it was.
  const std::uint64_t begin = (end_ + 63) / 64 * 64;
  std::uint64_t at = begin;
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return io_error("write to the temporary file in", folder_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    at += static_cast<std::uint64_t>(done);
  }
  end_ = at;
  return begin;
}

Result<Bytes> SpillFile::read(std::uint64_t offset, std::uint64_t length) const {
  std::uint64_t size = 0;
  {
    const std::lock_guard lock(mutex_);
    size = end_;
  }
  const auto end = checked_add(offset, length);
  assert(end && *end <= size);
  return read_range(fd_, offset, length, folder_);
}

// --- AtomicFile ---

namespace {

// A new file beside the target; its mode is what the umask leaves of 0666.
Result<Fd> make_temporary(const fs::path& target, fs::path& temporary) {
  static std::atomic<unsigned> counter = 0;
  const std::string name = target.filename().string().substr(0, 200);  // NAME_MAX is 255
  for (int tries = 0;; ++tries) {
    const unsigned serial = counter++;
    const std::string suffix = serial == 0 ? "" : "-" + std::to_string(serial);
    temporary = target.parent_path() / ("." + name + "." + std::to_string(::getpid()) + suffix + ".tmp");
    Fd fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (fd) return fd;
    // A leftover of a killed process that had our number: take the next name.
    if (errno != EINTR && (errno != EEXIST || tries == 1000)) return io_error("create", temporary, errno);
  }
}

Status sync_folder(const fs::path& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return io_error("sync", folder, errno);
  // Some file systems cannot sync a folder; the rename is then as durable as they make it.
  if (::fsync(fd.get()) != 0 && errno != EINVAL && errno != EROFS) return io_error("sync", folder, errno);
  return {};
}

}  // namespace

Result<AtomicFile> AtomicFile::create(const fs::path& target) {
  struct stat info = {};
  if (target.filename().empty()) return fail(Code::io, "cannot write '{}': it names no file", shown(target));
  if (::stat(target.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return fail(Code::io, "cannot write {}: it is {}, not a regular file", shown(target),
                S_ISDIR(info.st_mode) ? "a folder" : "a device, pipe or socket");
  }
  fs::path temporary;
  OP_LET(Fd fd, make_temporary(target, temporary));
  return AtomicFile(fd.release(), target, std::move(temporary));
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      written_(other.written_) {}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  assert(fd_ >= 0);
  OP_TRY(write_exactly(fd_, bytes, target_));
  written_ += bytes.size();
  return {};
}

Status AtomicFile::pad_to(std::uint64_t alignment) {
  assert(alignment > 0);
  static constexpr std::array<std::byte, 4096> zeros = {};
  std::uint64_t missing = (alignment - written_ % alignment) % alignment;
  while (missing > 0) {
    const auto part = std::min<std::uint64_t>(missing, zeros.size());
    OP_TRY(write(std::span(zeros).first(static_cast<std::size_t>(part))));
    missing -= part;
  }
  return {};
}

Status AtomicFile::sync() {
  assert(fd_ >= 0);
  int result = 0;
  do {
    result = ::fsync(fd_);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return io_error("write", target_, errno);
  return {};
}

Status AtomicFile::commit() { return commit_as(target_); }

Status AtomicFile::commit_as(const fs::path& target) {
  assert(folder_of(target) == folder_of(target_));
  OP_TRY(sync());
  // Some file systems report a full disk only here. Linux frees the descriptor even when close fails.
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) return io_error("write", target, errno);
  if (::rename(temporary_.c_str(), target.c_str()) != 0) return io_error("write", target, errno);
  temporary_.clear();
  return sync_folder(folder_of(target));
}

// --- whole text files ---

Result<std::string> read_text_file(const fs::path& path, std::uint64_t max_bytes) {
  // Not a FileReader: a user may well give a recipe as /dev/stdin or <(command).
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return io_error("open", path, errno);
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read", path, errno);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > max_bytes) {
      return fail(Code::bad_input, "{} is larger than the limit of {}", shown(path), human_bytes(max_bytes));
    }
  }
}

Status write_text_file(const fs::path& path, std::string_view text) {
  OP_LET(AtomicFile file, AtomicFile::create(path));
  OP_TRY(file.write(std::as_bytes(std::span(text))));
  return file.commit();
}

}  // namespace onnxpress
