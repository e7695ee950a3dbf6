// Calibration from files to files: shards, ranges out and in, and what quant-static makes of them.
#include "flow/calibrate.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <fstream>

#include "base/file.h"
#include "flow/compress.h"
#include "pass/registry.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

constexpr std::size_t kRows = 40;

// `rows` rows of eight values; row 7 is far louder than the others.
void write_rows(const std::string& path, std::size_t first, std::size_t rows) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", 8), }";
  header.append(117 - header.size(), ' ');
  std::vector<float> values = random_floats(kRows * 8, 3);
  for (std::size_t i = 7 * 8; i < 8 * 8; ++i) values[i] *= 50;
  std::ofstream out(path, std::ios::binary);
  out << std::string("\x93NUMPY\x01\x00\x76\x00", 10) << header << "\n";
  out.write(reinterpret_cast<const char*>(values.data() + first * 8), static_cast<std::streamsize>(rows * 8 * 4));
}

struct Fixture {
  TempDir dir;
  Fixture() {
    const Model model = parse(HEAD R"(g (float[N, 8] x) => (float[N, 3] y)
      <float[8, 3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}, int64[1] one = {1}> {
      r = Relu(x) m = MatMul(r, w) s = Shape(m) y = Identity(m) })");
    REQUIRE(save_model(model, dir.path("m.onnx")));
    write_rows(dir.path("all.npy"), 0, kRows);
    write_rows(dir.path("one.npy"), 0, 13);
    write_rows(dir.path("two.npy"), 13, kRows - 13);
  }
  CalibrateRequest request(const std::string& data, const std::string& output, unsigned jobs = 1) const {
    CalibrateRequest request;
    request.model = dir.path("m.onnx");
    request.data.path = dir.path(data);
    request.output = dir.path(output);
    request.jobs = jobs;
    return request;
  }
  std::string bytes(const std::string& name) const {
    std::ifstream in(dir.path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  Result<CompressResult> quantize(const std::string& options, const std::string& output, bool with_data) const {
    CompressRequest request;
    request.input = dir.path("m.onnx");
    request.output = dir.path(output);
    request.pipeline = *Pipeline::parse("quant-static{" + options + "}", all_passes());
    if (with_data) request.data.path = dir.path("all.npy");
    request.metadata = false;
    request.overwrite = true;
    return compress(request);
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "statistics do not depend on threads, and shards merge to the bytes of one run") {
  REQUIRE(calibrate(request("all.npy", "all.stats")));
  REQUIRE(calibrate(request("all.npy", "all4.stats", 4)));
  CHECK(bytes("all4.stats") == bytes("all.stats"));
  REQUIRE(calibrate(request("one.npy", "one.stats")));
  REQUIRE(calibrate(request("two.npy", "two.stats")));
  CalibrateRequest merge;
  merge.merge = {dir.path("one.stats"), dir.path("two.stats")};
  merge.output = dir.path("merged.stats");
  const auto merged = calibrate(merge);
  REQUIRE(merged);
  CHECK(merged->samples == kRows);
  CHECK(bytes("merged.stats") == bytes("all.stats"));
}

TEST_CASE_METHOD(Fixture, "every float value that is computed is there, once") {
  CalibrateRequest least_error = request("all.npy", "a.stats");
  least_error.ranges.method = RangeMethod::mse;
  const auto result = calibrate(least_error);
  REQUIRE(result);
  std::vector<std::string> names;
  for (const CalibratedValue& value : result->values) {
    names.push_back(value.name);
    CHECK(value.chosen.max <= value.seen.max);
    CHECK(value.sqnr_db > 10);
  }
  CHECK(names == std::vector<std::string>{"m", "r", "x", "y"});
}

TEST_CASE_METHOD(Fixture, "quant-static makes the same model from a file as from the samples") {
  REQUIRE(calibrate(request("all.npy", "a.stats")));
  for (const std::string method : {"auto", "minmax", "moving-average", "percentile", "entropy", "mse"}) {
    INFO(method);
    REQUIRE(quantize("method=" + method, "measured.onnx", true));
    const auto from_file = quantize("method=" + method + " stats=\"" + dir.path("a.stats") + "\"", "read.onnx", false);
    REQUIRE(from_file);
    CHECK(from_file->report.warnings.empty());
    CHECK(bytes("read.onnx") == bytes("measured.onnx"));
  }
  CHECK(quantize("", "x.onnx", false).error().code == Code::usage);
  CHECK(quantize("stats=\"" + dir.path("none") + "\"", "x.onnx", false).error().code == Code::io);
}

TEST_CASE_METHOD(Fixture, "exported ranges give the same model") {
  for (const auto form : {OrtForm::overrides, OrtForm::calibration}) {
    CalibrateRequest request = this->request("all.npy", "a.stats");
    request.overwrite = true;
    request.export_path = dir.path("ranges.json");
    request.export_form = form;
    request.ranges.method = RangeMethod::percentile;
    request.ranges.percentile = 90;
    REQUIRE(calibrate(request));
    REQUIRE(quantize("method=percentile percentile=90", "measured.onnx", true));
    REQUIRE(quantize("stats=\"" + dir.path("ranges.json") + "\"", "read.onnx", false));
    CHECK(bytes("read.onnx") == bytes("measured.onnx"));
  }
}

TEST_CASE_METHOD(Fixture, "what calibrate refuses") {
  CHECK(calibrate(request("", "a.stats")).error().code != Code::ok);
  CalibrateRequest no_data = request("all.npy", "a.stats");
  no_data.data.path = "";
  CHECK(calibrate(no_data).error().code == Code::usage);
  REQUIRE(calibrate(request("all.npy", "a.stats")));
  CHECK(calibrate(request("all.npy", "a.stats")).error().code == Code::usage);  // exists
  CalibrateRequest merge;
  merge.merge = {dir.path("a.stats"), dir.path("m.onnx")};
  merge.output = dir.path("c.stats");
  CHECK(calibrate(merge).error().code == Code::bad_input);
  CHECK(bytes("c.stats").empty());
}

TEST_CASE("bodies are calibrated in their own scope, functions and constants are not") {
  const Model model = parse(HEAD R"(agraph (bool c, float[2] x, int64[2] i) => (float[2] y) <float[2] w = {1, 2}> {
    k = Constant <value = float[2] {1, 2}> ()
    a = Add(x, w)
    y = If (c) <then_branch = t () => (float[2] v) { v = Relu(a) }, else_branch = e () => (float[2] v) { v = Mul(a, k) }>
  })");
  std::vector<std::string> keys;
  for (const ValueRef& ref : calibratable_values(model)) keys.push_back(range_key(ref));
  CHECK(keys.size() == 5);
  CHECK(std::ranges::count(keys, "x") == 1);
  CHECK(std::ranges::count(keys, "a") == 1);
  CHECK(std::ranges::count(keys, "y") == 1);
  CHECK(std::ranges::count_if(keys, [](const std::string& key) { return key.ends_with(".v"); }) == 2);
}
