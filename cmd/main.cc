// onnxpress: ONNX in, compressed ONNX out.
#include <cstdio>
#include <exception>
#include <new>

#include "base/interrupt.h"
#include "base/log.h"
#include "common.h"
#include "engine/session.h"

namespace onnxpress::cmd {
namespace {

std::string version_text(const Cli& cli) {
  if (cli.format == "json")
    return fmt::format("{{\"name\": \"onnxpress\", \"version\": \"{}\", \"runtime\": \"{}\"}}\n", kVersion,
                       runtime_version());
  return fmt::format("onnxpress {}\n", kVersion);
}

int run(int argc, char** argv) {
  install_signal_handlers();
  log::init(log::Level::info);
  Cli cli;
  add_compress(cli);
  add_inspect(cli);
  add_eval(cli);
  add_compare(cli);
  add_sensitivity(cli);
  add_calibrate(cli);
  add_lint(cli);
  add_groups(cli);
  add_passes(cli);
  add_completion(cli);
  add_man(cli);
  add_pass_commands(cli);
  try {
    cli.app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help
    return cli.app.exit(request);
  } catch (const CLI::ParseError& error) {
    return report_parse_error(cli, error);
  }
  cli.start_log();
  if (cli.version) return print(version_text(cli));
  if (!cli.action) {
    std::fputs(cli.app.help().c_str(), stderr);
    return static_cast<int>(Code::usage);
  }
  return cli.action();
}

}  // namespace
}  // namespace onnxpress::cmd

int main(int argc, char** argv) {
  try {
    return onnxpress::cmd::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("error: out of memory\n", stderr);
    return static_cast<int>(onnxpress::Code::resource);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: internal error, please report it: %s\n", error.what());
    return static_cast<int>(onnxpress::Code::internal);
  }
}
