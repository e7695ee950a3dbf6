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

TEST_CASE("a prefix holds what its values need, and all inputs") {
  const Model model = parse(HEAD
                            "g (float[2] x, bool c, float[2] z) => (float[2] y, float[2] w) <float[2] a = {1, 2}, "
                            "float[2] b = {3, 4}> { t = Add(x, a) u = Relu(t) k = Neg(t) "
                            "v = If (c) <then_branch = p () => (float[2] q) { q = Mul(u, a) }, "
                            "else_branch = e () => (float[2] r) { r = Identity(x) }> y = Add(v, b) w = Neg(k) }");
  const std::string before = dump(model);
  const std::vector<std::string> values = {"v", "t", "v"};
  const Model prefix = extract_prefix(model, values);
  CHECK(prefix.main().outputs() == std::vector<std::string>{"v", "t"});
  CHECK(prefix.main().inputs() == model.main().inputs());
  CHECK(prefix.main().nodes().size() == 3);  // the If captures u
  CHECK(prefix.main().producer("u"));
  CHECK_FALSE(prefix.main().producer("k"));
  CHECK(prefix.main().initializer("a"));
  CHECK_FALSE(prefix.main().initializer("b"));
  CHECK(dump(model) == before);
  EngineRunner runner;
  const std::vector<float> x = {-3, 5};
  const std::vector<NamedTensor> inputs = {{"x", Tensor::of_floats({2}, x)},
                                           {"c", Tensor::scalar<bool>(DType::boolean, true)},
                                           {"z", Tensor::of_floats({2}, x)}};
  const auto results = runner.run(prefix, inputs);
  REQUIRE(results);
  CHECK((*results)[0].as<float>()[1] == 14);
  CHECK((*results)[1].as<float>()[0] == -2);
}

TEST_CASE("the prefix of an input is the input") {
  const Model model = parse(HEAD "g (float[2] x) => (float[2] y) { y = Neg(x) }");
  const std::vector<std::string> values = {"x"};
  const Model prefix = extract_prefix(model, values);
  CHECK(prefix.main().nodes().empty());
  CHECK(Session::open(prefix));
}

}  // namespace

TEST_CASE("Before IR version 4 an initializer that goes takes its input along") {
  const Model model = parse(
      "<ir_version: 3, opset_import: [\"\": 8]> g (float[2] x, float[2] u, float[2] v) => (float[2] y)"
      " <float[2] u = {1, 2}, float[2] v = {3, 4}> { a = Add(x, u)  y = Add(a, v) }");
  const std::vector<std::string> values = {"a"};
  const Model prefix = extract_prefix(model, values);
  CHECK(prefix.main().inputs() == std::vector<std::string>{"x", "u"});
  CHECK(prefix.main().initializer("u"));
}

}  // namespace onnxpress::testing
