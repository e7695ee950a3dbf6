#include "eval/layers.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "support/memory_source.h"
#include "support/models.h"

using namespace onnxpress;
using testing::MemorySource;

namespace {

const char* kFloat = HEAD
    "g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1.0, 2.0}>"
    " { s = Constant<value_ints = [-1, 2]>()  a = Mul(x, w)  r = Reshape(a, s)  b = Relu(r)  c = Exp(b)  y = Neg(c) }";

// a is quantized in steps of 0.5, c is gone, the rest is as it was.
const char* kQuantized = HEAD
    "g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1.0, 2.0}, float h = {0.5}, uint8 z = {128}>"
    " { a = Mul(x, w)  a_q = QuantizeLinear(a, h, z)  a_d = DequantizeLinear(a_q, h, z)"
    "   b = Relu(a_d)  e = Exp(b)  y = Neg(e) }";

std::vector<Batch> samples(std::size_t count) {
  std::vector<Batch> batches;
  for (std::size_t i = 0; i < count; ++i) {
    Batch batch;
    batch.inputs.push_back({"x", Tensor::of_floats({1, 2}, testing::random_floats(2, static_cast<unsigned>(i)))});
    batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace

TEST_CASE("Values are paired by name, a quantized one with what its readers see") {
  const auto pairs = match_values(testing::parse(kFloat), testing::parse(kQuantized));
  REQUIRE(pairs.size() == 3);
  CHECK(pairs[0].before == "a");
  CHECK(pairs[0].after == "a_d");
  CHECK(pairs[0].op == "Mul");
  CHECK(pairs[1].before == "b");
  CHECK(pairs[1].after == "b");
  CHECK(pairs[2].before == "y");
}

TEST_CASE("The error of each value, worst first") {
  const char* source_text = HEAD
      "g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1.0, 2.0}>"
      " { a = Mul(x, w)  b = Relu(a)  c = Exp(b)  y = Neg(c) }";
  const Model before = testing::parse(source_text);
  const Model after = testing::parse(kQuantized);
  MemorySource source(samples(4));
  const auto errors = compare_layers(before, after, source);
  REQUIRE(errors);
  REQUIRE(errors->size() == 3);
  for (std::size_t i = 1; i < errors->size(); ++i)
    CHECK((*errors)[i - 1].closeness.sqnr_db() <= (*errors)[i].closeness.sqnr_db());
  for (const LayerError& error : *errors) {
    CHECK(error.closeness.elements == 8);
    if (error.value != "a") continue;
    // The oracle: round to halves.
    Closeness expected;
    for (const Batch& batch : samples(4)) {
      const auto x = batch.inputs[0].tensor.as<float>();
      const std::vector<float> a = {x[0], 2 * x[1]};
      expected.add(a, std::vector{std::nearbyint(a[0] * 2) / 2, std::nearbyint(a[1] * 2) / 2});
    }
    CHECK(error.closeness.sum_error2 == expected.sum_error2);
  }
  SECTION("few samples, and groups when memory is short, give what they should") {
    LayerOptions options;
    options.samples = 2;
    options.memory_limit = 1;
    const auto fewer = compare_layers(before, after, source, options);
    REQUIRE(fewer);
    REQUIRE(fewer->size() == 3);
    CHECK((*fewer)[0].closeness.elements == 4);
  }
  SECTION("a model against itself has no error anywhere") {
    const auto none = compare_layers(before, before, source);
    REQUIRE(none);
    CHECK(none->size() == 4);
    for (const LayerError& error : *none) CHECK(error.closeness.equal());
  }
}
