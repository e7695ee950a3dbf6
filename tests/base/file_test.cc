#include "base/file.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "support/scratch_dir.h"

namespace onnxpress {
namespace {

namespace fs = std::filesystem;
using testing::read_bytes;
using testing::ScratchDir;
using testing::write_bytes;

std::string text_of(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data.data()), bytes.data.size()};
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

// The whole text of the file, or nothing after checking that it was refused with bad_input.
std::optional<std::string> beneath(const fs::path& root, const std::string& relative, const fs::path& also = {}) {
  const auto reader = FileReader::open_beneath(root, relative, also);
  if (!reader) {
    CHECK(reader.error().code == Code::bad_input);
    CHECK(reader.error().what.find("refused") != std::string::npos);
    return std::nullopt;
  }
  return text_of(*(*reader)->read(0, (*reader)->size()));
}

TEST_CASE("a reader gives exact ranges and refuses the rest") {
  const ScratchDir dir;
  write_bytes(dir / "f", "0123456789");
  const auto reader = FileReader::open(dir / "f");
  REQUIRE(reader);
  CHECK((*reader)->size() == 10);
  CHECK(text_of(*(*reader)->read(0, 10)) == "0123456789");
  CHECK(text_of(*(*reader)->read(3, 4)) == "3456");
  CHECK(text_of(*(*reader)->read(10, 0)).empty());
  CHECK((*reader)->read(3, 8).error().code == Code::bad_input);
  CHECK((*reader)->read(11, 0).error().code == Code::bad_input);
  CHECK((*reader)->read(~std::uint64_t{0}, 2).error().code == Code::bad_input);  // would wrap
  std::array<std::byte, 3> three = {};
  REQUIRE((*reader)->read_into(7, three));
  CHECK(three[2] == std::byte{'9'});
  CHECK((*reader)->read_into(8, three).error().code == Code::bad_input);
}

TEST_CASE("bytes outlive the reader, mapped ones too") {
  const ScratchDir dir;
  const std::uint64_t big = (std::uint64_t{64} << 20) + 5000;
  write_bytes(dir / "big", "head");
  fs::resize_file(dir / "big", big);
  Bytes small, mapped, odd;
  {
    const auto reader = FileReader::open(dir / "big");
    small = *(*reader)->read(0, 4);
    mapped = *(*reader)->read(32, big - 32);
    odd = *(*reader)->read(1, big - 1);
  }
  CHECK(text_of(small) == "head");
  CHECK(mapped.data.size() == big - 32);
  CHECK(mapped.data.back() == std::byte{0});
  CHECK(text_of({odd.data.first(3), nullptr}) == "ead");
  CHECK(reinterpret_cast<std::uintptr_t>(odd.data.data()) % 16 == 0);
}

TEST_CASE("what is not a regular file is refused") {
  const ScratchDir dir;
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(FileReader::open(dir / "fifo").error().code == Code::bad_input);
  CHECK(FileReader::open(dir.path()).error().code == Code::bad_input);
  CHECK(FileReader::open("/dev/zero").error().code == Code::bad_input);
  CHECK(FileReader::open_beneath(dir.path(), "fifo").error().code == Code::bad_input);
  const auto missing = FileReader::open(dir / "none");
  CHECK(missing.error().code == Code::io);
  CHECK(missing.error().what.find("none: No such file") != std::string::npos);
}

TEST_CASE("files below the folder open, also by a redundant path") {
  const ScratchDir dir;
  write_bytes(dir / "sub/data", "here");
  write_bytes(dir / "a..b", "dots");
  CHECK(beneath(dir.path(), "sub/data") == "here");
  CHECK(beneath(dir.path(), "./sub//data") == "here");
  CHECK(beneath(dir.path(), "a..b") == "dots");
  CHECK(FileReader::open_beneath(dir.path(), "sub/none").error().code == Code::io);
  CHECK(FileReader::open_beneath(dir / "none", "x").error().code == Code::io);
}

TEST_CASE("a path that leaves the folder is refused") {
  const ScratchDir dir;
  write_bytes(dir / "secret", "s");
  write_bytes(dir / "model/w", "w");
  const fs::path root = dir / "model";
  CHECK_FALSE(beneath(root, "../secret"));
  CHECK_FALSE(beneath(root, "sub/../../secret"));
  CHECK_FALSE(beneath(root, "x/.."));
  CHECK_FALSE(beneath(root, "/etc/passwd"));
  CHECK_FALSE(beneath(root, (dir / "secret").string()));
  CHECK_FALSE(beneath(root, ""));
  CHECK_FALSE(beneath(root, std::string("w\0x", 3)));
}

TEST_CASE("links: inside yes, outside no") {
  const ScratchDir dir;
  write_bytes(dir / "secret/s", "s");
  write_bytes(dir / "model/sub/w", "w");
  const fs::path root = dir / "model";
  fs::create_symlink("sub/w", root / "inside");
  fs::create_symlink(root / "sub/w", root / "inside_absolute");
  fs::create_symlink("sub", root / "folder");
  fs::create_symlink("../secret/s", root / "outside");
  fs::create_symlink(dir / "secret", root / "outside_folder");
  fs::create_symlink("loop", root / "loop");
  fs::create_symlink("/proc/self/environ", root / "magic");
  CHECK(beneath(root, "inside") == "w");
  CHECK(beneath(root, "inside_absolute") == "w");
  CHECK(beneath(root, "folder/w") == "w");
  CHECK_FALSE(beneath(root, "outside"));
  CHECK_FALSE(beneath(root, "outside_folder/s"));
  CHECK_FALSE(beneath(root, "magic"));
  CHECK_FALSE(FileReader::open_beneath(root, "loop"));
  // The folder of the model's canonical path allows its own files only.
  CHECK(beneath(root, "outside", dir / "secret") == "s");
  CHECK_FALSE(beneath(root, "outside", dir / "model/sub"));
  // A sibling whose name begins like the folder's is not below it.
  write_bytes(dir / "model2/s", "s");
  fs::create_symlink("../model2/s", root / "sibling");
  CHECK_FALSE(beneath(root, "sibling"));
}

// From now on openat2 fails with ENOSYS in this process, as on an old kernel.
bool without_openat2() {
  std::array<sock_filter, 4> rules = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog program = {static_cast<unsigned short>(rules.size()), rules.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 &&
         ::syscall(SYS_openat2, AT_FDCWD, "/", nullptr, 0) == -1 && errno == ENOSYS;
}

TEST_CASE("a kernel without openat2 gives the same answers") {
  const ScratchDir dir;
  write_bytes(dir / "secret/s", "s");
  write_bytes(dir / "model/sub/w", "w");
  const fs::path root = dir / "model";
  fs::create_symlink("sub", root / "folder");
  fs::create_symlink("../secret/s", root / "outside");
  fs::create_symlink("../secret", root / "outside_folder");
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!without_openat2()) ::_exit(77);
    const auto opens = [&](const char* name) { return FileReader::open_beneath(root, name).has_value(); };
    const auto code = [&](const char* name) { return FileReader::open_beneath(root, name).error().code; };
    const bool good = opens("sub/w") && opens("./sub//w") && opens("folder/w") && !opens("outside") &&
                      !opens("outside_folder/s") && code("outside") == Code::bad_input &&
                      code("outside_folder/s") == Code::bad_input && code("sub") == Code::bad_input &&
                      code("sub/w/x") == Code::io && code(".") == Code::io;
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) SKIP("no seccomp here");
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a folder reached through a link is a folder like any other") {
  const ScratchDir dir;
  write_bytes(dir / "real/w", "w");
  fs::create_symlink("real", dir / "alias");
  CHECK(beneath(dir / "alias", "w") == "w");
}

