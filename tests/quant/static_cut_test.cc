#include "quant/static_cut.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>

namespace onnxpress {
namespace {

TEST_CASE("static cut: one expensive node pays for its conversions, a cheap one does not") {
  const std::vector<CutValue> values = {{.quantize = 2, .dequantize = 3},
                                        {.quantize = 2, .dequantize = 3, .float_reader = true}};
  CHECK(cheapest_choice({{.real = 10, .integer = 4, .reads = {0}, .makes = {1}}}, values) == std::vector<bool>{true});
  CHECK(cheapest_choice({{.real = 8, .integer = 4, .reads = {0}, .makes = {1}}}, values) == std::vector<bool>{false});
  // A MatMul hands out floats: only the way in counts.
  CHECK(cheapest_choice({{.real = 8, .integer = 4, .reads = {0}, .makes = {1}, .gives_float = true}}, values) ==
        std::vector<bool>{true});
}

TEST_CASE("static cut: nodes in a row share conversions, and a slow one between fast ones goes along") {
  std::vector<CutNode> nodes;
  std::vector<CutValue> values = {{.quantize = 5, .dequantize = 5}};
  for (const double integer : {1.0, 4.0, 1.0}) {
    nodes.push_back({.real = 3, .integer = integer, .reads = {nodes.size()}, .makes = {nodes.size() + 1}});
    values.push_back({.quantize = 5, .dequantize = 5});
  }
  values.back().float_reader = true;
  CHECK(cheapest_choice(nodes, values) == std::vector<bool>{false, false, false});
  for (CutNode& node : nodes) node.real = 6;
  CHECK(cheapest_choice(nodes, values) == std::vector<bool>{true, true, true});
}

TEST_CASE("static cut: what is forbidden is not chosen; of equal choices the integer one is") {
  const std::vector<CutValue> values(2);
  CHECK(cheapest_choice({{.real = 9, .integer = kForbidden, .reads = {0}, .makes = {1}}}, values) ==
        std::vector<bool>{false});
  CHECK(cheapest_choice({{.real = kForbidden, .integer = 9, .reads = {0}, .makes = {1}}}, values) ==
        std::vector<bool>{true});
  CHECK(cheapest_choice({{.real = 9, .integer = 9, .reads = {0}, .makes = {1}}}, values) == std::vector<bool>{true});
  CHECK(cheapest_choice({}, {}).empty());
}

TEST_CASE("static cut: as cheap as the best of all choices") {
  std::mt19937 random(3);
  const auto time = [&](unsigned most) { return static_cast<double>(random() % most); };
  for (int round = 0; round < 300; ++round) {
    const std::size_t count = 1 + random() % 9;
    std::vector<CutValue> values;
    for (std::size_t v = 0; v < count + 2; ++v)
      values.push_back({.quantize = time(6), .dequantize = time(6), .float_reader = random() % 3 == 0});
    std::vector<CutNode> nodes;
    for (std::size_t n = 0; n < count; ++n) {
      CutNode node{.real = time(12), .integer = time(8), .makes = {n + 2}, .gives_float = random() % 4 == 0};
      if (random() % 8 == 0) node.integer = kForbidden;
      for (unsigned input = 1 + random() % 2; input > 0; --input) node.reads.push_back(random() % (n + 2));
      nodes.push_back(node);
    }
    double best = kForbidden;
    for (std::size_t choice = 0; choice < (std::size_t{1} << count); ++choice) {
      std::vector<bool> integer;
      for (std::size_t n = 0; n < count; ++n) integer.push_back((choice >> n & 1) != 0);
      best = std::min(best, choice_time(nodes, values, integer));
    }
    INFO("round " << round);
    CHECK(std::abs(choice_time(nodes, values, cheapest_choice(nodes, values)) - best) < 1e-6);
  }
}

}  // namespace
}  // namespace onnxpress
