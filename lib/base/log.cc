#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

#include "base/text.h"

namespace onnxpress::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warning:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
    case Level::off:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

bool env_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

constexpr std::size_t kUsualColumns = 80;

std::mutex g_stderr;   // a message and the status line come one after the other
std::string g_status;  // what the terminal shows in its last line

std::size_t columns() {
  struct winsize size = {};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsualColumns;
}

// In one write, and without a line that wraps: only the last row could be erased.
void draw(std::string_view status) {
  const std::string text = fmt::format("\r{}\x1b[K", status.substr(0, columns() - 1));
  std::fwrite(text.data(), 1, text.size(), stderr);
}

bool want_color() {
  if (env_set("NO_COLOR")) return false;
  if (env_set("CLICOLOR_FORCE")) return true;
  const char* term = std::getenv("TERM");
  return stderr_is_terminal() && term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

bool enabled(Level level) { return level != Level::off && spdlog::should_log(to_spdlog(level)); }

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

void init(Level level) {
  auto sink = std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>(want_color() ? spdlog::color_mode::always
                                                                                     : spdlog::color_mode::never);
  auto logger = std::make_shared<spdlog::logger>("onnxpress", std::move(sink));
  logger->set_pattern("%^%v%$");
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
  set_level(level);
}

void set_level(Level level) { spdlog::set_level(to_spdlog(level)); }

// Names from a model may hold control characters or CI workflow commands; they must not reach the terminal raw.
void write(Level level, std::string_view text) {
  if (!enabled(level)) return;
  const char* prefix = level == Level::error ? "error: " : level == Level::warning ? "warning: " : "";
  const std::string line = prefix + escape_control(text);
  const std::lock_guard lock(g_stderr);
  if (!g_status.empty()) draw("");
  spdlog::log(to_spdlog(level), "{}", line);
  if (!g_status.empty()) draw(g_status);
}

void set_status(std::string_view text) {
  const std::lock_guard lock(g_stderr);
  if (text.empty() && g_status.empty()) return;
  g_status = escape_control(text);
  draw(g_status);
}

}  // namespace onnxpress::log
