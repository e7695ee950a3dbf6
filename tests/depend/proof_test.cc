// The proof must catch what is wrong: a removal that forgets members, a literal, a corrupted list.
#include "depend/proof.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "depend/blank.h"
#include "depend/random_run.h"
#include "depend/remove.h"
#include "engine/session.h"
#include "groups_text.h"
#include "proving.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

// Three groups in a row: a, b, c.
const char* const kChain = HEAD R"(
g (float[2,4] x) => (float[2,3] y)
<float[4,6] wa, float[6,6] wb, float[6,6] wc, float[6,3] wd>
{ a = MatMul(x, wa)  b = MatMul(a, wb)  c = MatMul(b, wc)  y = MatMul(c, wd) })";

Proof prove(const Model& model, const DependencyGraph& dependencies, Removal removal, Runner* runner) {
  PassContext context;
  context.runner = runner;
  auto proof = prove_removal(model, model.main(), dependencies, std::move(removal), context);
  INFO((proof ? "" : proof.error().text()));
  REQUIRE(proof);
  return *proof;
}

// Runs models, and gives wrong results for those with a weight of these dims.
class Spoiling : public Runner {
 public:
  Spoiling(std::string weight, std::int64_t size) : weight_(std::move(weight)), size_(size) {}
  Result<std::vector<Tensor>> run(const Model& model, std::span<const NamedTensor> inputs) override {
    ++runs;
    auto outputs = engine_.run(model, inputs);
    if (outputs && model.main().initializer(weight_).dims().back() == size_)
      outputs->front().as_mutable<float>()[0] += 1000;
    return outputs;
  }
  std::size_t runs = 0;

 private:
  EngineRunner engine_;
  std::string weight_;
  std::int64_t size_;
};

}  // namespace

TEST_CASE("A right removal passes in one trial") {
  const Model model = with_weights(kChain);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  EngineRunner runner;
  const Removal removal = {{0, 3}, {}, {1}};
  const Proof proof = prove(model, *dependencies, removal, &runner);
  CHECK(proof.removal == removal);
  CHECK(proof.failures.empty());
  CHECK(proof.trials == 1);
  CHECK(proof.error <= kProofTolerance);
  CHECK(proof.effect > 0.01);
  CHECK(proof.weak == "");
}

TEST_CASE("The group at fault is found and taken out") {
  const Model model = with_weights(kChain);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 3);
  Spoiling runner("wb", 5);  // wrong whenever one unit of group b is gone
  const Proof proof = prove(model, *dependencies, {{0, 1}, {2}, {3}}, &runner);
  REQUIRE(proof.failures.size() == 1);
  CHECK(proof.failures[0].group == 1);
  CHECK(proof.failures[0].reason.contains("outputs differ by"));
  CHECK(proof.removal == Removal{{0, 1}, {}, {3}});
  CHECK(proof.error <= kProofTolerance);
}

TEST_CASE("A model that is wrong whatever goes loses everything") {
  const Model model = with_weights(kChain);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  class Wrong : public EngineRunner {
   public:
    Result<std::vector<Tensor>> run(const Model& narrow, std::span<const NamedTensor> inputs) override {
      if (++count > 1 && count % 2 == 0) return fail(Code::engine, "boom");
      return EngineRunner::run(narrow, inputs);
    }
    int count = 0;
  } runner;
  const Proof proof = prove(model, *dependencies, {{0}, {0}, {0}}, &runner);
  CHECK(proof.failures.size() == 3);
  CHECK(proof.failures[2].reason.contains("boom"));
  CHECK(proof.removal == Removal{{}, {}, {}});
}

TEST_CASE("Without an engine, or with inputs that cannot be invented, nothing is proven") {
  const Model model = with_weights(kChain);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  const Proof proof = prove(model, *dependencies, {{0}, {}, {}}, nullptr);
  CHECK(proof.unproven == "no engine");
  CHECK(proof.removal == Removal{{0}, {}, {}});
}

TEST_CASE("A removal that changes nothing is said to prove little") {
  const Model model = with_weights(HEAD R"(
g (float[2,4] x) => (float[2,3] y) <float[4,6] wa, float[6,3] wb>
{ a = MatMul(x, wa)  b = MatMul(a, wb)  c = Sub(b, b)  y = Exp(c) })");
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 1);
  EngineRunner runner;
  CHECK(prove(model, *dependencies, {{0}}, &runner).weak.contains("do not depend"));
}

