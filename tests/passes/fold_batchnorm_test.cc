#include <fmt/format.h>
#include <fmt/ranges.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "engine/session.h"
#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// "float[2,3] w = {...}" with seeded values, shifted by `offset`.
std::string weight(std::string_view name, const Dims& dims, unsigned seed, float offset = 0) {
  std::vector<float> values = random_floats(element_count(dims).value(), seed);
  for (float& value : values) value += offset;
  return fmt::format("float[{}] {} = {{{}}}", fmt::join(dims, ", "), name, fmt::join(values, ", "));
}
// The four parameters of a BatchNormalization, "p" + "s", "b", "m", "v".
std::string params(std::string_view p, std::int64_t channels, unsigned seed) {
  const auto name = [&](char suffix) { return std::string(p) + suffix; };
  return weight(name('s'), {channels}, seed) + ", " + weight(name('b'), {channels}, seed + 1) + ", " +
         weight(name('m'), {channels}, seed + 2) + ", " + weight(name('v'), {channels}, seed + 3, 1.25F);
}

std::vector<Tensor> run_model(const Model& model, const Dims& dims) {
  auto session = Session::open(model);
  INFO((session ? "" : session.error().text()));
  REQUIRE(session);
  const std::vector<NamedTensor> inputs = {
      {"x", Tensor::of_floats(dims, random_floats(element_count(dims).value(), 99))}};
  auto outputs = (*session)->run(inputs);
  INFO((outputs ? "" : outputs.error().text()));
  REQUIRE(outputs);
  return std::move(*outputs);
}

std::size_t count_op(const Model& model, std::string_view op) {
  std::size_t count = 0;
  for (const Graph* graph : model.graphs())
    for (const Node& node : graph->nodes()) count += node.is(op) ? 1U : 0U;
  return count;
}

// Folds every BatchNormalization; the engine computes the same before and after.
Model require_folded(const std::string& text, const Dims& input) {
  INFO(text);
  const Model before = parse(text);
  Model after = parse(text);
  CHECK(run_pipeline(after, "fold-batchnorm").changed);
  CHECK(count_op(after, "BatchNormalization") == 0);
  CHECK(after.main().outputs() == before.main().outputs());
  const auto expected = run_model(before, input), got = run_model(after, input);
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE(got[i].dims() == expected[i].dims());
    for (std::size_t k = 0; k < got[i].size(); ++k)
      CHECK_THAT(got[i].as<float>()[k], Catch::Matchers::WithinAbs(expected[i].as<float>()[k], 1e-5) ||
                                            Catch::Matchers::WithinRel(expected[i].as<float>()[k], 1e-5F));
  }
  CHECK_FALSE(run_pipeline(after, "fold-batchnorm").changed);
  return after;
}

void require_skipped(const std::string& text, std::string_view label, std::string_view reason) {
  INFO(text);
  Model model = parse(text);
  const std::string before = dump(model);
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "fold-batchnorm", &context).changed);
  CHECK(dump(model) == before);
  INFO(skip_reason(context, label));
  CHECK(skip_reason(context, label).find(reason) != std::string::npos);
}

// scale 3, variance 4, epsilon 0: a = 1.5; B 1, mean 0.5: s = 0.25.
#define HAND "float[1] s = {3}, float[1] b = {1}, float[1] m = {0.5}, float[1] v = {4}"
#define BN "BatchNormalization <epsilon = 0.0>"

TEST_CASE("fold-batchnorm by hand: Conv before, with and without bias") {
  require_rewrite(HEAD "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND
                       "> { t = Conv(x, w) y = " BN "(t, s, b, m, v) }",
                  "fold-batchnorm",
                  HEAD
                  "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {3}, "
                  "float[1] t_bias = {0.25}> { y = Conv(x, w, t_bias) }");
  require_rewrite(HEAD
                  "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, float[1] c = {4}, " HAND
                  "> { t = Conv(x, w, c) y = " BN "(t, s, b, m, v) }",
                  "fold-batchnorm",
                  HEAD
                  "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {3}, "
                  "float[1] c = {6.25}> { y = Conv(x, w, c) }");
}

TEST_CASE("fold-batchnorm by hand: Gemm after") {
  require_rewrite(HEAD "g (float[2, 1] x) => (float[2, 1] y) <float[1, 1] w = {2}, float[1] c = {4}, " HAND
                       "> { t = " BN "(x, s, b, m, v) y = Gemm <alpha = 2.0, beta = 3.0> (t, w, c) }",
                  "fold-batchnorm",
                  HEAD
                  "g (float[2, 1] x) => (float[2, 1] y) <float[1, 1] w = {3}, float[1] c = {13}> "
                  "{ y = Gemm <alpha = 2.0, beta = 1.0> (x, w, c) }");
}

