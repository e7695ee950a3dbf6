#include "support/numeric.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "engine/session.h"
#include "support/models.h"

namespace onnxpress::testing {

std::string float_tensor(std::string_view name, const Dims& dims, unsigned seed, float scale) {
  std::vector<float> values = random_floats(element_count(dims).value(), seed);
  for (float& value : values) value *= scale;
  return fmt::format("float[{}] {} = {{{}}}", fmt::join(dims, ", "), name, fmt::join(values, ", "));
}

Batch random_batch(std::string_view input, const Dims& dims, unsigned seed) {
  Batch batch;
  batch.inputs.push_back(
      {std::string(input), Tensor::of_floats(dims, random_floats(element_count(dims).value(), seed))});
  return batch;
}

std::vector<Tensor> run_on(const Model& model, const Batch& batch) {
  auto session = Session::open(model);
  INFO((session ? "" : session.error().text()));
  REQUIRE(session);
  auto outputs = (*session)->run(batch.inputs);
  INFO((outputs ? "" : outputs.error().text()));
  REQUIRE(outputs);
  return std::move(*outputs);
}

double sqnr_db(const std::vector<Tensor>& expected, const std::vector<Tensor>& got) {
  REQUIRE(expected.size() == got.size());
  double worst = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(expected[i].dims() == got[i].dims());
    const auto a = expected[i].as<float>(), b = got[i].as<float>();
    double signal = 0, noise = 0;
    for (std::size_t k = 0; k < a.size(); ++k) {
      signal += double{a[k]} * a[k];
      noise += (double{a[k]} - b[k]) * (double{a[k]} - b[k]);
    }
    if (noise > 0) worst = std::min(worst, 10 * std::log10(signal / noise));
  }
  return worst;
}

OpCounts ops_of(const Model& model) {
  OpCounts ops;
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes())
      ++ops[node.domain().empty() ? std::string(node.op()) : fmt::format("{}.{}", node.domain(), node.op())];
  return ops;
}

OpCounts runtime_ops(const Model& model) {
  auto ops = optimized_ops(model);
  INFO((ops ? "" : ops.error().text()));
  REQUIRE(ops);
  return *ops;
}

std::size_t count(const OpCounts& ops, const std::string& op) {
  const auto found = ops.find(op);
  return found == ops.end() ? 0 : found->second;
}

std::string text(const OpCounts& ops) { return fmt::format("{}", ops); }

std::vector<Node> nodes_of(const Model& model, std::string_view op) {
  std::vector<Node> found;
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes())
      if (node.op() == op) found.push_back(node);
  return found;
}

}  // namespace onnxpress::testing
