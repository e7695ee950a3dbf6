#include <fmt/format.h>
#include <fmt/ranges.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "engine/activations.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

const Dims kX = {2, 6, 16};

std::vector<Batch> samples() {
  std::vector<Batch> batches;
  for (unsigned seed = 100; seed < 104; ++seed) batches.push_back(random_batch("x", kX, seed));
  return batches;
}

struct Smoothed {
  Model model = {};
  PassContext context = {};
  bool changed = false;
  double sqnr = 0;
};

Smoothed smooth(const std::string& source, const std::string& pipeline, unsigned jobs = 1) {
  INFO(pipeline << ": " << source.substr(0, 300));
  const Model before = parse(source);
  Smoothed out{.model = parse(source)};
  MemorySource data(samples());
  EngineActivations activations(data, jobs, 0);
  out.context.activations = &activations;
  out.context.jobs = jobs;
  out.changed = run_pipeline(out.model, pipeline, &out.context).changed;
  out.context.activations = nullptr;
  out.sqnr = HUGE_VAL;
  for (const Batch& batch : samples())
    out.sqnr = std::min(out.sqnr, sqnr_db(run_on(before, batch), run_on(out.model, batch)));
  return out;
}

// One channel is a hundred times as large as the others.
std::string outlier(std::string_view name) {
  std::vector<float> values(16, 1);
  values[5] = 100;
  return fmt::format("float[16] {} = {{{}}}", name, fmt::join(values, ", "));
}

const std::string kStart = HEAD "g (float[2, 6, 16] x) => (float[A, B, C] y) <" + outlier("g0") + ", " + outlier("z") +
                           ", " + float_tensor("w", {16, 8}, 1) + ", " + float_tensor("b", {8}, 2) + ", " +
                           float_tensor("v", {16, 8}, 3) + ", " + float_tensor("u", {16, 16}, 4);

void require_smoothed(const std::string& nodes) {
  const Smoothed result = smooth(kStart + "> { " + nodes + " }", "smooth-activations");
  CHECK(result.changed);
  CHECK(result.sqnr > 90);
  const double alone = smooth(kStart + "> { " + nodes + " }", "quant-static{placement=all}").sqnr;
  const double after = smooth(kStart + "> { " + nodes + " }", "smooth-activations,quant-static{placement=all}").sqnr;
  INFO(nodes << ": " << alone << " " << after);
  CHECK(after > alone + 3);
}

TEST_CASE("smooth-activations folds into norms, constant factors and linear ops, and quantizes better") {
  require_smoothed("n = LayerNormalization(x, g0, z) m = MatMul(n, w) y = Add(m, b)");
  require_smoothed("n = LayerNormalization <axis = -1> (x, g0) m = MatMul(n, w) k = MatMul(n, v) y = Sub(m, k)");
  require_smoothed("n = Mul(x, g0) y = MatMul(n, w)");
  require_smoothed("n = Mul(g0, x) r = Relu(n) y = MatMul(r, w)");
}

TEST_CASE("smooth-activations folds into a BatchNormalization behind transposes") {
  require_smoothed(
      "one = Constant <value = float[16] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> () "
      "t = Transpose <perm = [0, 2, 1]> (x) n = BatchNormalization(t, g0, z, one, one) "
      "q = Transpose <perm = [0, 2, 1]> (n) m = MatMul(q, w) k = MatMul(q, v) y = Add(m, k)");
}

TEST_CASE("smooth-activations by hand") {
  // max|x| = 4, 1 and max|w| = 1, 1 with alpha 0.5: s = 2, 1, over their geometric mean 2^0.5.
  const std::string before = HEAD
      "g (float[1, 1, 2] x) => (float[1, 1, 1] y) <float[2] k = {4, 1}, float[2, 1] w = {1, 1}> "
      "{ n = Mul(x, k) y = MatMul(n, w) }";
  Model model = parse(before);
  std::vector<Batch> batches(1);
  batches[0].inputs.push_back({"x", Tensor::of_floats({1, 1, 2}, std::vector<float>{1, -1})});
  MemorySource data(batches);
  EngineActivations activations(data, 1, 0);
  PassContext context;
  context.activations = &activations;
  CHECK(run_pipeline(model, "smooth-activations{alpha=0.5}", &context).changed);
  const auto k = model.main().initializer("k").read(), w = model.main().initializer("w").read();
  REQUIRE((k && w));
  const float root = std::sqrt(2.0F);
  CHECK(std::abs(k->as<float>()[0] - 4 / root) < 1e-6F);
  CHECK(std::abs(k->as<float>()[1] - root) < 1e-6F);
  CHECK(std::abs(w->as<float>()[0] - root) < 1e-6F);
  CHECK(std::abs(w->as<float>()[1] - 1 / root) < 1e-6F);
}

TEST_CASE("smooth-activations inserts a Mul only on request") {
  const std::string source = kStart +
                             "> { n = LayerNormalization(x, g0, z) e = Sigmoid(z) r = Mul(n, e) t = Tanh(n) "
                             "s = Add(r, t) m = MatMul(s, w) k = MatMul(s, v) y = Sub(m, k) }";
  const Smoothed left = smooth(source, "smooth-activations");
  CHECK_FALSE(left.changed);
  CHECK_FALSE(skip_reason(left.context, "MatMul->m").empty());
  const Smoothed inserted = smooth(source, "smooth-activations{insert=true alpha=0.5}");
  CHECK(inserted.changed);
  CHECK(count(ops_of(inserted.model), "Mul") == 2);  // one for both readers
  CHECK(inserted.sqnr > 90);
}

void require_skipped(const std::string& source, std::string_view label, std::string_view reason,
                     const std::string& pipeline = "smooth-activations") {
  const Smoothed result = smooth(source, pipeline);
  INFO(skip_reason(result.context, label));
  CHECK_FALSE(result.changed);
  CHECK(dump(result.model) == dump(parse(source)));
  CHECK(skip_reason(result.context, label).find(reason) != std::string::npos);
}

TEST_CASE("smooth-activations does not: other readers, shared scales, nothing to gain, excluded nodes") {
  const std::string norm = kStart + "> { n = LayerNormalization(x, g0, z) ";
  require_skipped(norm + "m = MatMul(n, w) e = ReduceMax <axes = [2]> (n) y = Add(m, e) }", "MatMul->m",
                  "ReduceMax->e");
  require_skipped(norm + "p = LayerNormalization(x, g0) m = MatMul(n, w) k = MatMul(p, v) y = Add(m, k) }", "MatMul->m",
                  "no norm");
  require_skipped(norm + "m = MatMul(n, w) y = Relu(m) }", "MatMul->m", "", "smooth-activations{skip=op:MatMul}");
  require_skipped(HEAD "g (float[2, 6, 16] x) => (float[A, B, C] y) <float[1] one = {1}, " +
                      float_tensor("w", {16, 8}, 1) + "> { y = MatMul(x, w) }",
                  "MatMul->y", "no norm");
}

TEST_CASE("smooth-activations: the same bytes at any thread count") {
  const std::string source =
      kStart + "> { n = LayerNormalization(x, g0, z) m = MatMul(n, w) k = MatMul(n, v) y = Sub(m, k) }";
  CHECK(smooth(source, "smooth-activations", 1).model.fingerprint().value() ==
        smooth(source, "smooth-activations", 4).model.fingerprint().value());
}

}  // namespace
}  // namespace onnxpress::testing
