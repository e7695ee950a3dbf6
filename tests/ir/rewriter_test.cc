#include "ir/rewriter.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

namespace onnxpress {
namespace {

using testing::dump;
using testing::parse;

bool commit(Rewriter& rewriter) {
  auto changed = rewriter.commit();
  REQUIRE(changed);
  return *changed;
}

TEST_CASE("insertions keep their order around the anchor") {
  Model model = parse(HEAD "g (float[N] x) => (float[N] y) { a = Relu(x)  y = Neg(a) }");
  Graph& graph = model.main();
  const Node neg = graph.producer("y");
  Rewriter rewriter(graph);
  rewriter.insert_before(neg, {"Abs", {"a"}, {"b"}});
  const Node exp = rewriter.insert_before(neg, {"Exp", {"b"}, {"c"}});
  rewriter.insert_after(exp, {"Log", {"c"}, {"d"}});
  rewriter.set_input(neg, 0, "d");
  CHECK(graph.nodes().size() == 2);  // nothing is visible before commit
  CHECK(commit(rewriter));
  CHECK(dump(model) == dump(parse(HEAD R"(g (float[N] x) => (float[N] y)
    { a = Relu(x) b = Abs(a) c = Exp(b) d = Log(c) y = Neg(d) })")));
}

TEST_CASE("replace_uses follows captures and resolves chains") {
  Model model = parse(HEAD R"(g (bool c, float[N] x) => (float[N] y)
    { i = Identity(x) j = Identity(i) y = If(c) <then_branch = t () => (float[N] a) { a = Relu(j) },
                                            else_branch = e () => (float[N] b) { b = Neg(i) }> })");
  Graph& graph = model.main();
  Rewriter rewriter(graph);
  CHECK(rewriter.replace_uses("j", "i"));
  CHECK(rewriter.replace_uses("i", "x"));
  rewriter.erase(graph.producer("j"));
  rewriter.erase(graph.producer("i"));
  CHECK(commit(rewriter));
  CHECK(dump(model) == dump(parse(HEAD R"(g (bool c, float[N] x) => (float[N] y)
    { y = If(c) <then_branch = t () => (float[N] a) { a = Relu(x) }, else_branch = e () => (float[N] b) { b = Neg(x) }> })")));
}

TEST_CASE("replace_uses refuses graph outputs and shadowed names") {
  Model model = parse(HEAD R"(g (bool c, float[N] x) => (float[N] y, float[N] i)
    { i = Identity(x) j = Neg(x) y = If(c) <then_branch = t () => (float[N] a) { k = Abs(j) a = Relu(k) },
                                     else_branch = e () => (float[N] b) { b = Neg(x) }> })");
  Rewriter rewriter(model.main());
  CHECK_FALSE(rewriter.replace_uses("i", "x"));
  CHECK_FALSE(rewriter.replace_uses("j", "k"));
  CHECK_FALSE(commit(rewriter));
}

TEST_CASE("fresh names avoid every scope and are deterministic") {
  Model model = parse(HEAD R"(g (bool c, float[N] x) => (float[N] y)
    { y = If(c) <then_branch = t () => (float[N] q) { q = Relu(x) }, else_branch = e () => (float[N] q_1) { q_1 = Neg(x) }> })");
  Rewriter rewriter(model.main());
  CHECK(rewriter.fresh_value("q") == "q_2");
  CHECK(rewriter.fresh_value("q") == "q_3");
  CHECK(rewriter.fresh_value("z") == "z");
  CHECK(rewriter.fresh_node("n") == "n");
}

TEST_CASE("initializers are added, replaced and removed; large ones go to the store") {
  Model model = parse(HEAD "g (float[N] x) => (float[N] y) <float[1] w = {2.0}> { y = Mul(x, w) }");
  Graph& graph = model.main();
  const std::vector<float> many(1000, 0.5F);
  {
    Rewriter rewriter(graph);
    rewriter.add_initializer("big", Tensor::of_floats({1000}, many));
    rewriter.set_initializer(graph.initializer("w"), Tensor::scalar<std::int64_t>(DType::i64, 7));
    CHECK(commit(rewriter));
  }
  CHECK(graph.initializer("w").dtype() == DType::i64);
  CHECK(graph.initializer("w").dims().empty());
  CHECK(graph.initializer("big").bytes() == 4000);
  CHECK((*graph.initializer("big").read()).as<float>()[999] == 0.5F);
  Rewriter rewriter(graph);
  rewriter.remove_initializer(graph.initializer("big"));
  CHECK(commit(rewriter));
  CHECK_FALSE(graph.initializer("big"));
}

TEST_CASE("up to IR 3 an added initializer is declared as an input") {
  Model model = parse(R"(<ir_version: 3, opset_import: ["": 8]> g (float[2] x) => (float[2] y) { y = Relu(x) })");
  Rewriter rewriter(model.main());
  rewriter.add_initializer("w", Tensor::scalar<float>(DType::f32, 1));
  CHECK(commit(rewriter));
  CHECK(model.main().is_input("w"));
  Rewriter undo(model.main());
  undo.remove_initializer(model.main().initializer("w"));
  CHECK(commit(undo));
  CHECK_FALSE(model.main().is_input("w"));
}

TEST_CASE("attributes are set, replaced and removed; set_op clears them") {
  Model model = parse(HEAD "g (float[N, 4] x) => (float[N, 4] y) { y = Softmax <axis: int = 1> (x) }");
  const Node node = model.main().nodes()[0];
  Rewriter rewriter(model.main());
  rewriter.set_attribute(node, "axis", std::int64_t{-1});
  rewriter.set_attribute(node, "note", std::string("text"));
  commit(rewriter);
  CHECK(node.attr_int("axis", 0) == -1);
  CHECK(node.attr_string("note", "") == "text");
  Rewriter second(model.main());
  second.remove_attribute(node, "note");
  second.set_op(node, "Relu");
  commit(second);
  CHECK(node.op() == "Relu");
  CHECK(node.attr_names().empty());
}

TEST_CASE("spilled payloads read back the same") {
  const testing::TempDir folder;
  Model model = parse(HEAD "g (float[N] x) => (float[N] y) { y = Relu(x) }");
  model.store().spill_to(folder.path(), 8000);
  Rewriter rewriter(model.main());
  for (int i = 0; i < 5; ++i)
    rewriter.add_initializer(fmt::format("w{}", i),
                             Tensor::of_floats({1000}, std::vector<float>(1000, static_cast<float>(i))));
  commit(rewriter);
  for (int i = 0; i < 5; ++i)
    CHECK((*model.main().initializer(fmt::format("w{}", i)).read()).as<float>()[500] == static_cast<float>(i));
}

}  // namespace
}  // namespace onnxpress
