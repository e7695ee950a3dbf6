#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <string>

#include "support/scratch_dir.h"

namespace onnxpress {
namespace {

// What `work` writes to stderr, which is a file meanwhile.
std::string stderr_of(const std::function<void()>& work) {
  const testing::ScratchDir dir;
  const std::string path = (dir / "stderr").string();
  const int kept = ::dup(STDERR_FILENO);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  REQUIRE(kept >= 0);
  REQUIRE(file >= 0);
  ::dup2(file, STDERR_FILENO);
  ::close(file);
  log::init(log::Level::info);
  work();
  ::dup2(kept, STDERR_FILENO);
  ::close(kept);
  return testing::read_bytes(path);
}

TEST_CASE("messages keep clear of the status line") {
  CHECK(stderr_of([] {
          log::set_status("half");
          log::info("a message");
          log::debug("not shown");
          log::set_status("whole");
          log::set_status("");
          log::set_status("");
          log::info("the end");
        }) ==
        "\rhalf\x1b[K"
        "\r\x1b[Ka message\n"
        "\rhalf\x1b[K"
        "\rwhole\x1b[K"
        "\r\x1b[K"
        "the end\n");
}

TEST_CASE("without a status line messages come as they are") {
  CHECK(stderr_of([] {
          log::set_status("");
          log::warning("careful: {}", "\x1b[2J");
        }) == "warning: careful: \\x1b[2J\n");
}

TEST_CASE("the status line never wraps") {
  CHECK(stderr_of([] {
          log::set_status(std::string(200, 'x'));
          log::set_status("");
        }) == "\r" + std::string(79, 'x') + "\x1b[K\r\x1b[K");
}

TEST_CASE("what is enabled follows the level") {
  log::set_level(log::Level::warning);
  CHECK(log::enabled(log::Level::error));
  CHECK(log::enabled(log::Level::warning));
  CHECK_FALSE(log::enabled(log::Level::info));
  log::set_level(log::Level::off);
  CHECK_FALSE(log::enabled(log::Level::error));
  CHECK_FALSE(log::enabled(log::Level::off));
  log::set_level(log::Level::info);
}

}  // namespace
}  // namespace onnxpress