TEST_CASE("the blobs of a Hugging Face cache are allowed, other folders of it are not") {
  const ScratchDir dir;
  const fs::path cache = dir / "models--org--name";
  const fs::path snapshot = cache / "snapshots/0123/onnx";
  write_bytes(cache / "blobs/abc", "weights");
  write_bytes(cache / "refs/main", "0123");
  fs::create_directories(snapshot);
  fs::create_symlink("../../../blobs/abc", snapshot / "model.onnx_data");
  fs::create_symlink("../../../refs/main", snapshot / "other");
  CHECK(beneath(snapshot, "model.onnx_data") == "weights");
  CHECK_FALSE(beneath(snapshot, "other"));
}

TEST_CASE("control characters of a name do not reach the message") {
  const ScratchDir dir;
  const auto reader = FileReader::open_beneath(dir.path(), "\x1b[31m/none");
  CHECK(reader.error().what.find('\x1b') == std::string::npos);
}

TEST_CASE("a spill file gives back what was appended") {
  const ScratchDir dir;
  const auto spill = SpillFile::create(dir.path());
  REQUIRE(spill);
  CHECK(dir.entries() == 0);  // it has no name
  const auto first = (*spill)->append(bytes_of("first"));
  const auto second = (*spill)->append(bytes_of("second"));
  REQUIRE((first && second));
  CHECK(text_of(*(*spill)->read(*first, 5)) == "first");
  CHECK(text_of(*(*spill)->read(*second, 6)) == "second");
  CHECK(*second % 16 == 0);
  CHECK(SpillFile::create(dir / "none").error().code == Code::io);
}

