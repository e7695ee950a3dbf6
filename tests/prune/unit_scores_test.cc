#include "prune/unit_scores.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <map>
#include <numeric>

#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Approx;
using Criterion = StructuredOptions::Criterion;
using Doubles = std::vector<double>;

TensorRef constant(const std::string& name) { return {name, "reader of " + name, 1}; }

GroupMember member(const std::string& name, std::size_t axis, AxisRole role, Indices indices,
                   std::size_t per_unit = 1) {
  return {constant(name), axis, role, per_unit, std::move(indices)};
}

UnitGroup group_of(std::size_t units, std::vector<GroupMember> members, std::string name = "conv") {
  return {std::move(name), UnitKind::channels, units, 1, "", std::move(members)};
}

// Constants given in the test; counts how often each is read.
struct Constants {
  std::map<std::string, Tensor> tensors;
  mutable std::map<std::string, int> reads;

  ConstantReader reader() const {
    return [this](const TensorRef& ref) -> Result<Tensor> {
      ++reads[ref.value];
      return tensors.at(ref.value);
    };
  }
};

Doubles scores_of(const UnitGroup& group, const Constants& constants, Criterion criterion,
                  std::string* note = nullptr) {
  auto scores = weight_scores({&group}, constants.reader(), {.criterion = criterion, .jobs = 1});
  REQUIRE(scores);
  REQUIRE(scores->size() == 1);
  if (note != nullptr) *note = scores->front().note;
  return scores->front().of_unit;
}

// The slice of one index, element by element.
Doubles slice(const Tensor& tensor, std::size_t axis, std::size_t index) {
  Doubles values;
  const auto w = tensor.as<float>();
  std::size_t inner = 1;
  for (std::size_t a = axis + 1; a < tensor.dims().size(); ++a) inner *= static_cast<std::size_t>(tensor.dims()[a]);
  const auto size = static_cast<std::size_t>(tensor.dims()[axis]);
  for (std::size_t i = 0; i < w.size(); ++i)
    if (i / inner % size == index) values.push_back(static_cast<double>(w[i]));
  return values;
}

double norm(const Doubles& values, int p) {
  double sum = 0;
  for (const double v : values) sum += p == 1 ? std::abs(v) : v * v;
  return p == 1 ? sum : std::sqrt(sum);
}

Doubles by_mean(Doubles values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  for (double& value : values) value /= mean;
  return values;
}

void check_equal(const Doubles& a, const Doubles& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-6));
}

}  // namespace

TEST_CASE("Norms of slices, against sums element by element") {
  Constants constants;
  constants.tensors["w1"] = Tensor::of_floats({3, 2, 2}, random_floats(12, 1));
  constants.tensors["w2"] = Tensor::of_floats({4, 3, 3}, random_floats(36, 2));
  const UnitGroup group =
      group_of(3, {member("w1", 0, AxisRole::produces, {0, 1, 2}), member("w2", 1, AxisRole::consumes, {0, 1, 2})});
  Doubles made1, made2, read2;
  for (std::size_t u = 0; u < 3; ++u) {
    made1.push_back(norm(slice(constants.tensors["w1"], 0, u), 1));
    made2.push_back(norm(slice(constants.tensors["w1"], 0, u), 2));
    read2.push_back(norm(slice(constants.tensors["w2"], 1, u), 2));
  }
  check_equal(scores_of(group, constants, Criterion::l1), by_mean(made1));
  check_equal(scores_of(group, constants, Criterion::l2), by_mean(made2));
  Doubles both = by_mean(made2);
  const Doubles read = by_mean(read2);
  for (std::size_t u = 0; u < 3; ++u) both[u] += read[u];
  check_equal(scores_of(group, constants, Criterion::group_l2), by_mean(both));
}

TEST_CASE("A large tensor counts no more than a small one") {
  Constants constants;
  constants.tensors["small"] = Tensor::of_floats({2, 1}, std::vector<float>{1, 3});
  constants.tensors["large"] = Tensor::of_floats({2, 1}, std::vector<float>{3000, 1000});
  const UnitGroup group =
      group_of(2, {member("small", 0, AxisRole::produces, {0, 1}), member("large", 0, AxisRole::produces, {0, 1})});
  check_equal(scores_of(group, constants, Criterion::l2), {1, 1});
}

TEST_CASE("A unit that owns several indices of an axis is seen once, with all of them") {
  Constants constants;
  constants.tensors["w"] = Tensor::of_floats({4, 2}, std::vector<float>{3, 0, 0, 1, 0, 4, 1, 0});
  // Unit 0 owns rows 0 and 2, unit 1 rows 1 and 3.
  const UnitGroup group = group_of(2, {member("w", 0, AxisRole::produces, {0, 2, 1, 3}, 2)});
  check_equal(scores_of(group, constants, Criterion::l2), by_mean({5, std::sqrt(2.0)}));
  check_equal(scores_of(group, constants, Criterion::l1), by_mean({7, 2}));
}

