#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "num/select.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/coarse.h"
#include "support/journal.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Pruned {
  Model model = coarse_reference();
  PassContext context = {};
  Outcome outcome = {};
};

Pruned prune(const std::string& pass, std::size_t per_batch = 1, unsigned jobs = 1) {
  Pruned out;
  out.outcome = repair(out.model, pass, out.context, smooth_samples(30, per_batch), jobs);
  return out;
}

std::uint64_t zeros_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().initializer(name).read();
  REQUIRE(tensor);
  return count_zeros(tensor->view());
}

std::vector<float> floats_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().initializer(name).read();
  REQUIRE(tensor);
  return {tensor->as<float>().begin(), tensor->as<float>().end()};
}

}  // namespace

TEST_CASE("prune-sparsegpt reaches the sparsity and stays closer to the outputs than magnitudes do") {
  const double magnitude = coarse_sqnr(prune("prune-magnitude{min_elements=0 repair=off}").model);
  for (const char* search : {"auto", "sweep", "eliminate"}) {
    const Pruned result = prune(fmt::format("prune-sparsegpt{{min_elements=0 search={}}}", search));
    CHECK(result.outcome.changed);
    CHECK(zeros_of(result.model, "w1") == 81);
    CHECK(zeros_of(result.model, "w2") >= 24);  // by sweep of each group by itself: 4 of 9
    CHECK(zeros_of(result.model, "w3") == 15);
    INFO(search << ": " << magnitude << " dB, " << coarse_sqnr(result.model) << " dB");
    CHECK(coarse_sqnr(result.model) > magnitude + 6);
    CHECK(ops_of(result.model) == ops_of(coarse_reference()));
  }
}

TEST_CASE("prune-sparsegpt keeps to a pattern and to shares of single layers") {
  const Pruned result = prune("prune-sparsegpt{min_elements=0 pattern=2:4 layers=[\"op:Gemm=0\"]}");
  CHECK(floats_of(result.model, "w3") == floats_of(coarse_reference(), "w3"));
  const auto w = floats_of(result.model, "w1");
  for (std::size_t row = 0; row < 6; ++row)
    for (std::size_t at = 0; at < 27; at += 4) {
      const std::size_t size = std::min(4UZ, 27 - at);
      const auto first = w.begin() + static_cast<std::ptrdiff_t>(row * 27 + at);
      CHECK(std::count(first, first + static_cast<std::ptrdiff_t>(size), 0.0F) ==
            static_cast<std::ptrdiff_t>(size / 2));
    }
  const Pruned shares = prune("prune-sparsegpt{min_elements=0 sparsity=0.25 layers=[\"op:Gemm=0.8\"]}");
  CHECK(zeros_of(shares.model, "w1") == 40);
  CHECK(zeros_of(shares.model, "w3") == 24);
  const Pruned inner = prune("prune-sparsegpt{min_elements=0 ends=false}");
  CHECK(zeros_of(inner.model, "w1") == 0);
  CHECK(zeros_of(inner.model, "w2") == 27);
  CHECK(zeros_of(inner.model, "w3") == 0);
}

TEST_CASE("prune-sparsegpt scope=global reaches the sparsity over all layers") {
  const Pruned result = prune("prune-sparsegpt{min_elements=0 scope=global sparsity=0.6}");
  std::uint64_t zeros = 0;
  for (const char* name : {"w1", "w2", "w3"}) zeros += zeros_of(result.model, name);
  CHECK(zeros >= (162 + 54 + 30) * 6 / 10);
}

TEST_CASE("prune-sparsegpt gives the same bytes at any batch size and thread count") {
  for (const std::string options : {"", " scope=global", " search=sweep"}) {
    const std::string pass = "prune-sparsegpt{min_elements=0" + options + "}";
    const std::string expected = prune(pass).model.fingerprint().value();
    for (const std::size_t per_batch : {7UZ, 30UZ})
      for (const unsigned jobs : {1U, 3U}) CHECK(prune(pass, per_batch, jobs).model.fingerprint().value() == expected);
  }
}

