#include "prune/unit_cost.h"

#include <catch2/catch_test_macros.hpp>

#include "prune/unit_select.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

const Node& at(const Model& model, std::size_t i) { return model.main().nodes()[i]; }

GroupMember member(const TensorRef& tensor, std::size_t axis, Indices indices, std::size_t per_unit = 1) {
  return {tensor, axis, AxisRole::follows, per_unit, std::move(indices)};
}

}  // namespace

TEST_CASE("MACs and parameters of a plan are those of the smaller network") {
  const Model model = parse(HEAD
                            "g (float[1,3,8,8] x) => (float[1,5,8,8] y) <float[4,3,1,1] w1 = {1,1,1,1,1,1,1,1,1,1,1,1},"
                            " float[4] b1 = {1,1,1,1}, float[5,4,1,1] w2 = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1},"
                            " int64[4] shape = {1,5,8,8}>"
                            "{ h = Conv(x, w1, b1)  z = Conv(h, w2)  y = Reshape(z, shape) }");
  const Node conv1 = at(model, 0), conv2 = at(model, 1);
  const UnitGroup group{"conv",
                        UnitKind::channels,
                        4,
                        1,
                        "",
                        {member(input_ref(conv1, 1), 0, {0, 1, 2, 3}), member(input_ref(conv1, 2), 0, {0, 1, 2, 3}),
                         member(input_ref(conv2, 1), 1, {0, 1, 2, 3}), member(output_ref(conv1, 0), 1, {0, 1, 2, 3})}};
  const PlanCost cost(model, {{&model.main(), &group}});
  CHECK(cost.macs(Counts{4}) == 64 * (3 * 4 + 4 * 5));
  CHECK(cost.macs(Counts{1}) == 64 * (3 + 5));
  CHECK(cost.parameters(Counts{4}) == 12 + 4 + 20);  // shapes are no parameters
  CHECK(cost.parameters(Counts{3}) == 9 + 3 + 15);
  CHECK(PlanCost(model, {}).macs({}) == 64 * 32);
}

TEST_CASE("A shared constant counts once while its readers cut it alike, and once for each other way") {
  const Model model = parse(HEAD
                            "g (float[1,2] x) => (float[1,2] y, float[1,2] z, float[1,2] u)"
                            " <float[2,2] w = {1,2,3,4}>"
                            "{ y = MatMul(x, w)  z = MatMul(x, w)  u = MatMul(x, w) }");
  const TensorRef first = input_ref(at(model, 0), 1), second = input_ref(at(model, 1), 1),
                  third = input_ref(at(model, 2), 1);
  const auto group = [&](std::vector<GroupMember> members) {
    return UnitGroup{"g", UnitKind::neurons, 2, 1, "", std::move(members)};
  };
  const UnitGroup all = group({member(first, 1, {0, 1}), member(second, 1, {0, 1}), member(third, 1, {0, 1})});
  CHECK(PlanCost(model, {{&model.main(), &all}}).parameters(Counts{1}) == 2);
  const UnitGroup one = group({member(first, 1, {0, 1})}), other = group({member(second, 1, {0, 1})});
  // Cut for the first, cut otherwise for the second, whole for the third.
  const PlanCost two(model, {{&model.main(), &one}, {&model.main(), &other}});
  CHECK(two.parameters(Counts{1, 1}) == 2 + 2 + 4);
  CHECK(two.parameters(Counts{1, 2}) == 2 + 4);
  CHECK(two.parameters(Counts{2, 2}) == 4);
}

TEST_CASE("Units that own several indices, and nodes that have no MACs") {
  const Model model =
      parse(HEAD
            "g (float[1,4] x) => (float[1,4] y) <float[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}>"
            "{ a = MatMul(x, w)  y = Relu(a) }");
  const UnitGroup group{
      "g",
      UnitKind::neurons,
      2,
      2,
      "",
      {member(input_ref(at(model, 0), 1), 1, {0, 2, 1, 3}, 2), member(output_ref(at(model, 0), 0), 1, {0, 2, 1, 3}, 2)}};
  const PlanCost cost(model, {{&model.main(), &group}});
  CHECK(cost.macs(Counts{1}) == 8);
  CHECK(cost.parameters(Counts{1}) == 8);
}

TEST_CASE("Bytes of constants grow with their number and names, not only with their elements") {
  const Model one = parse(HEAD "g (float[2] x) => (float[2] y) <float[2] w = {1,2}> { y = Add(x, w) }");
  const Model two = parse(HEAD
                          "g (float[2] x) => (float[2] y) <float[1] w = {1}, float[1] w2 = {1}> "
                          "{ a = Add(x, w) y = Add(a, w2) }");
  CHECK(constant_bytes(two) > constant_bytes(one));
}

}  // namespace onnxpress::testing