TEST_CASE("Part of an axis can be a group, and one constant serves several groups with one read") {
  Constants constants;
  constants.tensors["w"] = Tensor::of_floats({4, 1}, std::vector<float>{1, 2, 3, 5});
  const UnitGroup first = group_of(2, {member("w", 0, AxisRole::produces, {0, 1})}, "a");
  const UnitGroup second = group_of(2, {member("w", 0, AxisRole::produces, {2, 3})}, "b");
  const auto scores = weight_scores({&first, &second}, constants.reader(), {.criterion = Criterion::l1, .jobs = 2});
  REQUIRE(scores);
  check_equal((*scores)[0].of_unit, by_mean({1, 2}));
  check_equal((*scores)[1].of_unit, by_mean({3, 5}));
  CHECK(constants.reads["w"] == 1);
}

TEST_CASE("bn_gamma looks at scales, and at weights where there are none") {
  Constants constants;
  constants.tensors["w"] = Tensor::of_floats({3, 1}, std::vector<float>{1, 2, 3});
  constants.tensors["gamma"] = Tensor::of_floats({3}, std::vector<float>{-4, 1, 1});
  std::string note;
  const UnitGroup with =
      group_of(3, {member("w", 0, AxisRole::produces, {0, 1, 2}), member("gamma", 0, AxisRole::scales, {0, 1, 2})});
  check_equal(scores_of(with, constants, Criterion::bn_gamma, &note), {2, 0.5, 0.5});
  CHECK(note.empty());
  const UnitGroup without = group_of(3, {member("w", 0, AxisRole::produces, {0, 1, 2})});
  check_equal(scores_of(without, constants, Criterion::bn_gamma, &note), {0.5, 1, 1.5});
  CHECK(note == "no normalization scales its units: by l2");
}

TEST_CASE("fpgm is the sum of distances to the other slices") {
  Constants constants;
  constants.tensors["w"] = Tensor::of_floats({4, 5}, random_floats(20, 7));
  const UnitGroup group = group_of(4, {member("w", 0, AxisRole::produces, {0, 1, 2, 3})});
  Doubles expected(4);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j) {
      Doubles a = slice(constants.tensors["w"], 0, i);
      const Doubles b = slice(constants.tensors["w"], 0, j);
      for (std::size_t k = 0; k < a.size(); ++k) a[k] -= b[k];
      expected[i] += norm(a, 2);
    }
  check_equal(scores_of(group, constants, Criterion::fpgm), by_mean(expected));
}

TEST_CASE("Random scores depend on the seed and the name of the group, not on other groups") {
  const UnitGroup a = group_of(8, {}, "a"), b = group_of(8, {}, "b");
  const Constants none;
  const auto score = [&](const GroupList& groups, std::uint64_t seed) {
    auto scores = weight_scores(groups, none.reader(), {.criterion = Criterion::random, .seed = seed});
    REQUIRE(scores);
    return std::move(*scores);
  };
  const auto both = score({&a, &b}, 1);
  CHECK(both[1].of_unit == score({&b}, 1)[0].of_unit);
  CHECK(both[0].of_unit != both[1].of_unit);
  CHECK(both[0].of_unit != score({&a}, 2)[0].of_unit);
}

TEST_CASE("Half precision, weights that are not finite, units without weights") {
  Constants constants;
  constants.tensors["half"] =
      Tensor::of<std::uint16_t>(DType::f16, {2, 1}, std::vector<std::uint16_t>{float_to_half(1), float_to_half(3)});
  check_equal(scores_of(group_of(2, {member("half", 0, AxisRole::produces, {0, 1})}), constants, Criterion::l2),
              {0.5, 1.5});
  constants.tensors["bad"] = Tensor::of_floats({2, 1}, std::vector<float>{NAN, 3});
  check_equal(scores_of(group_of(2, {member("bad", 0, AxisRole::produces, {0, 1})}), constants, Criterion::l2), {0, 2});
  std::string note;
  constants.tensors["zero"] = Tensor::of_floats({2, 1}, std::vector<float>{0, 0});
  CHECK(scores_of(group_of(2, {member("zero", 0, AxisRole::produces, {0, 1})}), constants, Criterion::l2) ==
        Doubles{0, 0});
  CHECK(scores_of(group_of(2, {}), constants, Criterion::group_l2, &note) == Doubles{0, 0});
  CHECK(note == "it has no weights: by position");
  constants.tensors["complex"] = Tensor(DType::c64, {2, 1});
  const UnitGroup complex = group_of(2, {member("complex", 0, AxisRole::produces, {0, 1})});
  CHECK_FALSE(weight_scores({&complex}, constants.reader(), {}));
}

TEST_CASE("Scores are the same at any thread count") {
  Constants constants;
  std::vector<UnitGroup> groups;
  for (int i = 0; i < 6; ++i) {
    const std::string name = "w" + std::to_string(i);
    constants.tensors[name] = Tensor::of_floats({5, 30}, random_floats(150, static_cast<unsigned>(i)));
    groups.push_back(group_of(5, {member(name, 0, AxisRole::produces, {0, 1, 2, 3, 4})}, name));
  }
  GroupList list;
  for (const UnitGroup& group : groups) list.push_back(&group);
  const auto tensors = constants.tensors;
  const ConstantReader read = [&](const TensorRef& ref) -> Result<Tensor> { return tensors.at(ref.value); };
  const auto one = weight_scores(list, read, {.jobs = 1}), many = weight_scores(list, read, {.jobs = 8});
  REQUIRE((one && many));
  for (std::size_t g = 0; g < list.size(); ++g) CHECK((*one)[g].of_unit == (*many)[g].of_unit);
}

}  // namespace onnxpress::testing
