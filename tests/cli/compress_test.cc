// Whole runs: files, streams, exit codes.
#include <signal.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/load.h"
#include "support/models.h"
#include "support/process.h"

using namespace onnxpress;
using namespace onnxpress::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Fixture {
  TempDir dir;
  std::string in = dir.path("in.onnx"), out = dir.path("out.onnx"), samples = dir.path("samples.npy");
  Fixture() {
    write_small_model(in);
    write_samples(samples);
  }
  Ended compress(const std::string& pipeline, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"compress", in, "-o", out, "-p", pipeline};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_onnxpress(arguments);
  }
  bool written() const { return std::filesystem::exists(out); }
  // Nothing else appeared in the folder.
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(dir.path()), {}));
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "an empty pipeline saves the model untouched") {
  const Ended ended = compress("");
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(read_file(out) == read_file(in));
  CHECK_THAT(ended.err, ContainsSubstring("  pipeline    nothing (-p)\n"));
}

TEST_CASE_METHOD(Fixture, "a pipeline rewrites the model and leaves its text in it") {
  const Ended ended = compress("clean-identity , clean-dead{}");
  INFO(ended.err);
  CHECK(ended.code == 0);
  const auto model = load_model(out);
  REQUIRE(model);
  CHECK(model->main().nodes().size() == 2);
  CHECK(model->metadata("onnxpress.pipeline") == "clean-identity,clean-dead");
  CHECK_THAT(ended.out, ContainsSubstring("clean-identity"));

  const Ended again = run_onnxpress({"clean-identity", in, "-o", out, "--force", "--no-metadata"});
  CHECK(again.code == 0);
  CHECK(load_model(out)->metadata("onnxpress.pipeline").empty());
}

TEST_CASE_METHOD(Fixture, "a recipe file is the same text") {
  write_file(dir.path("recipe.txt"), "# tidy\nclean-identity,\nclean-dead\n");
  CHECK(compress("clean-identity,clean-dead").code == 0);
  const std::string other = dir.path("other.onnx");
  CHECK(run_onnxpress({"compress", in, "-o", other, "-r", dir.path("recipe.txt")}).code == 0);
  CHECK(read_file(other) == read_file(out));

  write_file(dir.path("recipe.txt"), "clean-dead,\nclean-ded");
  const Ended wrong = run_onnxpress({"compress", in, "-o", other, "--force", "-r", dir.path("recipe.txt")});
  CHECK(wrong.code == 2);
  CHECK_THAT(wrong.err, ContainsSubstring("recipe.txt: pipeline 2:1: unknown pass 'clean-ded'"));
  CHECK(run_onnxpress({"compress", in, "-o", other, "--force", "-r", dir.path("none")}).code == 5);
}

