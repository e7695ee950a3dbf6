#include "sparse/sparsity.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "data/files.h"
#include "sparse/mask_file.h"
#include "sparse/weight_scores.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

OptionText one(std::string text) { return {{std::move(text)}, false}; }

std::vector<double> scores(std::vector<float> weights, WeightScore how, std::uint64_t seed = 0) {
  const auto count = static_cast<std::int64_t>(weights.size());
  const auto tensor = weight_scores(Tensor::of_floats({count}, weights), how, seed);
  REQUIRE(tensor);
  return {tensor->as<double>().begin(), tensor->as<double>().end()};
}

}  // namespace

TEST_CASE("N:M is read and written") {
  NmPattern pattern;
  CHECK(print_option(pattern).empty());
  REQUIRE(parse_option(one("2:4"), pattern));
  CHECK((pattern.keep == 2 && pattern.group == 4));
  CHECK(print_option(pattern) == "2:4");
  for (const char* bad :
       {"4:2", "4:4", "0:4", "-1:4", "2", "2:4:8", "a:4", "2:", ":4", "2:4x", "2:99999999999999999999"})
    CHECK_FALSE(parse_option(one(bad), pattern));
  CHECK_FALSE(parse_option({{"2:4"}, true}, pattern));
}

TEST_CASE("shares of layers are read and written, the first that matches counts") {
  LayerShares shares;
  REQUIRE(parse_option({{"op:Gemm=0", "*head*=0.25", "re:.*=0.75"}, true}, shares));
  CHECK(print_option(shares) == "[\"op:Gemm=0\",\"*head*=0.25\",\"re:.*=0.75\"]");
  const Model model = parse(HEAD
                            "g (float[2,2] x, float[2,2] w) => (float[2,2] y) "
                            "{ a = Gemm(x, w) the_head = MatMul(a, w) y = MatMul(the_head, w) }");
  const auto& nodes = model.main().nodes();
  CHECK(shares.of(nodes[0]) == 0.0);
  CHECK(shares.of(nodes[1]) == 0.25);
  CHECK(shares.of(nodes[2]) == 0.75);
  LayerShares none;
  CHECK_FALSE(none.of(nodes[0]));
  for (const char* bad : {"op:Gemm", "op:Gemm=", "op:Gemm=1.5", "op:Gemm=-1", "op:Gemm=nan", "=0.5", "op:=0.5"})
    CHECK_FALSE(parse_option({{bad}, true}, none));
}

TEST_CASE("keep_largest and keep_pattern take the least, the first at ties") {
  std::vector<double> values = {3, 1, 2, 1, 5};
  keep_largest(values, 2);
  CHECK(values == std::vector<double>{3, 0, 2, 0, 5});
  values = {1, 1, 1, 1};
  keep_largest(values, 1);
  CHECK(values == std::vector<double>{0, 1, 1, 1});
  values = {4, 3, 2, 1, 5, 6, 1, 2, 3, 4, 9, 8};
  keep_pattern(values, 6, {.keep = 2, .group = 4});  // two rows of a group of four and one of two
  CHECK(values == std::vector<double>{4, 3, 0, 0, 0, 6, 0, 0, 3, 4, 9, 0});
  values = {0, 3, 0, 1};
  keep_pattern(values, 4, {.keep = 2, .group = 4});
  CHECK(values == std::vector<double>{0, 3, 0, 1});
}

TEST_CASE("scores of weights") {
  const std::vector<float> weights = {1, -2, 0, 3, 2, NAN};
  const double infinite = std::numeric_limits<double>::infinity();
  CHECK(scores(weights, WeightScore::magnitude) == std::vector<double>{1, 2, 0, 3, 2, infinite});
  const auto normalized = scores(weights, WeightScore::normalized);
  CHECK(normalized[1] == Catch::Approx(2 / std::sqrt(18.0)));
  const auto lamp = scores(weights, WeightScore::lamp);
  for (std::size_t i = 0; i < 5; ++i) {
    double tail = 0;
    for (const float w : weights)
      if (std::abs(w) >= std::abs(weights[i])) tail += double{w} * w;
    if (weights[i] != 0) CHECK(lamp[i] == Catch::Approx(double{weights[i]} * weights[i] / tail));
  }
  CHECK((lamp[2] == 0 && lamp[5] == infinite));
  CHECK((scores({1e-40F, 1e30F}, WeightScore::lamp)[0] > 0));
  const std::vector<float> many(1000, 1.0F);
  const auto random = scores(many, WeightScore::random, 1);
  CHECK(random == scores(many, WeightScore::random, 1));
  CHECK(random != scores(many, WeightScore::random, 2));
  CHECK(std::ranges::all_of(random, [](double s) { return s > 0 && s <= 1; }));
  CHECK(std::ranges::count_if(random, [](double s) { return s < 0.5; }) > 400);
  CHECK(scores({0, 1}, WeightScore::random)[0] == 0);
}

TEST_CASE("a mask file is read by the name of the weight") {
  const TempDir folder;
  const std::string path = folder.path("masks.npz");
  write_zip(path, {{"W.npy", npy("|b1", "(2, 2)", std::string("\1\0\1\1", 4))},
                   {"/layer/V.npy", npy("<f4", "(1,)", raw<float>({0.0F}))}});
  const std::vector<std::string> names = {"W", "/layer/V", "other"};
  auto masks = MaskFile::open(path, names);
  REQUIRE(masks);
  CHECK(masks->has("W"));
  CHECK_FALSE(masks->has("other"));
  CHECK(masks->read("W", {2, 2}).value() == std::vector<bool>{true, false, true, true});
  CHECK(masks->read("/layer/V", {1}).value() == std::vector<bool>{false});
  const auto shape = masks->read("W", {4});
  REQUIRE_FALSE(shape);
  CHECK(shape.error().text().find("[2, 2]") != std::string::npos);
  const std::vector<std::string> others = {"W", "/layer/V1"};
  const auto unknown = MaskFile::open(path, others);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().text().find("did you mean '/layer/V1'") != std::string::npos);
  CHECK_FALSE(MaskFile::open(folder.path("none.npz"), names));
}

}  // namespace onnxpress::testing
