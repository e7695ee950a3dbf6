// Diagnostics on stderr. The only user of spdlog; results never go through here.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace onnxpress::log {

enum class Level { debug, info, warning, error, off };

// Sets up the stderr sink. `color` follows NO_COLOR, CLICOLOR_FORCE, TERM and whether stderr is a terminal.
void init(Level level);
void set_level(Level level);
bool enabled(Level level);
bool stderr_is_terminal();

void write(Level level, std::string_view text);

// The line a terminal shows below all messages until the next call; "" takes it away. Cut to the terminal's width.
void set_status(std::string_view text);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace onnxpress::log
