#include "calib/levels.h"

#include <catch2/catch_test_macros.hpp>

#include "base/text.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// "a b | c": the first outputs of the nodes of each level.
std::string levels_of(const Model& model, std::string_view op, bool sequential) {
  std::vector<std::string> levels;
  for (const auto& nodes : node_levels(model, [&](const Node& node) { return node.is(op); }, sequential)) {
    std::vector<std::string> names;
    for (const Node& node : nodes) names.emplace_back(node.output(0));
    levels.push_back(join(names, " "));
  }
  return join(levels, " | ");
}

}  // namespace

TEST_CASE("levels follow the longest way through layers") {
  const Model model = parse(HEAD
                            "g (float[2,2] x, float[2,2] w) => (float[2,2] y) { a = MatMul(x, w) b = Relu(a) "
                            "c = MatMul(b, w) d = MatMul(x, w) e = Add(c, d) y = MatMul(e, w) }");
  CHECK(levels_of(model, "MatMul", true) == "a d | c | y");
  CHECK(levels_of(model, "MatMul", false) == "a c d y");
  CHECK(levels_of(model, "Conv", true).empty());
}

TEST_CASE("a layer behind a body comes after all that the body may read") {
  const Model model =
      parse(HEAD
            "g (float[2,2] x, float[2,2] w, bool c) => (float[2,2] y) { a = MatMul(x, w) b = If(c) <"
            "then_branch = t () => (float[2,2] p) { p = Relu(a) }, else_branch = e () => (float[2,2] q) "
            "{ q = Neg(a) }> y = MatMul(b, w) }");
  CHECK(levels_of(model, "MatMul", true) == "a | y");
}

TEST_CASE("groups stay below the budget, with one layer at least") {
  const std::vector<int> sizes = {3, 3, 9, 1, 1, 1};
  std::vector<std::size_t> groups;
  const auto changed = in_groups<int>(
      sizes, 6, [](const int& size) { return static_cast<std::uint64_t>(size); },
      [&](std::span<const int> group) -> Result<bool> {
        groups.push_back(group.size());
        return groups.size() == 2;
      });
  CHECK(changed.value());
  CHECK(groups == std::vector<std::size_t>{2, 1, 3});
  const auto failed = in_groups<int>(
      sizes, 6, [](const int&) { return 1ULL; },
      [](std::span<const int>) -> Result<bool> { return fail(Code::engine, "no"); });
  CHECK_FALSE(failed);
}

}  // namespace onnxpress::testing