TEST_CASE("prune-sparsegpt leaves zeros where they are, and a model that is sparse enough") {
  Pruned result = prune("prune-sparsegpt{min_elements=0}");
  const auto before = floats_of(result.model, "w1");
  PassContext context;
  CHECK_FALSE(repair(result.model, "prune-sparsegpt{min_elements=0}", context, smooth_samples(30, 1)).changed);
  CHECK(repair(result.model, "prune-sparsegpt{min_elements=0 sparsity=0.75}", context, smooth_samples(30, 1)).changed);
  const auto after = floats_of(result.model, "w1");
  for (std::size_t i = 0; i < before.size(); ++i)
    if (before[i] == 0) CHECK(after[i] == 0);
}

TEST_CASE("prune-sparsegpt makes up for the other branch of an Add") {
  std::string weights;
  for (unsigned i = 0; i < 3; ++i)
    weights += (i == 0 ? "" : ", ") + float_tensor(fmt::format("W{}", i), {12, 12}, i + 1);
  const std::string text = HEAD "g (float[n, 12] x) => (float[n, 12] y) <" + weights +
                           "> { a = MatMul(x, W0) r = Relu(a) b = MatMul(r, W1) s = Relu(b) c = MatMul(s, W2) "
                           "y = Add(c, r) }";
  // Few things lie behind the inputs, so that what the first layer loses can be told from what it keeps.
  const auto sample = [](unsigned seed) {
    const auto noise = random_floats(16, seed);
    std::vector<float> x;
    for (std::size_t i = 0; i < 12; ++i)
      x.push_back(noise[12 + i % 4] * (1 + static_cast<float>(i) / 8) + 0.1F * noise[i]);
    return Batch{.inputs = {{"x", Tensor::of_floats({1, 12}, x)}}, .labels = {}, .samples = 1};
  };
  std::vector<Batch> samples, others;
  for (unsigned n = 0; n < 200; ++n) samples.push_back(sample(n));
  for (unsigned n = 1000; n < 1100; ++n) others.push_back(sample(n));
  const auto quality = [&](const std::string& residual) {
    Model model = parse(text);
    PassContext context;
    CHECK(repair(model,
                 "prune-sparsegpt{min_elements=0 sparsity=0.25 layers=[\"*->a=0.8\"] repair=off residual=" + residual +
                     "}",
                 context, samples)
              .changed);
    double error = 0;
    for (const Batch& batch : others) {
      const auto want = run_on(parse(text), batch), got = run_on(model, batch);
      for (std::size_t i = 0; i < 12; ++i) error += std::pow(want[0].as<float>()[i] - got[0].as<float>()[i], 2.0F);
    }
    return error;
  };
  CHECK(quality("true") < 0.9 * quality("false"));
}

TEST_CASE("prune-sparsegpt says what it leaves") {
  PassContext context;
  const std::string text = HEAD
      "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) <float[2, 2] W = {1, 2, 3, 4}>"
      "{ y = MatMul(x, W) z = MatMul(y, W) }";
  Model shared = parse(text);
  CHECK_FALSE(repair(shared, "prune-sparsegpt{min_elements=0}", context, {random_batch("x", {1, 2}, 1)}).changed);
  CHECK(dump(shared) == dump(parse(text)));
  CHECK(skip_reason(context, "MatMul->y").find("also read by MatMul->z") != std::string::npos);
  Model transposed = parse(HEAD
                           "g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] W = {1, 2, 3, 4}>"
                           "{ y = Gemm<transA = 1>(x, W) }");
  CHECK_FALSE(repair(transposed, "prune-sparsegpt{min_elements=0}", context, {random_batch("x", {2, 2}, 1)}).changed);
  CHECK(skip_reason(context, "Gemm->y").find("transA") != std::string::npos);
  Model model = coarse_reference();
  const auto wrong = Pipeline::parse("prune-sparsegpt{scope=global pattern=2:4}", all_passes());
  REQUIRE(wrong);
  const auto outcome = wrong->run(model, context, {}, nullptr);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code == Code::usage);
}

}  // namespace onnxpress::testing
