#include "engine/optimized_graph.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "../quant/fusion_models.h"
#include "engine/session.h"

namespace onnxpress::testing {
namespace {

std::vector<OptimizedNode> nodes_of_runtime(const Model& model, const OptimizedGraphOptions& options = {}) {
  auto nodes = optimized_nodes(model, options);
  INFO((nodes ? "" : nodes.error().text()));
  REQUIRE(nodes);
  return std::move(*nodes);
}

const OptimizedNode& with_op(const std::vector<OptimizedNode>& nodes, std::string_view op) {
  const auto found = std::ranges::find(nodes, op, &OptimizedNode::op);
  REQUIRE(found != nodes.end());
  return *found;
}

}  // namespace

TEST_CASE("optimized_nodes tells which node a kernel stands for") {
  const Model model = parse(qdq_model(QDQ_IMAGE, QDQ_X QDQ_CW "r = Conv(d, e)" QDQ_Y));
  const std::string before = dump(model);
  const auto nodes = nodes_of_runtime(model);
  const OptimizedNode& conv = with_op(nodes, "QLinearConv");
  CHECK(conv.origin == 3);  // a, d, e, r
  CHECK_FALSE(conv.copy);
  CHECK(conv.outputs == std::vector<std::string>{"f"});
  CHECK(conv.output_types.size() == 1);  // 1.21 writes down no type for the codes between kernels
  CHECK(with_op(nodes, "QuantizeLinear").origin == 0);
  CHECK(nodes.size() == 3);
  CHECK(dump(model) == before);  // names were given to a copy
}

TEST_CASE("optimized_nodes tells copies, merged nodes and what the runtime adds") {
  const Model shared = parse(qdq_model(QDQ_MATRIX, QDQ_X "s = Sin(d) c = Cos(d) y = Sub(s, c)"));
  std::size_t copies = 0;
  for (const OptimizedNode& node : nodes_of_runtime(shared)) copies += node.copy && node.origin == 1;
  CHECK(copies == 1);  // one DequantizeLinear per reader
  const Model gemm =
      parse(qdq_model("(float[3, 2, 4] x) => (float[3, 2, 4] y)", QDQ_X QDQ_W "r = MatMul(d, e) y = Add(r, b)"));
  const auto nodes = nodes_of_runtime(gemm);
  CHECK(with_op(nodes, "QGemm").origin == 3);  // the MatMul
  CHECK_FALSE(with_op(nodes, "Reshape").origin);
}

TEST_CASE("optimized_nodes counts nodes of bodies as Model::graphs() does") {
  const Model model = parse(HEAD
                            "g (float[2] x, bool c) => (float[2] z) { a = Neg(x) z = If(c) <then_branch = t () => "
                            "(float[2] y) { y = Exp(a) }, else_branch = o () => (float[2] n) { n = Sin(a) }> }");
  const auto nodes = nodes_of_runtime(model);
  CHECK(with_op(nodes, "Neg").origin == 0);
  CHECK(with_op(nodes, "If").origin == 1);
  CHECK(with_op(nodes, "Exp").origin == 3 - (model.graphs()[1]->nodes()[0].is("Exp") ? 1 : 0));
  CHECK(with_op(nodes, "Sin").origin == 3 - (model.graphs()[1]->nodes()[0].is("Sin") ? 1 : 0));
}

TEST_CASE("optimized_nodes with int8 activations allowed") {
  const Model model = parse(qdq_model(
      QDQ_IMAGE, "a = QuantizeLinear(x, xs, sz) d = DequantizeLinear(a, xs, sz) " QDQ_CW
                 "r = Conv(d, e) f = QuantizeLinear(r, ss, s0) h = DequantizeLinear(f, ss, s0) y = Sub(h, d)"));
  const auto count = [&](bool allowed) {
    return std::ranges::count(nodes_of_runtime(model, {.int8_activations = allowed}), "QLinearConv",
                              &OptimizedNode::op);
  };
  CHECK(count(true) == 1);
  CHECK(count(false) == 0);
}

TEST_CASE("optimized_nodes agrees with optimized_ops and passes errors on") {
  const Model model = parse(qdq_model(QDQ_MATRIX, QDQ_X QDQ_W "y = MatMul(d, e)"));
  std::size_t total = 0;
  const auto ops = optimized_ops(model);
  REQUIRE(ops);
  for (const auto& [op, count] : *ops) total += count;
  CHECK(nodes_of_runtime(model).size() == total);
  const Model broken = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"no.such\": 1]> g (float[2] x) => (float[2] y) "
      "{ y = no.such.Op(x) }");
  CHECK(optimized_nodes(broken).error().code == Code::engine);
}

}  // namespace onnxpress::testing
