// What the program says without work: help, version, mistakes.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/models.h"
#include "support/process.h"

using namespace onnxpress;
using namespace onnxpress::testing;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

namespace {

std::string golden(const std::string& name) {
  return read_file(std::string(ONNXPRESS_SOURCE_DIR "/tests/cli/golden/") + name);
}

// The passes come from the registry; they are checked one by one, not by the golden text.
std::string without_passes(const std::string& help) {
  const std::size_t begin = help.find("Passes, each a command:"), end = help.find("Exit codes:");
  REQUIRE(begin != std::string::npos);
  return help.substr(0, begin) + help.substr(end);
}

void refused(const std::vector<std::string>& arguments, const std::string& message) {
  const Ended ended = run_onnxpress(arguments);
  INFO(ended.err);
  CHECK(ended.code == 2);
  CHECK(ended.out.empty());
  CHECK_THAT(ended.err, StartsWith("error: " + message));
}

}  // namespace

TEST_CASE("the version, as text and as JSON") {
  const Ended text = run_onnxpress({"--version"});
  CHECK(text.code == 0);
  CHECK_THAT(text.out, StartsWith("onnxpress 0."));
  CHECK(text.err.empty());
  const Ended json = run_onnxpress({"--version", "--format", "json"});
  CHECK(json.code == 0);
  CHECK(nlohmann::json::parse(json.out)["name"] == "onnxpress");
}

TEST_CASE("the help is the golden text and lists every pass") {
  const Ended help = run_onnxpress({"--help"});
  CHECK(help.code == 0);
  CHECK(help.err.empty());
  CHECK(without_passes(help.out) == golden("help.txt"));
  for (const PassInfo& info : all_passes()) CHECK_THAT(help.out, ContainsSubstring("\n  " + info.name));
  CHECK(run_onnxpress({"compress", "--help"}).out == golden("help_compress.txt"));
}

TEST_CASE("no command at all prints the help to stderr and is a usage error") {
  const Ended ended = run_onnxpress({});
  CHECK(ended.code == 2);
  CHECK(ended.out.empty());
  CHECK_THAT(ended.err, ContainsSubstring("Usage: onnxpress"));
}

TEST_CASE("mistakes on the command line get a suggestion") {
  refused({"frobnicate"}, "unknown command 'frobnicate'\n");
  refused({"compres"}, "unknown command 'compres', did you mean 'compress'?\n");
  refused({"--formt", "json"}, "unknown flag '--formt', did you mean '--format'?\n");
  refused({"compress", "in.onnx", "--strct"}, "unknown flag '--strct', did you mean '--strict'?\n");
  refused({"compress", "a.onnx", "b.onnx"}, "unexpected 'b.onnx'\n");
  refused({"compress"}, "IN is required\n");
  refused({"--format", "xml", "--version"}, "--format: xml not in ");
  refused({"passes", "clean-ded"}, "unknown pass 'clean-ded', did you mean 'clean-dead'?\n");
}

TEST_CASE("flags of compress that make no sense are refused before the model is opened") {
  refused({"compress", "no.onnx", "-o", "x.onnx"}, "a pipeline is required: -p PIPELINE or -r FILE\n");
  refused({"compress", "no.onnx", "-p", ""}, "-o OUT is required (or --dry-run)\n");
  refused({"compress", "no.onnx", "-o", "x.onnx", "-p", "", "--max-drop", "1"}, "--max-drop needs --eval\n");
  refused({"compress", "no.onnx", "-o", "x.onnx", "-p", "", "--max-size", "big"}, "--max-size: 'big' is no size");
  refused({"compress", "no.onnx", "-o", "x.onnx", "-p", "", "--report", "r.pdf"},
          "--report r.pdf: the name must end in .json, .md or .txt\n");
  refused({"compress", "no.onnx", "-o", "x.onnx", "-p", "", "--metric", "top2"}, "");
  refused({"compress", "no.onnx", "-o", "-", "-p", "", "--external-data"}, "--external-data cannot go to stdout\n");
}

TEST_CASE("an unknown pass is shown in the pipeline with a caret") {
  refused({"compress", "no.onnx", "-o", "x.onnx", "-p", "clean-dead,clean-identty"},
          "pipeline 1:12: unknown pass 'clean-identty', did you mean 'clean-identity'?\n"
          "  clean-dead,clean-identty\n"
          "             ^\n");
}

TEST_CASE("options of a pass are checked like in a pipeline") {
  refused({"prune-magnitude", "no.onnx", "-o", "x.onnx", "--sparsity", "1.5"},
          "sparsity: 1.5 is out of range, must be from 0 to 1\n");
  refused({"prune-magnitude", "no.onnx", "-o", "x.onnx", "--scope", "globl"},
          "scope: 'globl' is not one of local|global|normalized|lamp, did you mean 'global'?\n");
}

TEST_CASE("passes are listed and described") {
  const Ended list = run_onnxpress({"passes"});
  CHECK(list.code == 0);
  for (const PassInfo& info : all_passes()) CHECK_THAT(list.out, ContainsSubstring(info.name));
  CHECK_THAT(run_onnxpress({"passes", "clean-dead"}).out, StartsWith("clean-dead: "));
  const auto schema = nlohmann::json::parse(run_onnxpress({"passes", "--format", "json"}).out);
  CHECK(schema["properties"].size() == all_passes().size());
}

TEST_CASE("docs/passes.md is what the registry says") {
  INFO("write it with: onnxpress passes --format md > docs/passes.md");
  CHECK(run_onnxpress({"passes", "--format", "md"}).out == read_file(ONNXPRESS_SOURCE_DIR "/docs/passes.md"));
}

TEST_CASE("the example of every pass and every preset parses") {
  for (const PassInfo& info : all_passes()) {
    INFO(info.name << ": " << info.example);
    CHECK(Pipeline::parse(info.example, all_passes()));
  }
  for (const Preset& preset : all_presets()) CHECK(Pipeline::parse("@" + preset.name, all_passes()));
}

TEST_CASE("completion scripts name every command, and bash accepts its own") {
  TempDir dir;
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const Ended ended = run_onnxpress({"completion", shell});
    CHECK(ended.code == 0);
    for (const PassInfo& info : all_passes()) CHECK_THAT(ended.out, ContainsSubstring(info.name));
    CHECK_THAT(ended.out, ContainsSubstring("max-drop"));
    write_file(dir.path(shell), ended.out);
  }
  CHECK(std::system(("bash -n " + dir.path("bash")).c_str()) == 0);
  refused({"completion", "tcsh"}, "SHELL: tcsh not in ");
}

TEST_CASE("the man page has every command") {
  const Ended man = run_onnxpress({"man"});
  CHECK(man.code == 0);
  CHECK_THAT(man.out, StartsWith(".TH ONNXPRESS 1"));
  CHECK_THAT(man.out, ContainsSubstring(".SS clean\\-dead\n"));
  CHECK_THAT(man.out, ContainsSubstring(".SH EXIT STATUS\n"));
}
