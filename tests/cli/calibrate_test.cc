// onnxpress calibrate from the command line: files, streams, exit codes.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/models.h"
#include "support/process.h"

using namespace onnxpress;
using namespace onnxpress::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Fixture {
  TempDir dir;
  std::string in = dir.path("in.onnx"), samples = dir.path("samples.npy"), stats = dir.path("m.stats");
  Fixture() {
    write_small_model(in);
    write_samples(samples);
  }
  Ended calibrate(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "calibrate");
    return run_onnxpress(arguments);
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "statistics and ranges from the command line") {
  const std::string ranges = dir.path("ranges.json");
  const Ended ended = calibrate({in, "--data", samples, "-o", stats, "--export", ranges, "--method", "mse"});
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("4 values, 8 samples\n"));
  CHECK(nlohmann::json::parse(read_file(ranges))["b"][0].contains("scale"));
  const Ended again =
      calibrate({"--merge", stats, "--export", ranges, "--force", "--method", "mse", "--format", "json"});
  INFO(again.err);
  REQUIRE(again.code == 0);
  CHECK(nlohmann::json::parse(again.out)["values"].size() == 4);
  const Ended quantized = run_onnxpress({"quant-static", in, "-o", dir.path("q.onnx"), "--stats", stats});
  INFO(quantized.err);
  CHECK(quantized.code == 0);
}

TEST_CASE_METHOD(Fixture, "what calibrate does not understand is an error of the command line") {
  CHECK(calibrate({in, "-o", stats}).code == 2);
  CHECK(calibrate({"-o", stats}).code == 2);
  CHECK(calibrate({in, "--data", samples}).code == 2);
  CHECK(calibrate({in, "--merge", stats, "-o", stats}).code == 2);
  CHECK(calibrate({in, "--data", samples, "-o", stats, "--method", "best"}).code == 2);
  CHECK(calibrate({in, "--data", samples, "-o", stats, "--method", "global"}).code == 2);
  CHECK(calibrate({in, "--data", samples, "-o", stats, "--dtype", "float"}).code == 2);
  CHECK(calibrate({"--merge", samples, "-o", stats}).code == 3);
  CHECK(calibrate({"--merge", dir.path("none"), "-o", stats}).code == 5);
  CHECK_FALSE(std::filesystem::exists(stats));
}
