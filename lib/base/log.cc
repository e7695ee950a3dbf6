#include "base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/text.h"

namespace onnxpress::log {
namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warning: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
    case Level::off: return spdlog::level::off;
  }
  return spdlog::level::info;
}

bool env_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool want_color() {
  if (env_set("NO_COLOR")) return false;
  if (env_set("CLICOLOR_FORCE")) return true;
  const char* term = std::getenv("TERM");
  return stderr_is_terminal() && term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

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
  const char* prefix = level == Level::error ? "error: " : level == Level::warning ? "warning: " : "";
  spdlog::log(to_spdlog(level), "{}{}", prefix, escape_control(text));
}

}  // namespace onnxpress::log