TEST_CASE("A corrupted list of what is kept does not compute the same") {
  const Model model = with_weights(kChain);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  KeptAxes kept = kept_axes(*dependencies, {{0}, {}, {}});
  kept.set({"wb", "b", 1 - 0}, 0, {0, 2, 3, 4, 5});  // the producer lost unit 0, this reader loses unit 1
  Model narrow = model.clone(), blank = model.clone();
  REQUIRE(remove_units(narrow, narrow.main(), kept, 1));
  REQUIRE(blank_units(blank, blank.main(), kept_axes(*dependencies, {{0}, {}, {}}), 1));
  EngineRunner runner;
  const auto run = run_randomly(blank, runner, 0);
  REQUIRE(run);
  const auto other = runner.run(narrow, run->inputs);
  REQUIRE(other);
  CHECK(distance(run->outputs, *other) > 0.01);
}

TEST_CASE("A wrong rule is caught: what is read is not what was tied") {
  const auto model_of = [](std::string order) {
    return with_weights(HEAD
                        "g (float[2,4] x) => (float[2,3] y) <float[4,6] wa, float[4,6] wb, float[12,3] wc> "
                        "{ a = MatMul(x, wa)  b = MatMul(x, wb)  j = Concat<axis = 1>(" +
                        order + ")  y = MatMul(j, wc) }");
  };
  const Model assumed = model_of("a, b"), real = model_of("b, a");
  auto dependencies = DependencyGraph::analyze(assumed.main());
  REQUIRE(dependencies);
  REQUIRE(dependencies->groups().size() == 2);
  EngineRunner runner;
  const Proof proof = prove(real, *dependencies, {{0}, {3}}, &runner);
  REQUIRE(proof.failures.size() == 2);
  CHECK(proof.failures[0].group == 0);
  CHECK(proof.failures[0].reason.contains("outputs differ by"));
  CHECK(proof.removal == Removal{{}, {}});
  CHECK(prove(assumed, *dependencies, {{0}, {3}}, &runner).failures.empty());
}

TEST_CASE("A division by what is silent is no failure") {
  require_narrow(HEAD R"(
g (float[2,4] x) => (float[2,3] y) <float[4,6] wa, float[4,6] wb, float[6,3] wc>
{ a = MatMul(x, wa)  b = MatMul(x, wb)  q = Mul(b, b)  c = Div(a, q)  y = MatMul(c, wc) })");
}

TEST_CASE("Norms over what is left") {
  const DependencyOptions normalized{.allow_normalized = true};
  require_narrow(HEAD R"(
g (float[2,3,4] x) => (float[2,3,3] y) <float[4,6] wa, float[6] s, float[6] b, float[6,3] wb>
{ a = MatMul(x, wa)  n = LayerNormalization(a, s, b)  y = MatMul(n, wb) })",
                 normalized);
  require_narrow(HEAD R"(
g (float[2,3,4] x) => (float[2,3,3] y) <float[4,6] wa, float[6] s, float[6,3] wb, float two = {2}, float eps = {0.01}>
{ a = MatMul(x, wa)  m = ReduceMean<axes = [-1]>(a)  d = Sub(a, m)  p = Pow(d, two)  v = ReduceMean<axes = [-1]>(p)
  e = Add(v, eps)  q = Sqrt(e)  n = Div(d, q)  g = Mul(n, s)  y = MatMul(g, wb) })",
                 normalized);
}

TEST_CASE("Quantized weights are silent at their zero point") {
  const char* const text = HEAD R"(
g (float[2,4] x) => (float[2,3] y)
<float[4,6] wa, uint8[6,3] q = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18}, float s = {0.1}, uint8 z = {9}>
{ a = MatMul(x, wa)  w = DequantizeLinear(q, s, z)  y = MatMul(a, w) })";
  const Model narrow = require_narrow(text);
  CHECK(dims_of(narrow, "q") == Dims{4, 3});
}

