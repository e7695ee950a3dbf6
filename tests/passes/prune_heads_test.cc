#include <catch2/catch_test_macros.hpp>

#include "engine/activations.h"
#include "engine/session.h"
#include "ir/rewriter.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/attention.h"
#include "support/memory_source.h"

namespace onnxpress::testing {
namespace {

Dims dims_of(const Model& model, const char* constant) {
  const auto type = model.main().constant_type(constant);
  REQUIRE(type);
  return type->second;
}

std::vector<std::int64_t> numbers_of(const Model& model, const char* constant) {
  const auto tensor = model.main().constant(constant);
  REQUIRE(tensor);
  const auto numbers = to_int64s((*tensor)->view());
  REQUIRE(numbers);
  return *numbers;
}

// x [1, 3, 8] times 4, one batch each
std::vector<Batch> samples() {
  std::vector<Batch> batches;
  for (unsigned seed = 1; seed < 5; ++seed) batches.push_back(random_batch("x", {1, 3, 8}, seed));
  return batches;
}

// raw_attention() whose head `quiet` hardly reaches the output.
Model with_quiet_head(std::size_t quiet) {
  Model model = parse(raw_attention());
  Tensor wo = *model.main().initializer("wo").read();
  for (std::size_t i = quiet * 4 * 8; i < (quiet + 1) * 4 * 8; ++i) wo.as_mutable<float>()[i] *= 1e-4F;
  Rewriter rewriter(model.main());
  rewriter.set_initializer(model.main().initializer("wo"), std::move(wo));
  REQUIRE(rewriter.commit());
  return model;
}

}  // namespace

TEST_CASE("prune-heads cuts projections, biases and the shapes that name heads; the scale stays") {
  Model model = parse(raw_attention());
  CHECK(run_pipeline(model, "prune-heads{ratio=0.5}").changed);
  for (const char* weight : {"wq", "wk", "wv"}) CHECK(dims_of(model, weight) == Dims{8, 8});
  for (const char* bias : {"bq", "bk", "bv"}) CHECK(dims_of(model, bias) == Dims{8});
  CHECK(dims_of(model, "wo") == Dims{8, 8});
  CHECK(dims_of(model, "bo") == Dims{8});
  CHECK(numbers_of(model, "q_dims") == std::vector<std::int64_t>{0, 0, 2, 4});
  CHECK(numbers_of(model, "o_dims") == std::vector<std::int64_t>{0, 0, 8});
  CHECK((*model.main().constant("scale"))->as<float>()[0] == 0.5F);
  CHECK(run_on(model, random_batch("x", {2, 3, 8}, 1)).front().dims() == Dims{2, 3, 8});
}

TEST_CASE("prune-heads takes three of four heads by themselves: round_to is no matter of heads") {
  Model model = parse(raw_attention());
  CHECK(run_pipeline(model, "prune-heads{ratio=0.25}").changed);
  CHECK(dims_of(model, "wq") == Dims{8, 12});
  Model rounded = parse(raw_attention());
  CHECK(run_pipeline(rounded, "prune-heads{ratio=0.25 round_to=8}").changed);
  CHECK(dims_of(rounded, "wq") == Dims{8, 8});
}

TEST_CASE("prune-heads keeps one head at least") {
  Model model = parse(raw_attention());
  CHECK(run_pipeline(model, "prune-heads{ratio=1 max_ratio=1}").changed);
  CHECK(dims_of(model, "wq") == Dims{8, 4});
  CHECK_FALSE(run_pipeline(model, "prune-heads{ratio=1 max_ratio=1}").changed);
}

TEST_CASE("prune-heads: query heads go with the key/value head that they share") {
  Model model = parse(grouped_attention(Repeat::expand));
  CHECK(run_pipeline(model, "prune-heads{ratio=0.34}").changed);
  CHECK(dims_of(model, "wq") == Dims{8, 16});
  CHECK(dims_of(model, "wk") == Dims{8, 8});
  CHECK(dims_of(model, "wo") == Dims{16, 8});
}

TEST_CASE("prune-heads: fused attention gets the number of heads that are left") {
  Model attention = parse(fused_attention({}, ", qkv_hidden_sizes = [16, 16, 16]"));
  CHECK(run_pipeline(attention, "prune-heads{ratio=0.25}").changed);
  const Node fused = nodes_of(attention, "Attention").at(0);
  CHECK(fused.attr_int("num_heads", 0) == 3);
  CHECK(fused.attr_ints("qkv_hidden_sizes") == std::vector<std::int64_t>{12, 12, 12});
  CHECK(dims_of(attention, "w") == Dims{8, 36});
  CHECK(dims_of(attention, "b") == Dims{36});

  Model grouped = parse(fused_grouped(true));
  CHECK(run_pipeline(grouped, "prune-heads{ratio=0.34}").changed);
  const Node query_groups = nodes_of(grouped, "GroupQueryAttention").at(0);
  CHECK(query_groups.attr_int("num_heads", 0) == 4);
  CHECK(query_groups.attr_int("kv_num_heads", 0) == 2);
  CHECK(dims_of(grouped, "w") == Dims{8, 128});
}

TEST_CASE("prune-heads leaves neurons, and heads whose number the graph shows") {
  require_untouched(HEAD "g (float[N, 8] x) => (float[N, 8] y) <" + float_tensor("w1", {8, 64}, 1) + ", " +
                        float_tensor("w2", {64, 8}, 2) + "> { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
                    "prune-heads");
  const AttentionShape shape;
  std::string constants = projections(shape);
  const std::string heads = split_heads(shape, constants);
  const std::string scores =
      attention_model(shape, constants, kProjected + heads + attend(shape, constants), "", ", float[N, 4, 3, 3] p");
  require_untouched(scores, "prune-heads");
}

TEST_CASE("prune-heads: with data, whatever the criterion, the head that hardly matters goes") {
  for (const std::string criterion : {"activation", "loss", "obs"}) {
    for (const std::size_t quiet : {0UZ, 2UZ}) {
      INFO(criterion << " " << quiet);
      Model model = with_quiet_head(quiet);
      const Model original = model.clone();
      MemorySource source(samples());
      EngineActivations activations(source, 1, 0);
      EngineRunner runner;
      PassContext context;
      context.activations = &activations;
      context.runner = &runner;
      CHECK(run_pipeline(model, "prune-heads{ratio=0.25 repair=off criterion=" + criterion + "}", &context).changed);
      CHECK(dims_of(model, "wq") == Dims{8, 12});
      const Batch batch = random_batch("x", {2, 3, 8}, 99);
      CHECK(sqnr_db(run_on(original, batch), run_on(model, batch)) > 50);
    }
  }
}

TEST_CASE("prune-heads: criteria of activations need samples") {
  for (const std::string criterion : {"activation", "loss", "obs"}) {
    const auto pipeline = Pipeline::parse("prune-heads{criterion=" + criterion + "}", all_passes());
    REQUIRE(pipeline);
    Model model = parse(raw_attention());
    PassContext context;
    const auto outcome = pipeline->run(model, context, {}, nullptr);
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().code == Code::usage);
  }
}

}  // namespace onnxpress::testing
