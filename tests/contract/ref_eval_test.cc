// The slow evaluator is itself held against ONNX Runtime, on every test model it claims to know.
#include "contract/ref_eval.h"

#include <catch2/catch_test_macros.hpp>

#include "contract/subject.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

std::vector<double> eval(const std::string& text, const std::vector<NamedTensor>& inputs) {
  const auto outputs = ref_eval(parse(text), inputs);
  INFO((outputs ? "" : outputs.error().text()));
  REQUIRE(outputs);
  return outputs->front().values;
}

NamedTensor floats(std::string name, Dims dims, std::initializer_list<float> values) {
  return {std::move(name), Tensor::of_floats(std::move(dims), std::vector<float>(values))};
}

}  // namespace

TEST_CASE("the reference evaluator agrees with the engine") {
  const TempDir folder;
  std::size_t known = 0;
  for (const Subject& subject : prepare_all(folder.path())) {
    if (!subject.test.in_reference) continue;
    INFO(subject.test.name);
    ++known;
    REQUIRE(subject.feeds.size() == 2);
    for (std::size_t i = 0; i < subject.feeds.size(); ++i) {
      const auto outputs = ref_eval(subject.test.model, subject.feeds[i]);
      INFO((outputs ? "" : outputs.error().text()));
      REQUIRE(outputs);
      CHECK(difference(subject.outputs[i], as_floats(*outputs)) == "");
    }
  }
  CHECK(known >= 10);
}

TEST_CASE("the reference evaluator knows what it does not know") {
  const auto erf = ref_eval(parse(HEAD "g (float[2,2] x) => (float y) { y = Erf (x) }"),
                            std::vector<NamedTensor>{floats("x", {2, 2}, {1, 2, 3, 4})});
  REQUIRE_FALSE(erf);
  CHECK(erf.error().code == Code::unsupported);
}

TEST_CASE("reference values worked out by hand") {
  CHECK(eval(HEAD "g (float[2,2] x) => (float[2,2] y) <float[2] b = {10, 20}> { y = Sub (x, b) }",
             {floats("x", {2, 2}, {1, 2, 3, 4})}) == std::vector<double>{-9, -18, -7, -16});
  CHECK(eval(HEAD "g (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1, 2, 3, 4}, float c = {1}> "
                  "{ y = Gemm <transB = 1, alpha = 2.0, beta = 3.0> (x, w, c) }",
             {floats("x", {1, 2}, {1, 10})}) == std::vector<double>{45, 89});
  CHECK(eval(HEAD "g (float[1,2,2,2] x) => (float y) <float[2,1,1,1] w = {2, 3}> "
                  "{ y = Conv <group = 2, strides = [2, 2], pads = [1, 0, 1, 0]> (x, w) }",
             {floats("x", {1, 2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8})}) == std::vector<double>{0, 6, 0, 21});
  CHECK(eval(HEAD "g (float[1,1,2,2] x) => (float y) "
                  "{ y = AveragePool <kernel_shape = [2, 2], pads = [0, 0, 1, 1]> (x) }",
             {floats("x", {1, 1, 2, 2}, {1, 2, 3, 6})}) == std::vector<double>{3, 4, 4.5, 6});
  CHECK(eval(HEAD "g (float[1,2] x, float[1,1] z) => (float y) { y = Concat <axis = -1> (x, z, x) }",
             {floats("x", {1, 2}, {1, 2}), floats("z", {1, 1}, {9})}) == std::vector<double>{1, 2, 9, 1, 2});
}

}  // namespace onnxpress::testing