TEST_CASE("fold-batchnorm folds into a Conv before it, grouped and depthwise too") {
  require_folded(HEAD "g (float[2, 4, 5, 5] x) => (float[2, 6, 5, 5] y) <" + weight("w", {6, 4, 3, 3}, 1) + ", " +
                     weight("c", {6}, 2) + ", " + params("p", 6, 3) +
                     "> { t = Conv <pads = [1, 1, 1, 1]> (x, w, c) y = BatchNormalization(t, ps, pb, pm, pv) }",
                 {2, 4, 5, 5});
  require_folded(HEAD "g (float[1, 4, 5, 5] x) => (float[1, 6, 3, 3] y) <" + weight("w", {6, 2, 3, 3}, 1) + ", " +
                     params("p", 6, 3) + "> { t = Conv <group = 2> (x, w) y = BatchNormalization(t, ps, pb, pm, pv) }",
                 {1, 4, 5, 5});
  require_folded(HEAD "g (float[1, 4, 7] x) => (float[1, 4, 5] y) <" + weight("w", {4, 1, 3}, 1) + ", " +
                     params("p", 4, 3) +
                     "> { t = Conv <group = 4> (x, w) u = BatchNormalization(t, ps, pb, pm, pv) y = Relu(u) }",
                 {1, 4, 7});
}

TEST_CASE("fold-batchnorm folds into a ConvTranspose before it, grouped too") {
  for (const int group : {1, 2})
    require_folded(HEAD "g (float[1, 4, 3, 3] x) => (float[A, B, C, D] y) <" + weight("w", {4, 3, 2, 2}, 1) + ", " +
                       weight("c", {3 * group}, 2) + ", " + params("p", 3 * group, 3) +
                       fmt::format("> {{ t = ConvTranspose <group = {}, strides = [2, 2]> (x, w, c) ", group) +
                       "y = BatchNormalization(t, ps, pb, pm, pv) }",
                   {1, 4, 3, 3});
}

TEST_CASE("fold-batchnorm folds into a Gemm before it, whatever its attributes and bias") {
  for (const int trans : {0, 1}) {
    for (const std::string bias : {"", ", c5", ", c1", ", c15"}) {
      const std::string list = bias == ", c5"    ? weight("c5", {5}, 2) + ", "
                               : bias == ", c1"  ? weight("c1", {1}, 2) + ", "
                               : bias == ", c15" ? weight("c15", {1, 5}, 2) + ", "
                                                 : "";
      require_folded(HEAD "g (float[3, 4] x) => (float[3, 5] y) <" +
                         weight("w", trans != 0 ? Dims{5, 4} : Dims{4, 5}, 1) + ", " + list + params("p", 5, 3) +
                         fmt::format("> {{ t = Gemm <transB = {}, alpha = 0.5, beta = 2.0> (x, w{}) ", trans, bias) +
                         "y = BatchNormalization(t, ps, pb, pm, pv) }",
                     {3, 4});
    }
  }
}

TEST_CASE("fold-batchnorm folds into a MatMul before it, with or without an Add") {
  const Model plain =
      require_folded(HEAD "g (float[3, 4] x) => (float[3, 5] y) <" + weight("w", {4, 5}, 1) + ", " + params("p", 5, 3) +
                         "> { t = MatMul(x, w) y = BatchNormalization(t, ps, pb, pm, pv) }",
                     {3, 4});
  CHECK(count_op(plain, "Add") == 1);
  for (const char* add : {"Add(t, c)", "Add(c, t)"}) {
    const Model biased = require_folded(
        HEAD "g (float[3, 4] x) => (float[3, 5] y) <" + weight("w", {4, 5}, 1) + ", " + weight("c", {5}, 2) + ", " +
            params("p", 5, 3) + "> { t = MatMul(x, w) u = " + add + " y = BatchNormalization(u, ps, pb, pm, pv) }",
        {3, 4});
    CHECK(count_op(biased, "Add") == 1);
  }
}

