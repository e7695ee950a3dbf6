#include "depend/remove.h"

#include <catch2/catch_test_macros.hpp>

#include "depend/cut.h"
#include "engine/session.h"
#include "io/check.h"
#include "io/load.h"
#include "proving.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

TEST_CASE("Tensors of any type are cut along several axes") {
  const Tensor floats = Tensor::of_floats({2, 3}, std::vector<float>{0, 1, 2, 3, 4, 5});
  const auto cut = cut_tensor(floats.view(), {{0, {1}}, {1, {0, 2}}});
  REQUIRE(cut);
  CHECK(cut->dims() == Dims{1, 2});
  CHECK(std::ranges::equal(cut->as<float>(), std::vector<float>{3, 5}));

  const std::vector<std::byte> nibbles = {std::byte{0x21}, std::byte{0x43}, std::byte{0x05}};  // 1 2 3 4 5
  const auto packed = cut_tensor(Tensor(DType::u4, {5}, nibbles).view(), {{0, {1, 3, 4}}});
  REQUIRE(packed);
  CHECK(packed->dims() == Dims{3});
  CHECK(std::ranges::equal(packed->bytes(), std::vector{std::byte{0x42}, std::byte{0x05}}));

  const Tensor wide(DType::c128, {3});
  CHECK(cut_tensor(wide.view(), {{0, {2}}})->bytes().size() == 16);
}

TEST_CASE("What a tensor lacks cannot be kept") {
  const Tensor floats = Tensor::of_floats({2}, std::vector<float>{0, 1});
  CHECK_FALSE(cut_tensor(floats.view(), {{0, {2}}}));
  CHECK_FALSE(cut_tensor(floats.view(), {{1, {0}}}));
  CHECK_FALSE(cut_tensor(floats.view(), {{0, {1, 0}}}));
}

TEST_CASE("What would be cut is blanked in place") {
  Tensor bytes = Tensor::of<std::uint8_t>(DType::u8, {2, 2}, std::vector<std::uint8_t>{1, 2, 3, 4});
  const std::byte zero{7};
  const auto blank = blank_tensor(std::move(bytes), {{1, {1}}}, std::span(&zero, 1));
  REQUIRE(blank);
  CHECK(std::ranges::equal(blank->as<std::uint8_t>(), std::vector<std::uint8_t>{7, 2, 7, 4}));
}

TEST_CASE("A convolution network gets narrower") {
  const Model narrow = require_narrow(HEAD R"(
g (float[1,3,8,8] x) => (float[1,4] y)
<float[8,3,3,3] w1, float[8] b1, float[8] s, float[8] b, float[8] m, float[8] var, float[6,8,3,3] w2, float[6] b2,
 int64[2] shape = {0, -1}, float[216,4] w3, float[4] b3>
{ c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  n = BatchNormalization(c1, s, b, m, var)  r = Relu(n)
  c2 = Conv<strides=[1,1]>(r, w2, b2)  f = Reshape(c2, shape)  y = Gemm(f, w3, b3) })");
  CHECK(dims_of(narrow, "w1") == Dims{5, 3, 3, 3});
  CHECK(dims_of(narrow, "var") == Dims{5});
  CHECK(dims_of(narrow, "w2") == Dims{4, 5, 3, 3});
  CHECK(dims_of(narrow, "w3") == Dims{144, 4});
}

TEST_CASE("Readers of one constant that keep different things get copies, equal ones share") {
  const Model model = with_weights(HEAD R"(
g (float[2,4] x) => (float[2,4] y)
<float[4,6] w1, float[6] b, float[4,6] w2, float[6,4] w3, float[6,4] w4>
{ a = Gemm(x, w1, b)  p = MatMul(a, w3)  c = Gemm(x, w2, b)  q = MatMul(c, w4)  y = Add(p, q) })");
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 2);
  SECTION("different") {
    Model narrow = model.clone();
    REQUIRE(remove_units(narrow, narrow.main(), kept_axes(*dependencies, {{0, 1}, {5}}), 1));
    REQUIRE(narrow.main().initializer("b_1"));
    CHECK(dims_of(narrow, "b") == Dims{4});
    CHECK(dims_of(narrow, "b_1") == Dims{5});
  }
  SECTION("equal") {
    Model narrow = model.clone();
    REQUIRE(remove_units(narrow, narrow.main(), kept_axes(*dependencies, {{2}, {2}}), 1));
    CHECK(dims_of(narrow, "b") == Dims{5});
    CHECK_FALSE(narrow.main().initializer("b_1"));
  }
  SECTION("one only") {
    Model narrow = model.clone();
    REQUIRE(remove_units(narrow, narrow.main(), kept_axes(*dependencies, {{2}, {}}), 1));
    CHECK(dims_of(narrow, "b") == Dims{6});
    CHECK(dims_of(narrow, "b_1") == Dims{5});
    CHECK(narrow.main().nodes()[0].input(2) == "b_1");
  }
}

TEST_CASE("Nothing kept, nothing changed; a failure changes nothing") {
  Model model = with_weights(HEAD R"(
g (float[2,4] x) => (float[2,4] y) <float[4,6] w1, float[6,4] w2> { a = MatMul(x, w1)  y = MatMul(a, w2) })");
  const std::string before = dump(model);
  CHECK(remove_units(model, model.main(), {}, 1) == false);
  KeptAxes wrong;
  wrong.set({"w1", "a", 1}, 1, {0, 1});
  wrong.set({"w2", "y", 1}, 0, {0, 9});
  CHECK_FALSE(remove_units(model, model.main(), wrong, 1));
  CHECK(dump(model) == before);
  KeptAxes output;
  output.set({"y", {}, 0}, 1, {0});
  CHECK_FALSE(remove_units(model, model.main(), output, 1));
  KeptAxes nothing;
  nothing.set({"w1", "a", 1}, 1, {});
  CHECK_FALSE(remove_units(model, model.main(), nothing, 1));
  CHECK(dump(model) == before);
}

