// onnxpress sensitivity: files, cache, exit codes.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "support/models.h"
#include "support/process.h"

using namespace onnxpress::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Fixture {
  TempDir dir;
  std::string in = dir.path("in.onnx"), samples = dir.path("samples.npy"), table = dir.path("table.json");
  Fixture() {
    write_small_model(in);
    write_samples(samples);
  }
  Ended sensitivity(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"sensitivity", in, "--data", samples};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_onnxpress(arguments);
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "sensitivity prints nodes and pipelines to paste") {
  const Ended ended = sensitivity();
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("MatMul->b"));
  CHECK_THAT(ended.out, ContainsSubstring("all int8: "));
  CHECK_THAT(ended.out, ContainsSubstring("@clean,fold-batchnorm,quant-static{skip=[MatMul->b]}"));
  CHECK_THAT(sensitivity({"--format", "md"}).out, ContainsSubstring("| node "));
}

TEST_CASE_METHOD(Fixture, "the JSON is what -o writes, what a second run continues, and what quant-mixed reads") {
  const Ended json = sensitivity({"--format", "json", "-o", table});
  CHECK(json.code == 0);
  CHECK(json.out == read_file(table));
  CHECK(nlohmann::json::parse(json.out)["complete"] == true);
  const Ended again = sensitivity({"-o", table, "-j", "3"});
  CHECK(again.code == 0);
  CHECK_THAT(again.err, ContainsSubstring("continuing"));
  CHECK(read_file(table) == json.out);

  const std::string out = dir.path("out.onnx");
  const Ended mixed =
      run_onnxpress({"compress", in, "-o", out, "-p",
                     "@clean,fold-batchnorm,quant-mixed{size=0.5 sensitivity=" + table + "}", "--data", samples});
  INFO(mixed.err);
  CHECK(mixed.code == 0);
  CHECK(read_file(out).size() < read_file(in).size());
  const Ended other = run_onnxpress({"compress", in, "-o", out, "--force", "-p",
                                     "quant-mixed{size=0.5 sensitivity=" + table + "}", "--data", samples});
  CHECK(other.code == 3);
  CHECK_THAT(other.err, ContainsSubstring("another model"));
}

TEST_CASE_METHOD(Fixture, "a file of other inputs is not touched without --force") {
  CHECK(sensitivity({"--cache", table}).code == 0);
  const std::string before = read_file(table);
  const Ended foreign = sensitivity({"--cache", table, "-p", ""});
  CHECK(foreign.code == 3);
  CHECK_THAT(foreign.err, ContainsSubstring("measured for another model"));
  const Ended fewer = sensitivity({"--cache", table, "--samples", "4"});
  CHECK(fewer.code == 3);
  CHECK_THAT(fewer.err, ContainsSubstring("other samples"));
  const Ended settings = sensitivity({"--cache", table, "--per-tensor"});
  CHECK(settings.code == 3);
  CHECK_THAT(settings.err, ContainsSubstring("other settings"));
  CHECK(read_file(table) == before);
  CHECK(sensitivity({"--cache", table, "--samples", "4", "--force"}).code == 0);
  CHECK(read_file(table) != before);

  write_file(table, "{\"kind\": \"something\"}");
  const Ended hostile = sensitivity({"-o", table});
  CHECK(hostile.code == 3);
  CHECK_THAT(hostile.err, ContainsSubstring("no sensitivity table"));
}

TEST_CASE_METHOD(Fixture, "sensitivity: mistakes on the command line") {
  CHECK(run_onnxpress({"sensitivity", in}).code == 2);
  CHECK(sensitivity({"-o", table, "--cache", table}).code == 2);
  CHECK(sensitivity({"--target", "toaster"}).code == 2);
  CHECK(sensitivity({"-p", "no-such-pass"}).code == 2);
  CHECK(sensitivity({"-o", dir.path("no/such/folder.json")}).code == 5);
}

TEST_CASE_METHOD(Fixture, "the budget of quant-mixed and the gate of the command have names of their own") {
  const std::string out = dir.path("out.onnx");
  CHECK(run_onnxpress({"quant-mixed", in, "-o", out, "--data", samples, "--mixed-max-drop", "100"}).code == 0);
  const Ended gate = run_onnxpress({"quant-mixed", in, "-o", out, "--force", "--data", samples, "--max-drop", "1"});
  CHECK(gate.code == 2);
  CHECK_THAT(gate.err, ContainsSubstring("--max-drop needs --eval"));
}

TEST_CASE_METHOD(Fixture, "sensitivity to pruning: a table, JSON, a pipeline to paste") {
  for (const std::string method : {"prune-magnitude", "prune-channels"}) {
    const Ended ended = sensitivity({"--method", method, "--ratios", "0.5,0.25", "-o", table, "--force"});
    INFO(ended.err);
    CHECK(ended.code == 0);
    CHECK_THAT(ended.out, ContainsSubstring(method));
    const auto json = nlohmann::json::parse(read_file(table));
    CHECK(json["kind"] == "onnxpress-prune-sensitivity");
    CHECK(json["method"] == method);
    CHECK(json["ratios"] == std::vector<double>{0.25, 0.5});
    const Ended printed = sensitivity({"--method", method, "--ratios", "0.5,0.25", "--format", "json"});
    CHECK(printed.out == read_file(table));
  }
  const Ended magnitude = sensitivity({"--method", "prune-magnitude"});
  CHECK_THAT(magnitude.out, ContainsSubstring("@clean,fold-batchnorm,prune-magnitude{sparsity=0.5 layers=["));
  const std::size_t line = magnitude.out.find("@clean,fold-batchnorm,prune-magnitude");
  const std::string pipeline = magnitude.out.substr(line, magnitude.out.find('\n', line) - line);
  CHECK(run_onnxpress({"compress", in, "-o", dir.path("pruned.onnx"), "-p", pipeline}).code == 0);

  CHECK(sensitivity({"--method", "prune-magnitude", "-o", table}).code == 2);  // it exists
  CHECK(sensitivity({"--method", "prune-magnitude", "--per-tensor"}).code == 2);
  CHECK(sensitivity({"--method", "prune-magnitude", "--ratios", "1.5"}).code == 2);
  CHECK(sensitivity({"--method", "prune-everything"}).code == 2);
}