TEST_CASE("a committed file holds what was written, with the mode the umask gives") {
  const ScratchDir dir;
  const mode_t old = ::umask(0027);
  {
    auto file = AtomicFile::create(dir / "out");
    REQUIRE(file);
    CHECK_FALSE(fs::exists(dir / "out"));
    CHECK(file->temporary().parent_path() == dir.path());
    REQUIRE(file->write(bytes_of("abc")));
    REQUIRE(file->pad_to(8));
    REQUIRE(file->pad_to(8));
    CHECK(file->written() == 8);
    REQUIRE(file->write(bytes_of("d")));
    REQUIRE(file->commit());
  }
  ::umask(old);
  CHECK(read_bytes(dir / "out") == std::string("abc\0\0\0\0\0d", 9));
  CHECK(dir.entries() == 1);
  struct stat info = {};
  REQUIRE(::stat((dir / "out").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0640);
}

TEST_CASE("without commit nothing is left and the old file stays") {
  const ScratchDir dir;
  write_bytes(dir / "out", "old");
  {
    auto file = AtomicFile::create(dir / "out");
    REQUIRE(file->write(bytes_of("new")));
    AtomicFile moved = std::move(*file);
    REQUIRE(moved.write(bytes_of("er")));
    CHECK(moved.written() == 5);
  }
  CHECK(read_bytes(dir / "out") == "old");
  CHECK(dir.entries() == 1);
}

TEST_CASE("commit replaces the old file, or another name in the folder") {
  const ScratchDir dir;
  write_bytes(dir / "out", "old");
  REQUIRE(write_text_file(dir / "out", "new"));
  CHECK(read_bytes(dir / "out") == "new");
  auto file = AtomicFile::create(dir / "out");
  REQUIRE(file->write(bytes_of("data")));
  REQUIRE(file->commit_as(dir / "out-1234.data"));
  CHECK(read_bytes(dir / "out") == "new");
  CHECK(read_bytes(dir / "out-1234.data") == "data");
  CHECK(dir.entries() == 2);
}

TEST_CASE("a full disk is reported by name and reason, and the old file stays") {
  const ScratchDir dir;
  write_bytes(dir / "out", "old");
  rlimit before = {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {1000, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Status status = write_text_file(dir / "out", std::string(5000, 'x'));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, old_handler);
  REQUIRE_FALSE(status);
  CHECK(status.error().code == Code::io);
  CHECK(status.error().what.find((dir / "out").string()) != std::string::npos);
  CHECK(status.error().what.find(errno_text(EFBIG)) != std::string::npos);
  CHECK(read_bytes(dir / "out") == "old");
  CHECK(dir.entries() == 1);
}

TEST_CASE("a folder, a device or a missing folder cannot be a target") {
  const ScratchDir dir;
  CHECK(AtomicFile::create(dir.path()).error().code == Code::io);
  CHECK(AtomicFile::create("/dev/null").error().code == Code::io);
  CHECK(AtomicFile::create(dir / "none/out").error().code == Code::io);
  CHECK(fs::is_character_file("/dev/null"));
  CHECK(dir.entries() == 0);
}

TEST_CASE("two writers of one target do not share a temporary, and a leftover is no obstacle") {
  const ScratchDir dir;
  auto first = AtomicFile::create(dir / "out");
  auto second = AtomicFile::create(dir / "out");
  REQUIRE((first && second));
  CHECK(first->temporary() != second->temporary());
  REQUIRE(first->write(bytes_of("1")));
  REQUIRE(second->write(bytes_of("2")));
  REQUIRE(second->commit());
  REQUIRE(first->commit());
  CHECK(read_bytes(dir / "out") == "1");
}

TEST_CASE("long names still have room for the temporary's") {
  const ScratchDir dir;
  const std::string name(250, 'n');
  REQUIRE(write_text_file(dir / name, "x"));
  CHECK(read_bytes(dir / name) == "x");
}

TEST_CASE("text files have a size limit") {
  const ScratchDir dir;
  write_bytes(dir / "t", "12345");
  CHECK(read_text_file(dir / "t", 5) == "12345");
  CHECK(read_text_file(dir / "t", 4).error().code == Code::bad_input);
  CHECK(read_text_file("/dev/zero", 1000).error().code == Code::bad_input);  // endless
  CHECK(read_text_file(dir / "none", 5).error().code == Code::io);
  CHECK(read_text_file(dir.path(), 5).error().code == Code::io);
}

}  // namespace
}  // namespace onnxpress
