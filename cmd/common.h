// What all commands share: the application, its global flags, and how results and errors leave the process.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "report/report.h"

namespace onnxpress::cmd {

struct Cli {
  CLI::App app{"Makes ONNX models small and fast without wrecking them.", "onnxpress"};
  int quiet = 0, verbose = 0;
  std::string log_level;
  std::string format = "text";
  bool version = false;
  std::function<int()> action;  // of the command that was typed

  Cli();
  // A command; `run` is called after everything was parsed and the log is set up.
  CLI::App* add(const std::string& name, const std::string& summary, std::function<int()> run);
  void start_log() const;
};

// Each of these files adds its commands.
void add_compress(Cli& cli);
void add_pass_commands(Cli& cli);
void add_inspect(Cli& cli);
void add_eval(Cli& cli);
void add_compare(Cli& cli);
void add_sensitivity(Cli& cli);
void add_calibrate(Cli& cli);
void add_lint(Cli& cli);
void add_groups(Cli& cli);
void add_passes(Cli& cli);
void add_completion(Cli& cli);
void add_man(Cli& cli);

inline constexpr const char* kVersion = ONNXPRESS_VERSION;
const char* exit_code_table();

// Logs the error; the exit code of the process: 128 + n when signal n stopped the run.
int report_error(const Error& error);
// The same for what CLI11 refuses, with "did you mean".
int report_parse_error(const Cli& cli, const CLI::ParseError& error);

// Results. Error io when stdout is full; fine when its reader has gone.
Status write_stdout(std::string_view text);
int print(std::string_view text);
// In the form --format asks for.
std::string render(const Cli& cli, const Report& report, bool color);
int print_report(const Cli& cli, const Report& report);
bool stdout_wants_color();

// "512M", "2GiB", "1000": decimal and binary suffixes. Error usage names the flag.
Result<std::uint64_t> parse_size(std::string_view text, std::string_view flag);
// "0.5" and "0.5%".
Result<double> parse_percent(std::string_view text, std::string_view flag);
std::string flag_of(std::string_view key);  // round_to -> --round-to

// Every report file is checked before any work: form by extension, folder present.
Status check_report_paths(const std::vector<std::string>& paths);
// Writes all of them; "-" is stdout and is printed anyway.
Status write_reports(const Report& report, const std::vector<std::string>& paths);

}  // namespace onnxpress::cmd
