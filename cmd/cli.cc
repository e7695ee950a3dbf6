// The application itself: global flags, and what happens to a command line that makes no sense.
#include "base/log.h"
#include "base/text.h"
#include "common.h"

namespace onnxpress::cmd {
namespace {

log::Level level_of(const Cli& cli) {
  if (cli.log_level == "debug") return log::Level::debug;
  if (cli.log_level == "info") return log::Level::info;
  if (cli.log_level == "warning") return log::Level::warning;
  if (cli.log_level == "error") return log::Level::error;
  if (cli.log_level == "off") return log::Level::off;
  const int noise = cli.verbose - cli.quiet;
  if (noise > 0) return log::Level::debug;
  return noise == 0 ? log::Level::info : noise == -1 ? log::Level::warning : log::Level::error;
}

std::string suggestion(const Cli& cli, const std::string& word) {
  std::vector<std::string> known;
  const auto commands = cli.app.get_subcommands();
  const CLI::App* const command = commands.empty() ? nullptr : commands.front();
  if (word.starts_with("-")) {
    for (const CLI::App* app : {command, &cli.app}) {
      if (app == nullptr) continue;
      for (const CLI::Option* option : app->get_options())
        for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    }
    return did_you_mean(word.substr(0, word.find('=')), known);
  }
  if (command != nullptr) return "";
  for (const CLI::App* each : cli.app.get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(each->get_name());
  return did_you_mean(word, known);
}

}  // namespace

Cli::Cli() {
  app.fallthrough();  // global flags may stand behind the command
  app.require_subcommand(0, 1);
  app.get_formatter()->column_width(34);
  app.footer(exit_code_table());
  app.add_flag("-q,--quiet", quiet, "Only warnings on stderr; -qq only errors")->default_str("");
  app.add_flag("-v,--verbose", verbose, "More on stderr")->default_str("");
  app.add_option("--log-level", log_level, "debug, info, warning, error or off")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}));
  app.add_option("--format", format, "Form of the result on stdout: text, json or md")
      ->check(CLI::IsMember({"text", "json", "md"}))
      ->capture_default_str();
  app.add_flag("--version", version, "Print the version (also with --format json) and stop");
}

CLI::App* Cli::add(const std::string& name, const std::string& summary, std::function<int()> run) {
  CLI::App* const command = app.add_subcommand(name, summary);
  command->callback([this, run = std::move(run)] { action = run; });
  command->footer("");
  return command;
}

void Cli::start_log() const { log::set_level(level_of(*this)); }

const char* exit_code_table() {
  return "Exit codes:\n"
         "  0 done                               5 missing file, permission, disk full\n"
         "  1 a gate failed (--max-drop, ...)    6 memory or size limit\n"
         "  2 command line or pipeline error     7 the inference engine failed\n"
         "  3 the model or the data is rejected  8 a batch finished with failures\n"
         "  4 nothing applied, with --strict     70 a bug; 128+n stopped by signal n\n"
         "\n"
         "Results go to stdout, everything else to stderr. Nothing is ever sent over a network.";
}

int report_parse_error(const Cli& cli, const CLI::ParseError& error) {
  std::string message = error.what();
  // A misspelt flag also leaves others unset: it is the better thing to tell.
  const std::vector<std::string> extras = cli.app.remaining(true);
  if (!extras.empty()) {
    const bool command = cli.app.get_subcommands().empty();
    const std::string& word = extras.front();
    message = fmt::format("{} '{}'{}",
                          word.starts_with("-") ? "unknown flag"
                          : command             ? "unknown command"
                                                : "unexpected",
                          word, suggestion(cli, word));
  }
  const auto commands = cli.app.get_subcommands();
  log::error("{}", message);
  log::info("'onnxpress {}--help' lists what there is", commands.empty() ? "" : commands.front()->get_name() + " ");
  return static_cast<int>(Code::usage);
}

}  // namespace onnxpress::cmd