TEST_CASE("Random inputs: free dimensions get sizes the model runs with") {
  EngineRunner runner;
  SECTION("equal symbols are equal") {
    const Model model = parse(HEAD "g (float[N,T,2] a, float[N,T,2] b) => (float[N,T,2] y) { y = Add(a, b) }");
    const auto run = run_randomly(model, runner, 0);
    REQUIRE(run);
    CHECK(run->inputs[0].tensor.dims() == Dims{1, 8, 2});
    CHECK(run->inputs[1].tensor.dims() == Dims{1, 8, 2});
  }
  SECTION("a state whose free dimension is the batch") {
    const Model model =
        parse(HEAD
              "g (float[B,1,T] x, float[2,K,4] s) => (float[1,2,4] y) <int64[1] one = {1}> "
              "{ p = MaxPool<kernel_shape = [16]>(x)  r = ReduceMax(p)  q = Squeeze(s, one)  y = Add(q, r) }");
    const auto run = run_randomly(model, runner, 0);
    REQUIRE(run);
    CHECK(run->inputs[0].tensor.dims() == Dims{1, 1, 64});
    CHECK(run->inputs[1].tensor.dims() == Dims{2, 1, 4});
  }
  SECTION("no size fits") {
    const Model model = parse(HEAD "g (float[3] a, float[4] b) => (float[n] y) { y = Add(a, b) }");
    CHECK_FALSE(run_randomly(model, runner, 0));
  }
  SECTION("images of at least 16 rows") {
    const Model model =
        parse(HEAD "g (float[N,1,H,W] x) => (float[N,1,h,w] y) { y = MaxPool<kernel_shape=[16,16]>(x) }");
    const auto run = run_randomly(model, runner, 0);
    REQUIRE(run);
    CHECK(run->inputs[0].tensor.dims() == Dims{1, 1, 64, 64});
  }
  SECTION("integers and flags") {
    const Model model =
        parse(HEAD "g (int32[3] i, bool[3] f) => (int32[3] y) { n = Not(f) c = Cast<to = 6>(n) y = Add(i, c) }");
    const auto run = run_randomly(model, runner, 0);
    REQUIRE(run);
    for (const std::int32_t value : run->inputs[0].tensor.as<std::int32_t>()) CHECK((value == 0 || value == 1));
  }
}

TEST_CASE("Both branches behind a number or a flag are proven") {
  const char* const branches = R"(
{ c = CONDITION
  y = If(c) <
    then_branch = t () => (float[1,1] a) { p = MatMul(x, w)  r = Relu(p)  a = MatMul(r, v) },
    else_branch = e () => (float[1,1] b) { q = MatMul(x, w)  b = MatMul(q, v) }> })";
  const auto model_of = [&](std::string input, std::string condition) {
    std::string body = branches;
    body.replace(body.find("CONDITION"), 9, condition);
    return parse(HEAD "g (float[1,2] x, " + input + " s) => (float[1,1] y) <int64 rate = {16000}, " +
                 "float[2,3] w = {1,2,3,4,5,6}, float[3,1] v = {1,-1,2}>" + body);
  };
  EngineRunner runner;
  for (const auto& [input, condition] : {std::pair("int64", "Equal(s, rate)"), std::pair("bool", "Not(s)")}) {
    const Model model = model_of(input, condition);
    for (const std::size_t scope : {1UZ, 2UZ}) {
      CAPTURE(input, scope);
      const Graph& body = *model.graphs()[scope];
      auto dependencies = DependencyGraph::analyze(body);
      REQUIRE(dependencies);
      PassContext context;
      context.runner = &runner;
      const auto proof = prove_removal(model, body, *dependencies, {{1}}, context);
      REQUIRE(proof);
      CHECK(proof->failures.empty());
      CHECK(proof->weak == "");
    }
  }
}

TEST_CASE("A model that does not fit into the memory limit twice is not copied") {
  const Model model = with_weights(kChain);
  auto dependencies = DependencyGraph::analyze(model.main());
  REQUIRE(dependencies);
  EngineRunner runner;
  PassContext context;
  context.runner = &runner;
  context.memory_limit = 64;
  const auto proof = prove_removal(model, model.main(), *dependencies, {{0}, {}, {}}, context);
  REQUIRE(proof);
  CHECK(proof->unproven.contains("memory limit"));
}

TEST_CASE("Distance of results") {
  const auto floats = [](std::vector<float> values) {
    return std::vector{Tensor::of_floats({static_cast<std::int64_t>(values.size())}, values)};
  };
  CHECK(distance(floats({1, 2}), floats({1, 2})) == 0);
  CHECK(distance(floats({1, 4}), floats({1, 3})) == 0.25);
  CHECK(distance(floats({0, 0}), floats({0, 1e-9F})) == std::numeric_limits<double>::infinity());
  CHECK(distance(floats({1}), floats({1, 2})) == std::numeric_limits<double>::infinity());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(distance(floats({nan, 1}), floats({nan, 1})) == 0);
  CHECK(distance(floats({nan, 1}), floats({0, 1})) == std::numeric_limits<double>::infinity());
  const std::vector a{Tensor::of_int64s({2}, std::vector<std::int64_t>{1, 2})};
  const std::vector b{Tensor::of_int64s({2}, std::vector<std::int64_t>{1, 3})};
  CHECK(distance(a, b) == 0.5);
}
