#include <catch2/catch_test_macros.hpp>

#include "ir/model.h"
#include "support/models.h"

namespace onnxpress {
namespace {

using testing::parse;

constexpr const char* kBranch = HEAD R"(g (bool c, float[N, 4] x) => (float[N, 4] y)
  <float[4] w = {1.0, 2.0, 3.0, 4.0}, float[4] unused = {0.0, 0.0, 0.0, 0.0}>
  { s = Add(x, w)
    y = If(c) <then_branch = t () => (float[N, 4] a) { a = Relu(s) },
               else_branch = e () => (float[N, 4] b) <float[4] w2 = {1.0, 1.0, 1.0, 1.0}> { b = Mul(x, w2) }> })";

TEST_CASE("the index knows producers, uses and captures") {
  const Model model = parse(kBranch);
  const Graph& main = model.main();
  REQUIRE(model.graphs().size() == 3);
  CHECK(main.nodes().size() == 2);
  CHECK(main.producer("s").op() == "Add");
  CHECK_FALSE(main.producer("x"));
  CHECK(main.is_input("x"));
  CHECK(main.is_output("y"));

  const auto& uses = main.uses("s");
  REQUIRE(uses.size() == 1);
  CHECK(uses[0].captured);
  CHECK(uses[0].node.op() == "Relu");
  CHECK(main.uses("x").size() == 2);
  CHECK(main.uses("unused").empty());

  const Graph& then_branch = *model.graphs()[1];
  CHECK(then_branch.kind() == Graph::Kind::body);
  CHECK(then_branch.parent() == &main);
  CHECK(then_branch.owner().op() == "If");
  CHECK(then_branch.scope_of("s") == &main);
  CHECK(then_branch.scope_of("nothing") == nullptr);
  CHECK(main.producer("y").subgraphs().size() == 2);
}

TEST_CASE("constants are initializers and Constant nodes, through outer scopes, but not overridable inputs") {
  const Model model = parse(HEAD R"(g (bool c, float[2] x, float[2] d) => (float[2] y)
    <float[2] w = {1.0, 2.0}, float[2] d = {5.0, 6.0}>
    { k = Constant <value_floats: floats = [3.0, 4.0]> ()
      y = If(c) <then_branch = t () => (float[2] a) { a = Add(w, k) }, else_branch = e () => (float[2] b) { b = Add(d, x) }> })");
  const Graph& body = *model.graphs()[1];
  const auto w = body.constant("w");
  REQUIRE(w);
  REQUIRE(*w);
  CHECK((*w)->as<float>()[1] == 2.0F);
  const auto k = body.constant("k");
  REQUIRE(k);
  REQUIRE(*k);
  CHECK((*k)->as<float>()[0] == 3.0F);
  CHECK(body.is_constant("k"));
  CHECK_FALSE(body.constant_initializer("k"));
  CHECK_FALSE(body.is_constant("d"));  // callers may override it
  CHECK_FALSE(body.is_constant("x"));
  CHECK_FALSE(body.is_constant(""));
}

TEST_CASE("before IR 4 an initializer that is an input is constant") {
  const Model model = parse(R"(<ir_version: 3, opset_import: ["": 8]> g (float[2] x, float[2] w) => (float[2] y)
    <float[2] w = {1.0, 2.0}> { y = Add(x, w) })");
  CHECK(model.main().is_constant("w"));
}

TEST_CASE("types are declared or inferred, unknown parts stay empty") {
  const Model model = parse(R"(<ir_version: 8, opset_import: ["": 17, "local": 1]>
    g (float[N, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[N, 4, 8, 8] y)
    { c = Conv <pads: ints = [1, 1, 1, 1]> (x, w)  u = local.Op(c)  y = Relu(c) })");
  const ValueType type = model.main().type("c");
  REQUIRE(type.rank() == 4);
  CHECK(type.dtype == DType::f32);
  CHECK(type.dim(1) == 4);
  CHECK_FALSE(type.dim(0));
  CHECK((*type.shape)[0].symbol == "N");
  CHECK_FALSE(type.static_shape());
  CHECK(model.main().type("w").static_shape() == Dims{4, 3, 3, 3});
  CHECK_FALSE(model.main().type("u").shape);
}

TEST_CASE("functions are scopes of their own") {
  const Model model = parse(R"(<ir_version: 8, opset_import: ["": 17, "local": 1]>
    g (float[N] x) => (float[N] y) { y = local.twice(x) }
    <domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) })");
  REQUIRE(model.graphs().size() == 2);
  const Graph& function = *model.graphs()[1];
  CHECK(function.kind() == Graph::Kind::function);
  CHECK(function.uses("a").size() == 2);
  CHECK(function.inputs() == std::vector<std::string>{"a"});
}

TEST_CASE("clones are independent and fingerprints tell models apart") {
  const Model model = parse(kBranch);
  Model copy = model.clone();
  CHECK(*copy.fingerprint() == *model.fingerprint());
  copy.set_metadata("key", "value");
  CHECK(*copy.fingerprint() != *model.fingerprint());
  CHECK(copy.metadata("key") == "value");
  CHECK(model.metadata("key").empty());
  copy.remove_metadata("key");
  CHECK(*copy.fingerprint() == *model.fingerprint());
}

TEST_CASE("raising the IR version past 3 keeps initializers constant") {
  Model model = parse(R"(<ir_version: 3, opset_import: ["": 8]> g (float[2] x, float[2] w) => (float[2] y)
    <float[2] w = {1.0, 2.0}> { y = Add(x, w) })");
  model.set_ir_version(8);
  CHECK(model.main().inputs() == std::vector<std::string>{"x"});
  CHECK(model.main().is_constant("w"));
}

}  // namespace
}  // namespace onnxpress
