// onnxpress groups as a user runs it.
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

// A hidden layer of 4, an output of 2 behind a Softmax.
const char* const kPerceptron =
    "<ir_version: 8, opset_import: [\"\": 17]> g (float[1, 3] x) => (float[1, 2] y) "
    "<float[3, 4] w1 = {1,2,3,4,5,6,7,8,9,10,11,12}, float[4] b1 = {1,2,3,4}, float[4, 2] w2 = {1,2,3,4,5,6,7,8}> "
    "{ a = Gemm(x, w1, b1) r = Relu(a) c = MatMul(r, w2) y = Softmax(c) }";

struct Written {
  TempDir dir;
  std::string path = dir.path("model.onnxtxt");
  explicit Written(std::string_view text) { write_file(path, text); }
};

}  // namespace

TEST_CASE("groups lists what could go and what stays") {
  const Ended ended = run_onnxpress({"-q", "groups", kDigits});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("/stem/Conv"));
  CHECK_THAT(ended.out, ContainsSubstring("channels"));
  CHECK_THAT(ended.out, ContainsSubstring("What stays, and why"));
  CHECK_THAT(ended.out, ContainsSubstring("'logits' is an output of the model"));
}

TEST_CASE("groups as JSON, with what goes with all units of a group") {
  const Written model(kPerceptron);
  const Ended ended = run_onnxpress({"-q", "--format", "json", "groups", model.path});
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  const auto json = nlohmann::json::parse(ended.out);
  CHECK(json["parameters"] == 24);
  CHECK(json["macs"] == 20);
  REQUIRE(json["groups"].size() == 1);
  const auto& group = json["groups"][0];
  CHECK(group["name"] == "Gemm->a");
  CHECK(group["kind"] == "neurons");
  CHECK(group["units"] == 4);
  CHECK(group["width"] == 1);
  CHECK(group["parameters"] == 24);
  CHECK(group["macs"] == 20);
  REQUIRE(json["blocked"].size() == 1);
  CHECK(json["blocked"][0]["node"] == "MatMul->c");
  CHECK(json["blocked"][0]["blocked"] == 2);
  CHECK_FALSE(json["blocked"][0]["path"].empty());
  CHECK_FALSE(json.contains("explanation"));
}

TEST_CASE("groups explains one node") {
  const Written model(kPerceptron);
  const Ended ended = run_onnxpress({"-q", "groups", model.path, "--explain", "MatMul->c"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("reads"));
  CHECK_THAT(ended.out, ContainsSubstring("group 'Gemm->a'"));
  CHECK_THAT(ended.out, ContainsSubstring("fixed by"));
  const auto json = nlohmann::json::parse(
      run_onnxpress({"-q", "--format", "json", "groups", model.path, "--explain", "MatMul->c"}).out);
  CHECK(json["explanation"]["node"] == "MatMul->c");
}

TEST_CASE("groups of a node that is not there, of a file that is not there") {
  const Written model(kPerceptron);
  const Ended unknown = run_onnxpress({"groups", model.path, "--explain", "MatMul->d"});
  CHECK(unknown.code == 2);
  CHECK_THAT(unknown.err, ContainsSubstring("did you mean 'MatMul->c'"));
  CHECK(run_onnxpress({"groups", model.dir.path("none.onnx")}).code == 5);
  CHECK(run_onnxpress({"groups", model.path, "-p", "no-such-pass"}).code == 2);
}

TEST_CASE("groups of a model with nothing to prune") {
  const Written model("<ir_version: 8, opset_import: [\"\": 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }");
  const Ended ended = run_onnxpress({"-q", "groups", model.path});
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("0 groups with 0 units"));
}