TEST_CASE("fold-batchnorm takes an Add of one number per channel between the two along") {
  const std::string start = HEAD "g (float[2, 4, 5, 5] x) => (float[2, 6, 3, 3] y) <" + weight("w", {6, 4, 3, 3}, 1) +
                            ", " + weight("c", {6}, 2) + ", " + params("p", 6, 3) + ", ";
  for (const Dims& dims : {Dims{6, 1, 1}, Dims{1, 6, 1, 1}, Dims{1}})
    for (const std::string conv : {"Conv(x, w)", "Conv(x, w, c)"})
      for (const std::string add : {"Add(t, d)", "Add(d, t)"}) {
        const Model model = require_folded(start + weight("d", dims, 9) + "> { t = " + conv + " u = " + add +
                                               " y = BatchNormalization(u, ps, pb, pm, pv) }",
                                           {2, 4, 5, 5});
        CHECK(model.main().nodes().size() == 1);
        CHECK_FALSE(model.main().initializer("d"));
      }
  require_folded(HEAD "g (float[3, 4] x) => (float[3, 5] y) <" + weight("w", {4, 5}, 1) + ", " + weight("d", {5}, 2) +
                     ", " + params("p", 5, 3) +
                     "> { t = Gemm <alpha = 0.5> (x, w) u = Add(t, d) y = BatchNormalization(u, ps, pb, pm, pv) }",
                 {3, 4});
  require_skipped(start + weight("d", {3}, 9) +
                      "> { t = Conv(x, w) u = Add(t, d) "
                      "y = BatchNormalization(u, ps, pb, pm, pv) }",
                  "BatchNormalization->y", "not one number per channel");
  require_skipped(start + weight("d", {6, 1, 1}, 9) +
                      "> { t = Conv(x, w) u = Add(t, d) q = BatchNormalization(u, ps, pb, pm, pv) y = Add(q, t) }",
                  "BatchNormalization->q", "2 readers");
}

TEST_CASE("fold-batchnorm folds into a Conv after it, grouped too") {
  for (const int group : {1, 2})
    require_folded(
        HEAD "g (float[2, 4, 5, 5] x) => (float[2, 6, 3, 3] y) <" + weight("w", {6, 4 / group, 3, 3}, 1) + ", " +
            weight("c", {6}, 2) + ", " + params("p", 4, 3) +
            fmt::format("> {{ t = BatchNormalization(x, ps, pb, pm, pv) y = Conv <group = {}> (t, w, c) }}", group),
        {2, 4, 5, 5});
}

TEST_CASE("fold-batchnorm folds into a Gemm or MatMul after it") {
  const std::string start = HEAD "g (float[3, 4] x) => (float[3, 5] y) <";
  const std::string norm = "> { t = BatchNormalization(x, ps, pb, pm, pv) ";
  require_folded(
      start + weight("w", {5, 4}, 1) + ", " + params("p", 4, 3) + norm + "y = Gemm <transB = 1, alpha = 0.5> (t, w) }",
      {3, 4});
  CHECK(count_op(require_folded(start + weight("w", {4, 5}, 1) + ", " + params("p", 4, 3) + norm + "y = MatMul(t, w) }",
                                {3, 4}),
                 "Add") == 1);
  CHECK(count_op(require_folded(start + weight("w", {4, 5}, 1) + ", " + weight("c", {5}, 2) + ", " + params("p", 4, 3) +
                                    norm + "u = MatMul(t, w) y = Add(u, c) }",
                                {3, 4}),
                 "Add") == 1);
}

TEST_CASE("fold-batchnorm folds a chain, whatever the order that needs") {
  const Model model = require_folded(
      HEAD "g (float[1, 4, 5, 5] x) => (float[1, 3, 3, 3] y) <" + weight("w", {3, 4, 3, 3}, 1) + ", " +
          params("p", 4, 3) + ", " + params("q", 4, 13) + ", " + params("r", 3, 23) +
          "> { t = BatchNormalization(x, ps, pb, pm, pv) u = BatchNormalization(t, qs, qb, qm, qv) z = Conv(u, w) "
          "y = BatchNormalization(z, rs, rb, rm, rv) }",
      {1, 4, 5, 5});
  CHECK(model.main().nodes().size() == 1);
  CHECK(model.main().initializers().size() == 2);
}

TEST_CASE("fold-batchnorm folds before a padded Conv only if nothing is shifted") {
  const std::string start = HEAD "g (float[1, 2, 5, 5] x) => (float[1, 1, 5, 5] y) <" + weight("w", {1, 2, 3, 3}, 1) +
                            ", float[2] s = {2, 3}, float[2] v = {1, 4}, ";
  const std::string nodes = "> { t = BatchNormalization(x, s, b, m, v) y = Conv <pads = [1, 1, 1, 1]> (t, w) }";
  const Model model = require_folded(start + "float[2] b = {0, 0}, float[2] m = {0, 0}" + nodes, {1, 2, 5, 5});
  CHECK(model.main().nodes().front().input_count() == 2);  // nothing shifted: no bias appears
  require_skipped(start + "float[2] b = {0, 1}, float[2] m = {0, 0}" + nodes, "BatchNormalization->t",
                  "pads with zeros");
  require_skipped(start +
                      "float[2] b = {0, 1}, float[2] m = {0, 0}> { t = BatchNormalization(x, s, b, m, v) "
                      "y = Conv <auto_pad = \"SAME_UPPER\"> (t, w) }",
                  "BatchNormalization->t", "pads with zeros");
}