TEST_CASE_METHOD(Fixture, "a pass command is its one-pass pipeline") {
  CHECK(compress("prune-magnitude{sparsity=0.25 min_elements=1}").code == 0);
  const std::string other = dir.path("other.onnx");
  const Ended ended = run_onnxpress({"prune-magnitude", in, "-o", other, "--sparsity", "0.25", "--min-elements", "1"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(read_file(other) == read_file(out));
}

TEST_CASE_METHOD(Fixture, "an existing output is refused before any work, and --force replaces it") {
  write_file(out, "precious");
  const Ended refused = compress("clean-identity");
  CHECK(refused.code == 2);
  CHECK_THAT(refused.err, ContainsSubstring("out.onnx exists; --force overwrites it"));
  CHECK(refused.out.empty());
  CHECK(read_file(out) == "precious");
  CHECK(compress("clean-identity", {"--force"}).code == 0);
  CHECK(load_model(out));
}

TEST_CASE_METHOD(Fixture, "a missing folder, a folder as output and a missing input are told apart") {
  CHECK(run_onnxpress({"compress", in, "-o", dir.path("none/out.onnx"), "-p", ""}).code == 5);
  CHECK(run_onnxpress({"compress", in, "-o", dir.path(), "-p", ""}).code == 2);
  const Ended missing = run_onnxpress({"compress", dir.path("none.onnx"), "-o", out, "-p", ""});
  CHECK(missing.code == 5);
  CHECK_THAT(missing.err, ContainsSubstring("none.onnx"));
  CHECK_FALSE(written());
}

TEST_CASE_METHOD(Fixture, "garbage is rejected and nothing is left behind") {
  const std::size_t before = files();
  for (const std::string& text : {read_file(in).substr(0, 200), std::string("not a model"), std::string()}) {
    write_file(in, text);
    const Ended ended = compress("");
    INFO(ended.err);
    CHECK(ended.code == 3);
    CHECK(ended.out.empty());
  }
  CHECK(files() == before);
}

TEST_CASE_METHOD(Fixture, "'-' streams the model, and stdout carries nothing else") {
  const Ended ended = run_onnxpress({"compress", "-", "-o", "-", "-p", ""}, {.stdin_path = in});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(ended.out == read_file(in));
}

TEST_CASE_METHOD(Fixture, "with --format json stdout is JSON and nothing else") {
  const Ended ended = compress("clean-identity", {"--format", "json", "--eval", samples, "-v"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  const auto report = nlohmann::json::parse(ended.out);
  CHECK(report["command"] == "compress");
  CHECK(report["provenance"]["pipeline"] == "clean-identity");
  const Ended inspected = run_onnxpress({"inspect", out, "--format", "json"});
  CHECK(inspected.code == 0);
  CHECK(nlohmann::json::parse(inspected.out)["provenance"]["pipeline"] == "clean-identity");
  const Ended compared = run_onnxpress({"compare", in, out, "--eval", samples, "--format", "json"});
  CHECK(compared.code == 0);
  CHECK(nlohmann::json::parse(compared.out)["command"] == "compare");
}

TEST_CASE_METHOD(Fixture, "eval needs something to measure") {
  const Ended unlabelled = run_onnxpress({"eval", in, "--eval", samples, "--metric", "top1"});
  CHECK(unlabelled.code == 2);
  CHECK_THAT(unlabelled.err, ContainsSubstring("label"));
  CHECK(run_onnxpress({"eval", in}).code == 2);
}

TEST_CASE_METHOD(Fixture, "reports are written in the form of their extension") {
  const Ended ended = compress("clean-identity", {"--report", dir.path("r.json"), "--report", dir.path("r.md"), "-q"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(ended.err.empty());
  CHECK(nlohmann::json::parse(read_file(dir.path("r.json")))["command"] == "compress");
  CHECK_THAT(read_file(dir.path("r.md")), ContainsSubstring("clean-identity"));
}

TEST_CASE_METHOD(Fixture, "a dry run reports and writes nothing") {
  const std::size_t before = files();
  const Ended ended = run_onnxpress({"compress", in, "-p", "clean-identity", "--dry-run", "--format", "json"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(nlohmann::json::parse(ended.out)["dry_run"] == true);
  CHECK(files() == before);
}

TEST_CASE_METHOD(Fixture, "nothing applied: a warning, or exit 4 with --strict") {
  const Ended strict = compress("clean-duplicates", {"--strict"});
  CHECK(strict.code == 4);
  CHECK_FALSE(written());
  const Ended lax = compress("clean-duplicates");
  CHECK(lax.code == 0);
  CHECK_THAT(lax.err, ContainsSubstring("warning: no pass of the pipeline applied"));
  CHECK(read_file(out) == read_file(in));
  CHECK(compress("", {"--strict", "--force"}).code == 0);
}

TEST_CASE_METHOD(Fixture, "a failed gate is exit 1; the output is kept only on demand") {
  const Ended failed = compress("clean-identity", {"--max-size", "100"});
  CHECK(failed.code == 1);
  CHECK_FALSE(written());
  CHECK(compress("clean-identity", {"--max-size", "1M"}).code == 0);
  CHECK(compress("prune-magnitude{sparsity=0.9}", {"--force", "--eval", samples, "--min-sqnr", "60", "--keep-on-fail"})
            .code == 1);
  CHECK(load_model(out)->metadata("onnxpress.pipeline") == "prune-magnitude{sparsity=0.9}");
  CHECK(run_onnxpress({"compare", in, out, "--eval", samples, "--min-sqnr", "60"}).code == 1);
  CHECK(run_onnxpress({"compare", in, in, "--eval", samples, "--min-sqnr", "60"}).code == 0);
}

TEST_CASE_METHOD(Fixture, "data is never invented") {
  const Ended ended = compress("quant-static");
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("error: quant-static needs --data"));
  CHECK_FALSE(written());
  const Ended typed = compress("quant-static", {"--data", "random:seed=1", "--format", "json"});
  INFO(typed.err);
  CHECK(typed.code == 0);
  CHECK(nlohmann::json::parse(typed.out)["provenance"]["data"][0]["synthetic"] == true);
}

TEST_CASE_METHOD(Fixture, "the same bytes at any number of threads") {
  CHECK(compress("quant-static", {"--data", samples, "-j", "1"}).code == 0);
  const std::string one = read_file(out);
  CHECK(compress("quant-static", {"--data", samples, "-j", "2", "--force"}).code == 0);
  CHECK(read_file(out) == one);
}

TEST_CASE_METHOD(Fixture, "NO_COLOR wins; colour only on demand when stdout is no terminal") {
  const auto escapes = [&](std::vector<std::string> environment) {
    const Ended ended = run_onnxpress({"compress", in, "-p", "clean-duplicates", "--dry-run", "--max-size", "1"},
                                      {.environment = std::move(environment)});
    return (ended.out + ended.err).find('\x1b') != std::string::npos;
  };
  CHECK_FALSE(escapes({}));
  CHECK(escapes({"CLICOLOR_FORCE=1"}));
  CHECK_FALSE(escapes({"CLICOLOR_FORCE=1", "NO_COLOR=1"}));
}

TEST_CASE_METHOD(Fixture, "a signal ends the run with 128 + n and leaves nothing behind") {
  const std::size_t before = files();
  for (const int number : {SIGTERM, SIGINT}) {
    const Ended ended = run_onnxpress({"compress", "-", "-o", out, "-p", ""}, {.interrupt_with = number});
    INFO(ended.err);
    CHECK(ended.code == 128 + number);
  }
  CHECK(files() == before);
}

TEST_CASE_METHOD(Fixture, "a full stdout is an I/O error; a reader that has gone is none") {
  CHECK(
      std::system((std::string(ONNXPRESS_BINARY_DIR "/onnxpress passes > /dev/full 2> ") + dir.path("err")).c_str()) ==
      5 << 8);
  CHECK_THAT(read_file(dir.path("err")), ContainsSubstring("cannot write to standard output"));
  const std::string code = dir.path("code");
  CHECK(std::system(("(" ONNXPRESS_BINARY_DIR "/onnxpress man; echo $? >" + code + ") | sleep 0; sleep 0.2").c_str()) ==
        0);
  CHECK(read_file(code) == "0\n");
}
