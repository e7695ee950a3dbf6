#include "common.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/text.h"
#include "flow/inputs.h"

namespace onnxpress::cmd {
namespace {

bool env_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

}  // namespace

bool stdout_wants_color() {
  if (env_set("NO_COLOR")) return false;
  if (env_set("CLICOLOR_FORCE")) return true;
  const char* term = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

int report_error(const Error& error) {
  log::error("{}", error.text());
  if (const int number = pending_signal(); number != 0) return 128 + number;
  return static_cast<int>(error.code);
}

Status write_stdout(std::string_view text) {
  const bool whole = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!whole && errno != EPIPE)  // a reader that has seen enough (| head) is no error
    return fail(Code::io, "cannot write to standard output");
  return {};
}

int print(std::string_view text) {
  const Status status = write_stdout(text);
  return status ? 0 : report_error(status.error());
}

std::string render(const Cli& cli, const Report& report, bool color) {
  if (cli.format == "json") return report_json(report);
  if (cli.format == "md") return report_markdown(report);
  return report_text(report, {.color = color});
}

int print_report(const Cli& cli, const Report& report) { return print(render(cli, report, stdout_wants_color())); }

Result<std::uint64_t> parse_size(std::string_view text, std::string_view flag) {
  struct Unit {
    std::string_view suffix;
    double factor;
  };
  static constexpr std::array<Unit, 15> units = {{{"", 1},
                                                  {"B", 1},
                                                  {"k", 1e3},
                                                  {"K", 1e3},
                                                  {"kB", 1e3},
                                                  {"M", 1e6},
                                                  {"MB", 1e6},
                                                  {"G", 1e9},
                                                  {"GB", 1e9},
                                                  {"Ki", 0x1p10},
                                                  {"KiB", 0x1p10},
                                                  {"Mi", 0x1p20},
                                                  {"MiB", 0x1p20},
                                                  {"Gi", 0x1p30},
                                                  {"GiB", 0x1p30}}};
  double number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view suffix(stop, static_cast<std::size_t>(text.data() + text.size() - stop));
  if (error == std::errc() && std::isfinite(number) && number >= 0) {
    for (const Unit& unit : units)
      if (unit.suffix == suffix && number * unit.factor < 0x1p62)
        return static_cast<std::uint64_t>(number * unit.factor);
  }
  return fail(Code::usage, "{}: '{}' is no size, such as 512M, 2G or 1GiB", flag, text);
}

Result<double> parse_percent(std::string_view text, std::string_view flag) {
  const std::string_view body = text.ends_with('%') ? text.substr(0, text.size() - 1) : text;
  double number = 0;
  const auto [stop, error] = std::from_chars(body.data(), body.data() + body.size(), number);
  if (error != std::errc() || stop != body.data() + body.size() || !std::isfinite(number))
    return fail(Code::usage, "{}: '{}' is no number", flag, text);
  return number;
}

std::string flag_of(std::string_view key) {
  std::string flag = "--";
  for (const char c : key) flag += c == '_' ? '-' : c;
  return flag;
}

Status check_report_paths(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (path == "-") continue;
    if (!path.ends_with(".json") && !path.ends_with(".md") && !path.ends_with(".txt"))
      return fail(Code::usage, "--report {}: the name must end in .json, .md or .txt", path);
    if (Status status = check_output_path(path, true); !status) return rethrow(status.error(), "--report");
  }
  return {};
}

Status write_reports(const Report& report, const std::vector<std::string>& paths) {
  for (const std::string& path : paths)
    if (path != "-") OP_TRY(write_report(report, path));
  return {};
}

}  // namespace onnxpress::cmd