TEST_CASE("fold-batchnorm copies weights and bias that others read") {
  const Model model =
      require_folded(HEAD "g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y, float[1, 2, 4, 4] z, float[2] c) <" +
                         weight("w", {2, 2, 1, 1}, 1) + ", " + weight("c", {2}, 2) + ", " + params("p", 2, 3) +
                         "> { t = Conv(x, w, c) y = BatchNormalization(t, ps, pb, pm, pv) u = Conv(x, w, c) "
                         "z = BatchNormalization(u, ps, pb, pm, pv) }",
                     {1, 2, 4, 4});
  CHECK(model.main().initializers().size() == 5);  // w twice, c three times: it is a graph output
}

TEST_CASE("fold-batchnorm folds in bodies and copies the weights it captures") {
  const std::string text =
      HEAD "g (float[1, 2, 4, 4] x, bool k) => (float[1, 2, 4, 4] y) <" + weight("w", {2, 2, 1, 1}, 1) + ", " +
      params("p", 2, 3) +
      "> { y = If (k) <then_branch = a () => (float[1, 2, 4, 4] u) { t = Conv(x, w) "
      "u = BatchNormalization(t, ps, pb, pm, pv) }, else_branch = b () => (float[1, 2, 4, 4] z) { z = Conv(x, w) }> }";
  Model model = parse(text);
  CHECK(run_pipeline(model, "fold-batchnorm").changed);
  CHECK(count_op(model, "BatchNormalization") == 0);
  CHECK(model.main().initializer("w"));
  CHECK(model.graphs()[1]->initializers().size() == 2);
  CHECK(model.main().initializers().size() == 5);  // clean-dead takes what no body captures any more
}

TEST_CASE("fold-batchnorm takes weights and parameters from Constant nodes") {
  require_folded(HEAD
                 "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1] b = {1}, float[1] m = {2}> { "
                 "w = Constant <value = float[1, 1, 1, 1] {2}> () s = Constant <value_floats = [3.0]> () "
                 "v = Constant <value = float[1] {4}> () t = Conv(x, w) y = BatchNormalization(t, s, b, m, v) }",
                 {1, 1, 2, 2});
}

// Half-precision tensors are written as their bits in text models.
std::string half_model(float w, float scale) {
  return fmt::format(
      HEAD
      "g (float16[1, 1, 2, 2] x) => (float16[1, 1, 2, 2] y) <float16[1, 1, 1, 1] w = {{{}}}, float16[1] s = {{{}}}, "
      "float16[1] b = {{{}}}, float16[1] m = {{{}}}, float16[1] v = {{{}}}> {{ t = Conv(x, w) y = " BN
      "(t, s, b, m, v) }}",
      float_to_half(w), float_to_half(scale), float_to_half(1), float_to_half(0.5F), float_to_half(4));
}

TEST_CASE("fold-batchnorm keeps half-precision weights in half precision") {
  Model model = parse(half_model(2, 3));
  CHECK(run_pipeline(model, "fold-batchnorm").changed);
  const auto folded = model.main().initializer("w").read();
  REQUIRE(folded);
  CHECK(folded->dtype() == DType::f16);
  CHECK(half_to_float(folded->as<std::uint16_t>()[0]) == 3.0F);
}

TEST_CASE("fold-batchnorm refuses what would not be finite in the weights' type") {
  require_skipped(half_model(30000, 30), "BatchNormalization->y", "not finite in float16");
}

