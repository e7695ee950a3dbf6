// onnxpress lint as a user runs it.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "support/models.h"
#include "support/process.h"

using namespace onnxpress;
using namespace onnxpress::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::string kDigits = std::string(ONNXPRESS_SOURCE_DIR) + "/testdata/models/digits_cnn.onnx";

struct Written {
  TempDir dir;
  std::string path = dir.path("model.onnxtxt");
  explicit Written(std::string_view text) { write_file(path, text); }
};

#define CONV_HEAD "<ir_version: 8, opset_import: [\"\": 17]> g (float[1, 2, 3, 3] x) => (float[1, 2, 3, 3] y) "
#define CONV_CONSTANTS \
  "<float s = {0.1}, uint8 z = {128}, float ws = {0.1}, int8 wz = {0}, int8[2, 2, 1, 1] w = {100, 100, 1, 1}> "

const char* kFused = CONV_HEAD CONV_CONSTANTS
    "{ a = QuantizeLinear(x, s, z) d = DequantizeLinear(a, s, z) e = DequantizeLinear(w, ws, wz) "
    "r = Conv(d, e) f = QuantizeLinear(r, s, z) y = DequantizeLinear(f, s, z) }";
const char* kBlocked = CONV_HEAD CONV_CONSTANTS
    "{ a = QuantizeLinear(x, s, z) d = DequantizeLinear(a, s, z) e = DequantizeLinear(w, ws, wz) y = Conv(d, e) }";

}  // namespace

TEST_CASE("lint lists what computes, and verifies itself") {
  const Ended ended = run_onnxpress({"-q", "lint", kDigits, "--verify", "--target", "ort-x86-vnni"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("0 of 12 compute nodes integer, 12 blocked"));
  CHECK_THAT(ended.out, ContainsSubstring("/head/Gemm"));
  CHECK_THAT(ended.out, ContainsSubstring("of 39 nodes right"));
  CHECK_THAT(ended.out, !ContainsSubstring("/Flatten "));
  CHECK_THAT(run_onnxpress({"-q", "lint", kDigits, "--all"}).out, ContainsSubstring("/Flatten"));
}

TEST_CASE("lint as JSON") {
  const Written model(kFused);
  const Ended ended = run_onnxpress({"-q", "--format", "json", "lint", model.path, "--verify", "--target", "ort-x86"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  const auto json = nlohmann::json::parse(ended.out);
  CHECK(json["target"] == "ort-x86");
  CHECK(json["compute_nodes"] == 1);
  CHECK(json["integer_nodes"] == 1);
  CHECK(json["conversions"] == 2);
  CHECK(json["macs"] == 36);
  CHECK(json["integer_macs"] == 36);
  CHECK(json["check"]["right"] == 6);
  CHECK(json["nodes"][3]["becomes"] == "QLinearConv");
  CHECK(json["nodes"][3]["saturating_channels"] == 1);  // 100 + 100
  CHECK(json["warnings"].size() == 1);
}

TEST_CASE("lint as a gate") {
  const Written fused(kFused), blocked(kBlocked);
  CHECK(run_onnxpress({"lint", fused.path, "--fail-on-blocker", "--target", "ort-x86-vnni"}).code == 0);
  CHECK(run_onnxpress({"lint", fused.path, "--fail-on-blocker", "--target", "ort-x86"}).code == 1);  // saturates
  const Ended ended = run_onnxpress({"lint", blocked.path, "--fail-on-blocker", "--target", "ort-x86-vnni"});
  CHECK(ended.code == 1);
  CHECK_THAT(ended.out, ContainsSubstring("no QuantizeLinear behind it"));
  CHECK(run_onnxpress({"lint", blocked.path}).code == 0);
}

TEST_CASE("lint and wrong arguments") {
  const Ended target = run_onnxpress({"lint", kDigits, "--target", "ort-x68"});
  CHECK(target.code == 2);
  CHECK_THAT(target.err, ContainsSubstring("did you mean"));
  CHECK(run_onnxpress({"lint", "/no/such/file.onnx"}).code == 5);
  CHECK(run_onnxpress({"lint"}).code == 2);
}
