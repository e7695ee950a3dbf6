#include "prune/stream.h"

#include <catch2/catch_test_macros.hpp>

#include "engine/activations.h"
#include "prune/residual_blocks.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// Takes the block whose sum is `sum` out of a copy of `original`.
Model without(const Model& original, const std::string& sum, std::vector<RemovedBlock>& removed) {
  Model model = original.clone();
  for (const ResidualBlock& block : find_residual_blocks(model.main()).blocks) {
    if (block.add.output(0) != sum) continue;
    removed.push_back({std::string(block.add.input(block.shortcut)), sum});
    REQUIRE(remove_residual_block(block));
    return model;
  }
  FAIL("no block " << sum);
  return model;
}

std::vector<Batch> samples(const Dims& dims, unsigned count, unsigned seed) {
  std::vector<Batch> batches;
  for (unsigned n = 0; n < count; ++n) batches.push_back(random_batch("x", dims, seed + n));
  return batches;
}

struct Refitted {
  bool changed = false;
  PassContext context = {};
};
Refitted refit(Model& model, const Model& original, const std::vector<RemovedBlock>& removed,
               std::vector<Batch> batches, unsigned jobs = 1) {
  MemorySource source(std::move(batches));
  EngineActivations activations(source, jobs, 0);
  Refitted out;
  out.context.activations = &activations;
  out.context.jobs = jobs;
  const auto changed = refit_stream(model, original, removed, out.context, {});
  REQUIRE(changed);
  out.changed = *changed;
  return out;
}

// Behind the first block, which is linear, a second one that is linear too: what it added is a linear map of what the
// first one's last layer reads.
Model linear_blocks() {
  return parse(HEAD "g (float[1, 3, 6] x) => (float[1, 3, 6] y) <" + float_tensor("a", {6, 6}, 1) + ", " +
               float_tensor("b", {6, 6}, 2, 0.5F) + ", " + float_tensor("c", {6, 6}, 3) + ", " +
               float_tensor("d", {6}, 4) +
               "> { h = MatMul(x, a) f = MatMul(h, b) s = Add(x, f) k = MatMul(s, c) "
               "t = Add(s, k) z = Mul(t, d) y = Relu(z) }");
}

Model conv_blocks() {
  return parse(
      HEAD "g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) <" + float_tensor("k0", {4, 4, 3, 3}, 1, 0.3F) + ", " +
      float_tensor("k1", {4, 4, 3, 3}, 2, 0.3F) + ", " + float_tensor("k2", {4, 4, 3, 3}, 3, 0.2F) + ", " +
      float_tensor("k3", {4, 4, 3, 3}, 4, 0.3F) + ", " + float_tensor("c", {4}, 5) +
      "> { r0 = Relu(x) a = Conv<pads = [1, 1, 1, 1]>(r0, k0, c) b = Relu(a) "
      "f = Conv<pads = [1, 1, 1, 1]>(b, k1) s = Add(f, r0) r1 = Relu(s) g2 = Conv<pads = [1, 1, 1, 1]>(r1, k2) "
      "t = Add(g2, r1) r2 = Relu(t) y = Conv<pads = [1, 1, 1, 1]>(r2, k3) }");
}

double distance(const Model& a, const Model& b, const Dims& dims) {
  const Batch batch = random_batch("x", dims, 900);
  return sqnr_db(run_on(a, batch), run_on(b, batch));
}

}  // namespace

TEST_CASE("stream: the layer in front of a gap makes up for what is linear behind it") {
  const Model original = linear_blocks();
  std::vector<RemovedBlock> removed;
  Model model = without(original, "t", removed);
  CHECK(distance(original, model, {1, 3, 6}) < 20);
  const Refitted result = refit(model, original, removed, samples({1, 3, 6}, 30, 10));
  CHECK(result.changed);
  CHECK(distance(original, model, {1, 3, 6}) > 30);
  // The first layer of the block lies in front of the gap and computes what it did.
  CHECK(dump(model).find("h = MatMul (x, a)") != std::string::npos);
  CHECK(skip_reason(result.context, "MatMul->h").empty());
}

TEST_CASE("stream: a gap behind a Relu, and layers behind it") {
  const Model original = conv_blocks();
  const Dims dims = {1, 4, 6, 6};
  for (const std::string sum : {"s", "t"}) {
    std::vector<RemovedBlock> removed;
    Model model = without(original, sum, removed);
    const double before = distance(original, model, dims);
    CHECK(refit(model, original, removed, samples(dims, 40, 10)).changed);
    INFO(sum << ": " << before << " dB -> " << distance(original, model, dims) << " dB");
    CHECK(distance(original, model, dims) > before + 2);
  }
}

TEST_CASE("stream: blocks removed back to front or front to back are the same gap") {
  const std::string text = HEAD "g (float[1, 3, 6] x) => (float[1, 3, 6] y) <" + float_tensor("a", {6, 6}, 1) + ", " +
                           float_tensor("b", {6, 6}, 2) + ", " + float_tensor("c", {6, 6}, 3) + ", " +
                           float_tensor("e", {6, 6}, 4) +
                           "> { h = MatMul(x, a) f = MatMul(h, b) s = Add(x, f) k = MatMul(s, c) t = Add(s, k) "
                           "m = MatMul(t, e) u = Add(t, m) y = Relu(u) }";
  const Model original = parse(text);
  std::vector<std::string> results;
  for (const bool forward : {true, false}) {
    std::vector<RemovedBlock> removed;
    Model model = without(original, forward ? "t" : "u", removed);
    model = without(model, forward ? "u" : "t", removed);
    CHECK(refit(model, original, removed, samples({1, 3, 6}, 30, 10)).changed);
    CHECK(distance(original, model, {1, 3, 6}) > 30);
    results.push_back(dump(model));
  }
  CHECK(results[0] == results[1]);
}

TEST_CASE("stream: what is not refitted") {
  const Model original = linear_blocks();
  std::vector<RemovedBlock> removed;
  Model model = without(original, "t", removed);
  const std::string before = dump(model);
  // Nothing to judge by.
  CHECK_FALSE(refit(model, original, removed, samples({1, 3, 6}, 4, 10)).changed);
  CHECK(dump(model) == before);

  // A weight that something else reads as well.
  const Model tied = parse(HEAD "g (float[1, 3, 6] x) => (float[1, 3, 6] y, float[6, 6] v) <" +
                           float_tensor("b", {6, 6}, 2) + ", " + float_tensor("c", {6, 6}, 3) +
                           "> { v = Neg(b) f = MatMul(x, b) s = Add(x, f) k = MatMul(s, c) t = Add(s, k) y = Neg(t) }");
  removed.clear();
  model = without(tied, "t", removed);
  const Refitted result = refit(model, tied, removed, samples({1, 3, 6}, 30, 10));
  CHECK_FALSE(result.changed);
  CHECK(skip_reason(result.context, "MatMul->f").find("not refitted") != std::string::npos);
}

TEST_CASE("stream: the same at any number of threads") {
  const Model original = conv_blocks();
  std::vector<std::string> results;
  for (const unsigned jobs : {1U, 4U}) {
    std::vector<RemovedBlock> removed;
    Model model = without(original, "t", removed);
    CHECK(refit(model, original, removed, samples({1, 4, 6, 6}, 20, 10), jobs).changed);
    results.push_back(*model.fingerprint());
  }
  CHECK(results[0] == results[1]);
}

}  // namespace onnxpress::testing