TEST_CASE("fold-batchnorm skips training, spatial=0 and parameters that are not constant") {
  const std::string start =
      HEAD "g (float[1, 1, 2, 2] x, float[1] s) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, ";
  require_skipped(HEAD "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND
                       "> { t = Conv(x, w) y, n, o = BatchNormalization <training_mode = 1> (t, s, b, m, v) }",
                  "BatchNormalization->y", "training mode");
  require_skipped(
      "<ir_version: 4, opset_import: [\"\": 8]> g (float[1, 1, 1, 1] x) => (float[1, 1, 1, 1] y) "
      "<float[1, 1, 1, 1] w = {2}, " HAND "> { t = Conv(x, w) y = BatchNormalization <spatial = 0> (t, s, b, m, v) }",
      "BatchNormalization->y", "spatial=0");
  require_skipped(
      "<ir_version: 4, opset_import: [\"\": 6]> g (float[1, 1, 1, 1] x) => (float[1, 1, 1, 1] y) "
      "<float[1, 1, 1, 1] w = {2}, " HAND "> { t = Conv(x, w) y = BatchNormalization (t, s, b, m, v) }",
      "BatchNormalization->y", "training mode");
  require_skipped(start +
                      "float[1] b = {1}, float[1] m = {0}, float[1] v = {4}> "
                      "{ t = Conv(x, w) y = BatchNormalization(t, s, b, m, v) }",
                  "BatchNormalization->y", "'s' is not constant");
  require_skipped(start + HAND "> { t = Conv(x, w) y = BatchNormalization(t, s, b, m, v) }", "BatchNormalization->y",
                  "'s' is not constant");
}

TEST_CASE("fold-batchnorm skips values with other readers, graph outputs and weights that are not constant") {
  const std::string norm = "y = BatchNormalization(t, s, b, m, v) ";
  require_skipped(
      HEAD "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y, float[1, 1, 2, 2] z) <float[1, 1, 1, 1] w = {2}, " HAND
           "> { t = Conv(x, w) " +
          norm + "z = Neg(t) }",
      "BatchNormalization->y", "'t' has 2 readers");
  require_skipped(
      HEAD "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y, float[1, 1, 2, 2] t) <float[1, 1, 1, 1] w = {2}, " HAND
           "> { t = Conv(x, w) " +
          norm + "}",
      "BatchNormalization->y", "'t' is also an output of the graph");
  require_skipped(
      HEAD "g (float[1, 1, 2, 2] x, float[1, 1, 1, 1] w) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND
           "> { t = Conv(x, w) " +
          norm + "}",
      "BatchNormalization->y", "weights are not constant");
  require_skipped(HEAD "g (float[1, 1, 2, 2] x, float[1] c) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND
                       "> { t = Conv(x, w, c) " +
                      norm + "}",
                  "BatchNormalization->y", "bias is not constant");
}

TEST_CASE("fold-batchnorm skips a MatMul of more than two axes, whose channels are elsewhere") {
  require_skipped(HEAD "g (float[2, 3, 4] x) => (float[2, 3, 3] y) <" + weight("w", {4, 3}, 1) + ", " +
                      params("p", 3, 3) + "> { t = MatMul(x, w) y = BatchNormalization(t, ps, pb, pm, pv) }",
                  "BatchNormalization->y", "not a matrix");
}

TEST_CASE("fold-batchnorm leaves other neighbours alone: custom ops, pooling, a ConvTranspose after it") {
  const std::string head =
      "<ir_version: 8, opset_import: [\"\": 17, \"my\": 1]> g (float[1, 1, 2, 2] x) => "
      "(float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND "> ";
  require_skipped(head + "{ t = my.Conv(x, w) y = BatchNormalization(t, s, b, m, v) }", "BatchNormalization->y",
                  "no Conv");
  require_skipped(head + "{ t = BatchNormalization(x, s, b, m, v) y = ConvTranspose(t, w) }", "BatchNormalization->t",
                  "no Conv");
  require_skipped(head + "{ t = Relu(x) y = BatchNormalization(t, s, b, m, v) }", "BatchNormalization->y", "no Conv");
}

TEST_CASE("fold-batchnorm folds models before IR version 4, whose initializers are inputs by rule") {
  require_rewrite(
      "<ir_version: 3, opset_import: [\"\": 9]> g (float[1, 1, 2, 2] x, float[1, 1, 1, 1] w, float[1] s, "
      "float[1] b, float[1] m, float[1] v) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND
      "> { t = Conv(x, w) y = " BN "(t, s, b, m, v) }",
      "fold-batchnorm",
      "<ir_version: 3, opset_import: [\"\": 9]> g (float[1, 1, 2, 2] x, float[1, 1, 1, 1] w, "
      "float[1] t_bias) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {3}, float[1] t_bias = {0.25}> "
      "{ y = Conv(x, w, t_bias) }");
}

TEST_CASE("fold-batchnorm touches no op that skip= names") {
  const std::string text = HEAD "g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) <float[1, 1, 1, 1] w = {2}, " HAND
                                "> { t = Conv(x, w) y = BatchNormalization(t, s, b, m, v) }";
  require_untouched(text, "fold-batchnorm{skip=op:Conv}");
  require_untouched(text, "fold-batchnorm{skip=op:BatchNormalization}");
}

}  // namespace
}  // namespace onnxpress::testing
