#include "ir/extract.h"

#include <catch2/catch_test_macros.hpp>

#include "engine/session.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

TEST_CASE("a part runs alone: initializers, Constant nodes and given values come along, the model stays") {
  const Model model = parse(HEAD
                            "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}> { "
                            "k = Constant <value = float[2] {10, 20}> () s = Relu(x) t = Add(s, a) u = Mul(t, k) "
                            "y = Neg(u) }");
  const std::string before = dump(model);
  const Graph& main = model.main();
  const std::vector<float> given = {3, 4};
  Part part;
  part.nodes = {main.producer("t"), main.producer("u")};
  part.given = {{"s", Tensor::of_floats({2}, given)}};
  part.outputs = {"u", "t"};
  const Model small = extract(main, part);
  CHECK(small.main().inputs().empty());
  CHECK(small.main().outputs() == part.outputs);
  CHECK(small.opset() == 17);
  EngineRunner runner;
  const auto results = runner.run(small, {});
  REQUIRE(results);
  const auto u = (*results)[0].as<float>(), t = (*results)[1].as<float>();
  CHECK(std::vector<float>(t.begin(), t.end()) == std::vector<float>{4, 6});
  CHECK(std::vector<float>(u.begin(), u.end()) == std::vector<float>{40, 120});
  CHECK(dump(model) == before);
}

TEST_CASE("a part of a body reads the constants of the scopes around it") {
  const Model model = parse(HEAD
                            "g (float[2] x, bool c) => (float[2] y) <float[2] a = {1, 2}> { "
                            "k = Constant <value = float[2] {10, 20}> () "
                            "y = If (c) <then_branch = p () => (float[2] q) { r = Mul(a, k) q = Add(x, r) }, "
                            "else_branch = e () => (float[2] s) { s = Neg(x) }> }");
  const Graph& body = *model.graphs()[1];
  EngineRunner runner;
  const auto results = runner.run(extract(body, {.nodes = {body.producer("r")}, .given = {}, .outputs = {"r"}}), {});
  REQUIRE(results);
  const auto r = results->front().as<float>();
  CHECK(std::vector<float>(r.begin(), r.end()) == std::vector<float>{10, 40});
}

}  // namespace
}  // namespace onnxpress::testing
