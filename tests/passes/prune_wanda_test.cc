#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "num/select.h"
#include "support/coarse.h"
#include "support/journal.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// x [n, 4] -> MatMul -> y [n, 2]; the second input is loud, the last always zero.
constexpr const char* kMatrix =
    HEAD "g (float[n, 4] x) => (float[n, 2] y) <float[4, 2] W = {3, 1, 1, 2, -4, -1, 5, 0.5}> { y = MatMul(x, W) }";

std::vector<Batch> loud_samples() {
  std::vector<Batch> batches;
  for (unsigned n = 0; n < 10; ++n) {
    const auto noise = random_floats(4, n);
    batches.push_back(
        {.inputs = {{"x", Tensor::of_floats({1, 4}, std::vector<float>{noise[0], 10 * noise[1], noise[2], 0})}},
         .labels = {},
         .samples = 1});
  }
  return batches;
}

std::vector<float> floats_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().initializer(name).read();
  REQUIRE(tensor);
  return {tensor->as<float>().begin(), tensor->as<float>().end()};
}

}  // namespace

TEST_CASE("prune-wanda weighs a weight with what it reads, output by output") {
  Model model = parse(kMatrix);
  PassContext context;
  CHECK(repair(model, "prune-wanda{min_elements=0 repair=off}", context, loud_samples()).changed);
  // Output 0: 3, 1 * 10, 4, 5 * 0; output 1: 1, 2 * 10, 1 (a little less or more than input 0), 0.5 * 0.
  const std::vector<float> w = floats_of(model, "W");
  CHECK((w[0] == 0 && w[2] == 1 && w[4] == -4 && w[6] == 0));
  CHECK((w[3] == 2 && w[7] == 0));
  CHECK((w[1] == 0) != (w[5] == 0));

  Model pattern = parse(kMatrix);
  CHECK(repair(pattern, "prune-wanda{min_elements=0 pattern=1:2 repair=off}", context, loud_samples()).changed);
  CHECK(floats_of(pattern, "W") == std::vector<float>{0, 0, 1, 2, -4, -1, 0, 0});
}

TEST_CASE("prune-wanda leaves what is sparse enough, and a second run changes nothing") {
  Model model = parse(kMatrix);
  PassContext context;
  repair(model, "prune-wanda{min_elements=0 repair=off}", context, loud_samples());
  CHECK_FALSE(repair(model, "prune-wanda{min_elements=0 repair=off}", context, loud_samples()).changed);
  CHECK(skip_reason(context, "MatMul->y").find("sparse enough: 50.00 %") != std::string::npos);
}

TEST_CASE("prune-wanda prunes convolutions only when told, one kernel element of a channel like the other") {
  Model untouched = coarse_reference();
  PassContext context;
  repair(untouched, "prune-wanda{min_elements=0 repair=off}", context, smooth_samples(10, 1));
  CHECK(floats_of(untouched, "w1") == floats_of(coarse_reference(), "w1"));
  CHECK(floats_of(untouched, "w3") != floats_of(coarse_reference(), "w3"));
  for (const char* sequential : {"false", "true"}) {
    Model model = coarse_reference();
    const std::string pipeline =
        fmt::format("prune-wanda{{min_elements=0 ops=[Conv] sparsity=0.4 sequential={} repair=off}}", sequential);
    CHECK(repair(model, pipeline, context, smooth_samples(10, 1)).changed);
    CHECK(floats_of(model, "w3") == floats_of(coarse_reference(), "w3"));
    for (const auto& [name, length] : {std::pair("w1", 27), std::pair("w2", 9)}) {
      const auto w = floats_of(model, name);
      for (auto row = w.begin(); row != w.end(); row += length)
        CHECK(std::count(row, row + length, 0.0F) == length * 4 / 10);
    }
    Model parallel = coarse_reference();
    repair(parallel, pipeline, context, smooth_samples(10, 5), 8);
    CHECK(parallel.fingerprint().value() == model.fingerprint().value());
  }
}

TEST_CASE("prune-wanda says what it leaves") {
  Model model = parse(HEAD
                      "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <float[2, 2] W = {1, 2, 3, 4}>"
                      "{ y = MatMul(x, W) z = MatMul(y, W) }");
  PassContext context;
  std::vector<Batch> samples = {random_batch("x", {1, 2}, 1)};
  CHECK_FALSE(repair(model, "prune-wanda{min_elements=0}", context, samples).changed);
  CHECK(skip_reason(context, "MatMul->y").find("also read by MatMul->z") != std::string::npos);
  Model body =
      parse(HEAD
            "g (float[2, 2] x, bool c) => (float[2, 2] y) <float[2, 2] W = {1, 2, 3, 4}> { y = If(c) <"
            "then_branch = t () => (float[2, 2] p) { p = MatMul(x, W) }, else_branch = e () => (float[2, 2] q) "
            "{ q = Identity(x) } > }");
  Batch both = random_batch("x", {2, 2}, 1);
  const bool yes = true;
  both.inputs.push_back({"c", Tensor::scalar<bool>(DType::boolean, yes)});
  CHECK_FALSE(repair(body, "prune-wanda{min_elements=0}", context, {both}).changed);
  CHECK(skip_reason(context, "MatMul->p").find("inside a body") != std::string::npos);
  Model small = parse(kMatrix);
  CHECK_FALSE(repair(small, "prune-wanda", context, loud_samples()).changed);
  CHECK(skip_reason(context, "MatMul->y").find("fewer than min_elements=256") != std::string::npos);
  Model left = parse(kMatrix);
  CHECK_FALSE(repair(left, "prune-wanda{min_elements=0 layers=[\"op:MatMul=0\"]}", context, loud_samples()).changed);
}

}  // namespace onnxpress::testing