TEST_CASE("The trained test networks get narrower") {
  for (const char* name : {"digits_cnn", "digits_lstm", "digits_transformer"}) {
    CAPTURE(name);
    auto model = load_model(std::string(ONNXPRESS_SOURCE_DIR "/testdata/models/") + name + ".onnx", {});
    REQUIRE(model);
    run_pipeline(*model, "@clean");
    require_narrow(*model);
  }
}

TEST_CASE("Constant nodes are cut like initializers") {
  const Model model = parse(HEAD R"(
g (float[1,2] x) => (float[1,1] y)
{ w = Constant<value = float[2,3] {1,2,3,4,5,6}>()  b = Constant<value_floats = [0.5, 1.0, 1.5]>()
  a = Gemm(x, w, b)  r = Relu(a)  v = Constant<value = float[3,1] {1,-1,2}>()  y = MatMul(r, v) })");
  const Model narrow = require_narrow(model);
  CHECK(dims_of(narrow, "w") == Dims{2, 2});
  CHECK(dims_of(narrow, "b") == Dims{2});
}

TEST_CASE("Half precision and stored codes are cut in their type") {
  const Model model = parse(HEAD R"(
g (float[1,2] x) => (float[1,2] y)
<float[2,3] w1 = {1,2,3,4,5,6}, int8[3,2] q = {1,2,3,4,5,6}, float[3] s = {0.5, 0.25, 1}, int8[3] z = {0, 1, 0},
 float16[1,3] v = {1, 2, 3}>
{ a = MatMul(x, w1)  c = Cast<to = 1>(v)  m = Mul(a, c)  w = DequantizeLinear<axis = 0>(q, s, z)  y = MatMul(m, w) })");
  const Model narrow = require_narrow(model);
  CHECK(dims_of(narrow, "q") == Dims{2, 2});
  CHECK(dims_of(narrow, "s") == Dims{2});
  CHECK(narrow.main().initializer("v").dtype() == DType::f16);
  CHECK(dims_of(narrow, "v") == Dims{1, 2});
}

TEST_CASE("What a body computes inside itself gets narrower, with constants of the scope around it") {
  const char* const text = HEAD R"(
g (bool c, float[1,2] x) => (float[1,1] y)
<float[2,3] w = {1,2,3,4,5,6}, float[3,1] v = {1,-1,2}>
{ y = If(c) <
    then_branch = t () => (float[1,1] a) { p = MatMul(x, w)  r = Relu(p)  a = MatMul(r, v) },
    else_branch = e () => (float[1,1] b) { q = MatMul(x, w)  b = MatMul(q, v) }> })";
  const Model model = parse(text);
  Graph& body = *model.graphs()[1];
  auto dependencies = DependencyGraph::analyze(body);
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 1);
  EngineRunner runner;
  PassContext context;
  context.runner = &runner;
  const auto proof = prove_removal(model, body, *dependencies, {{1}}, context);
  REQUIRE(proof);
  CHECK(proof->failures.empty());
  Model narrow = model.clone();
  REQUIRE(remove_units(narrow, *narrow.graphs()[1], kept_axes(*dependencies, {{1}}), 1));
  CHECK(dims_of(narrow, "w") == Dims{2, 3});  // the other branch still reads it
  CHECK(narrow.graphs()[1]->initializer("w_1").dims() == Dims{2, 2});
  CHECK(check_model(narrow));
  CHECK(Session::open(narrow));
}

TEST_CASE("Large weights are cut through the store, and the rest of it is untouched") {
  std::string text = HEAD
      "g (float[1,40] x) => (float[1,4] y) <float[40,64] w1, float[64,4] w2> "
      "{ a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }";
  const Model model = with_weights(text);
  const std::string before = *model.fingerprint();
  const Model narrow = require_narrow(model);
  CHECK(dims_of(narrow, "w1") == Dims{40, 42});
  CHECK(*model.fingerprint() == before);
}

TEST_CASE("Declared types of cut values follow") {
  const Model model = parse(HEAD R"(
g (float[1,2] x) => (float[1,1] y) <float[1,3] a, float[2,3] w = {1,2,3,4,5,6}, float[3,1] v = {1,-1,2}>
{ a = MatMul(x, w)  y = MatMul(a, v) })");
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  Model narrow = model.clone();
  REQUIRE(remove_units(narrow, narrow.main(), kept_axes(*dependencies, {{1}}), 1));
  CHECK(narrow.main().type("a").static_shape() == Dims{1, 2});
  CHECK(check_model(narrow));
}

TEST_CASE("Sizes that are computed but known become literals") {
  const Model narrow = require_narrow(HEAD R"(
g (float[N,3,4,4] x) => (float[N,2,4,4] y)
<float[8,3,1,1] w1, int64 one = {1}, int64 two = {2}, int64[1] first = {0}, int64[1] axis = {1}, int64[1] flat = {-1},
 int64[1] end = {9223372036854775807}, float[2,4,1,1] w2, float[2,4,1,1] w3>
{ a = Conv(x, w1)  s = Shape(a)  n = Gather(s, one)  h = Div(n, two)  m = Reshape(h, flat)
  b = Slice(a, first, m, axis)  c = Slice(a, m, end, axis)  d = Conv(b, w2)  e = Conv(c, w3)  y = Add(d, e) })");
  CHECK(dims_of(narrow, "w1")[0] == dims_of(narrow, "w2")[1] + dims_of(narrow, "w3")[1]);
  CHECK(dims_of(narrow, "w1")[0] < 8);
}
