#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "support/journal.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

#define LOCAL "<ir_version: 8, opset_import: [\"\": 17, \"f\": 1]> "
#define FUNCTION "<domain: \"f\", opset_import: [\"\": 17]> "

// The result computes the same, and has no function left.
Model inlined(const std::string& source, const Dims& input) {
  INFO(source);
  Model model = parse(source);
  const Batch batch = random_batch("x", input, 3);
  const auto expected = run_on(model, batch);
  CHECK(run_pipeline(model, "clean-functions").changed);
  CHECK(model.graphs().back()->kind() != Graph::Kind::function);
  const auto got = run_on(model, batch);
  CHECK(std::ranges::equal(got[0].bytes(), expected[0].bytes()));
  CHECK_FALSE(run_pipeline(model, "clean-functions").changed);
  return model;
}

TEST_CASE("clean-functions by hand") {
  const Model model = inlined(LOCAL "g (float[2] x) => (float[2] y) { y = f.twice (x) } " FUNCTION
                                    "twice (a) => (b) { t = Neg (a) b = Sub (a, t) }",
                              {2});
  const auto& nodes = model.main().nodes();
  REQUIRE(nodes.size() == 2);
  CHECK(nodes[0].is("Neg"));
  CHECK(nodes[0].name() == "twice/Neg");
  CHECK(nodes[0].inputs() == std::vector<std::string>{"x"});
  CHECK(nodes[0].outputs() == std::vector<std::string>{"twice/t"});
  CHECK(nodes[1].is("Sub"));
  CHECK(nodes[1].inputs() == std::vector<std::string>{"x", "twice/t"});
  CHECK(nodes[1].outputs() == std::vector<std::string>{"y"});
}

TEST_CASE("clean-functions: several calls, calls inside functions, attributes with and without defaults") {
  const Model two = inlined(LOCAL "g (float[2] x) => (float[2] y) { a = f.twice (x) y = f.twice (a) } " FUNCTION
                                  "twice (a) => (b) { t = Neg (a) b = Sub (a, t) }",
                            {2});
  CHECK(ops_of(two) == OpCounts{{"Neg", 2}, {"Sub", 2}});
  const Model nested = inlined(LOCAL
                               "g (float[2] x) => (float[2] y) { y = f.four (x) } "
                               "<domain: \"f\", opset_import: [\"\": 17, \"f\": 1]> four (a) => (b) { t = f.twice (a) "
                               "b = f.twice (t) } " FUNCTION "twice (a) => (b) { b = Add (a, a) }",
                               {2});
  CHECK(ops_of(nested) == OpCounts{{"Add", 2}});
  inlined(LOCAL "g (float[2, 3] x) => (float[2, 3] y) { y = f.soft <at = 0> (x) } " FUNCTION
                "soft <at> (a) => (b) { b = Softmax <axis: int = @at> (a) }",
          {2, 3});
}

TEST_CASE("clean-functions: outputs nobody takes, outputs that are inputs, names that exist already") {
  inlined(LOCAL "g (float[2] x) => (float[2] y) { y, z = f.two (x) } " FUNCTION
                "two (a) => (b, c) { b = Neg (a) c = Abs (a) }",
          {2});
  // A runtime may refuse this function; inlined it is plain.
  Model passed = parse(LOCAL "g (float[2] x) => (float[2] y) { p, q = f.pass (x) y = Add (p, q) } " FUNCTION
                             "pass (a) => (a, c) { c = Abs (a) }");
  CHECK(run_pipeline(passed, "clean-functions").changed);
  CHECK(ops_of(passed) == OpCounts{{"Abs", 1}, {"Add", 1}, {"Identity", 1}});
  const Batch batch = random_batch("x", {2}, 3);
  const float x = batch.inputs[0].tensor.as<float>()[0];
  CHECK(run_on(passed, batch)[0].as<float>()[0] == x + std::abs(x));
  inlined(LOCAL "g (float[2] x) => (float[2] y) { t = Abs (x) b = f.twice (t) y = Add (b, t) } " FUNCTION
                "twice (a) => (b) { t = Neg (a) b = Sub (a, t) }",
          {2});
}

TEST_CASE("clean-functions: bodies inside functions, calls inside bodies") {
  inlined(LOCAL
          "g (float[2] x) => (float[2] y) <bool c = {1}> { y = f.pick (x, c) } " FUNCTION
          "pick (a, c) => (b) { t = Neg (a) b = If (c) <then_branch = t1 () => (u) { s = Abs (t) u = Add (s, a) }, "
          "else_branch = e1 () => (v) { v = Identity (a) }> }",
          {2});
  inlined(LOCAL
          "g (float[2] x) => (float[2] y) <bool c = {1}> { y = If (c) <then_branch = t1 () => (float[2] u) "
          "{ u = f.twice (x) }, else_branch = e1 () => (float[2] v) { v = Identity (x) }> } " FUNCTION
          "twice (a) => (b) { t = Neg (a) b = Sub (a, t) }",
          {2});
}

TEST_CASE("clean-functions lets passes reach the weights") {
  const std::string source = LOCAL "g (float[2, 4] x) => (float[2, 4] y) { y = f.lin (x) } " FUNCTION
                                   "lin (a) => (b) { w = Constant <value = float[4, 4] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "
                                   "11, 12, 13, 14, 15, 16}> () b = MatMul (a, w) }";
  Model model = parse(source);
  CHECK(run_pipeline(model, "clean-functions,quant-dynamic{min_elements=0}").changed);
  CHECK(count(ops_of(model), "MatMulInteger") == 1);
}

TEST_CASE("clean-functions does not: recursion, other opsets, nodes left out") {
  const std::string other =
      "<ir_version: 8, opset_import: [\"\": 13, \"f\": 1]> g (float[2, 3] x) => (float[2] y) "
      "{ y = f.sum (x) } <domain: \"f\", opset_import: [\"\": 18]> "
      "sum (a) => (b) { b = ReduceMax (a) }";
  Model model = parse(other);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "clean-functions", &context).changed);
  CHECK(skip_reason(context, "sum->y").find("ReduceMax of opset 18") != std::string::npos);
  require_untouched(LOCAL "g (float[2] x) => (float[2] y) { y = f.twice (x) } " FUNCTION
                          "twice (a) => (b) { b = Add (a, a) }",
                    "clean-functions{skip=op:twice}");
  require_untouched(LOCAL "g (float[2] x) => (float[2] y) { y = Neg (x) }", "clean-functions");
}

}  // namespace
}  // namespace onnxpress::testing
