#include <catch2/catch_test_macros.hpp>
#include <set>

#include "engine/activations.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// Scores of 8 classes behind three blocks; the last layers of the second and third add little, and least.
std::string three_blocks(const std::string& input = "float[1, 8] x") {
  std::string weights = float_tensor("e", {8, 8}, 1) + ", " + float_tensor("h", {8, 8}, 2), nodes;
  const float scales[] = {1, 0.2F, 0.05F};
  for (int i = 1; i <= 3; ++i) {
    const std::string n = std::to_string(i), before = std::to_string(i - 1);
    weights += ", " + float_tensor("a" + n, {8, 8}, static_cast<unsigned>(10 + i)) + ", " +
               float_tensor("b" + n, {8, 8}, static_cast<unsigned>(20 + i), scales[i - 1]);
    nodes += "m" + n + " = MatMul(s" + before + ", a" + n + ") r" + n + " = Relu(m" + n + ") f" + n + " = MatMul(r" +
             n + ", b" + n + ") s" + n + " = Add(s" + before + ", f" + n + ") ";
  }
  return HEAD "g (" + input + ") => (float[1, 8] y) <" + weights + "> { s0 = MatMul(x, e) " + nodes +
         "y = MatMul(s3, h) }";
}

std::vector<Batch> samples(const Dims& dims = {1, 8}, unsigned count = 20) {
  std::vector<Batch> batches;
  for (unsigned n = 0; n < count; ++n) batches.push_back(random_batch("x", dims, 100 + n));
  return batches;
}

struct Pruned {
  Model model;
  PassContext context = {};
  Outcome outcome = {};
  std::set<std::string> left = {};  // values of the main graph
};

Pruned prune(const std::string& text, const std::string& options, std::vector<Batch> batches = samples(),
             unsigned jobs = 1) {
  Pruned out{.model = parse(text)};
  MemorySource source(std::move(batches));
  EngineActivations activations(source, jobs, 0);
  out.context.activations = source.size() > 0 ? &activations : nullptr;
  out.context.jobs = jobs;
  out.outcome = run_pipeline(out.model, "prune-layers" + options, &out.context);
  out.context.activations = nullptr;
  for (const Node& node : out.model.main().nodes())
    for (const std::string& output : node.outputs()) out.left.insert(output);
  CHECK(out.outcome.changed == (dump(out.model) != dump(parse(text))));
  return out;
}

std::string done_text(const PassContext& context, const std::string& label) {
  for (const JournalEntry& entry : context.journal.entries())
    if (entry.done && entry.node == label) return entry.text;
  return "";
}

}  // namespace

TEST_CASE("prune-layers removes the block that matters least") {
  for (const std::string criterion : {"divergence", "once", "influence"}) {
    const Pruned pruned = prune(three_blocks(), "{criterion=" + criterion + " repair=off}");
    INFO(criterion);
    CHECK_FALSE(pruned.left.contains("s3"));
    CHECK(pruned.left.contains("s2"));
    CHECK(pruned.left.contains("s1"));
    CHECK_FALSE(pruned.model.main().initializer("a3"));
    CHECK_FALSE(pruned.model.main().initializer("b3"));
    CHECK(done_text(pruned.context, "Add->s3").find("the others: Add->s1") != std::string::npos);
    CHECK(skip_reason(pruned.context, "Add->s1").find("kept: ") == 0);
  }
}

TEST_CASE("prune-layers: how many go, and which stay") {
  const auto left = [](const std::string& options) {
    const Pruned pruned = prune(three_blocks(), options);
    std::string names;
    for (const std::string name : {"s1", "s2", "s3"})
      if (pruned.left.contains(name)) names += name;
    return names;
  };
  CHECK(left("{count=2 repair=off}") == "s1");
  CHECK(left("{count=2}") == "s1");
  CHECK(left("{count=5 repair=off}") == "");
  CHECK(left("{ratio=0.7 repair=off}") == "s1");
  CHECK(left("{ratio=0.3}") == "s1s2s3");
  CHECK(left("{keep_last=1 repair=off}") == "s1s3");
  CHECK(left("{keep_last=1 keep_first=2}") == "s1s2s3");
  CHECK(left("{skip=\"MatMul->f3\" repair=off}") == "s1s3");
  CHECK(left("{only=[\"*1\"] repair=off}") == "s2s3");
  CHECK(left("{max_divergence=1e-9}") == "s1s2s3");
}

TEST_CASE("prune-layers: repair brings the outputs closer") {
  const Batch fresh = random_batch("x", {1, 8}, 999);
  const auto expected = run_on(parse(three_blocks()), fresh);
  const auto distance = [&](const std::string& options) {
    return sqnr_db(expected, run_on(prune(three_blocks(), options, samples({1, 8}, 100)).model, fresh));
  };
  const double without = distance("{keep_last=1 repair=off}"), with = distance("{keep_last=1}");
  INFO(without << " dB -> " << with << " dB");
  CHECK(with > without + 3);
}

TEST_CASE("prune-layers draws by the seed and needs no data then") {
  std::set<std::string> results;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    Model model = parse(three_blocks());
    PassContext context;
    context.seed = seed;
    CHECK(run_pipeline(model, "prune-layers{criterion=random}", &context).changed);
    Model again = parse(three_blocks());
    PassContext other;
    other.seed = seed;
    run_pipeline(again, "prune-layers{criterion=random}", &other);
    CHECK(dump(model) == dump(again));
    results.insert(dump(model));
  }
  CHECK(results.size() > 1);
}

TEST_CASE("prune-layers: perplexity of the samples' own tokens") {
  const std::string text = HEAD "g (int64[1, S] x) => (float[1, S, 4] y) <" + float_tensor("t", {4, 6}, 1) + ", " +
                           float_tensor("a", {6, 6}, 2, 0.01F) + ", " + float_tensor("b", {6, 6}, 3) + ", " +
                           float_tensor("h", {6, 4}, 4) +
                           "> { e = Gather(t, x) f = MatMul(e, a) s = Add(e, f) k = MatMul(s, b) u = Add(s, k) "
                           "y = MatMul(u, h) }";
  std::vector<Batch> batches;
  for (std::int64_t n = 0; n < 6; ++n) {
    Batch batch;
    batch.samples = 1;
    batch.inputs.push_back({"x", Tensor::of_int64s({1, 5}, std::vector<std::int64_t>{n % 4, 1, 2, 3, (n + 1) % 4})});
    batches.push_back(std::move(batch));
  }
  const Pruned pruned = prune(text, "{criterion=perplexity repair=off}", std::move(batches));
  CHECK(pruned.outcome.changed);
  CHECK(done_text(pruned.context, pruned.left.contains("s") ? "Add->u" : "Add->s").find("loss of the next token") !=
        std::string::npos);
}

TEST_CASE("prune-layers takes attention and its MLP together") {
  const std::string text = HEAD "g (float[1, 3, 4] x) => (float[1, 3, 4] y) <" + float_tensor("w", {4, 4}, 1) + ", " +
                           float_tensor("v", {4, 4}, 2) +
                           "> { q = MatMul(x, w) t = Transpose<perm = [0, 2, 1]>(q) qk = MatMul(q, t) p = Softmax(qk) "
                           "o = MatMul(p, q) s = Add(x, o) f = MatMul(s, v) u = Add(s, f) y = Neg(u) }";
  const auto batches = samples({1, 3, 4});
  CHECK(prune(text, "{repair=off}", batches).left == std::set<std::string>{"y"});
  CHECK(prune(text, "{unit=sublayer repair=off}", batches).left.size() > 1);
}

TEST_CASE("prune-layers and shapes that only samples tell") {
  const auto text = [](const std::string& first) {
    return HEAD "g (float[N, A, 4] x, float[N, B, 4] z) => (float[N, C, 4] y, float[N, B, 4] n) <" +
           float_tensor("w", {4, 4}, 1) + "> { n = Neg(z) m = MatMul(x, w) f = " + first +
           " s = Add(x, f) y = Neg(s) }";
  };
  const auto batches = [](std::int64_t rows) {
    std::vector<Batch> out;
    for (unsigned n = 0; n < 6; ++n) {
      out.push_back(random_batch("x", {1, 1, 4}, n));
      out.back().inputs.push_back(
          {"z", Tensor::of_floats({1, rows, 4}, random_floats(4UL * static_cast<std::size_t>(rows), n))});
    }
    return out;
  };
  CHECK(prune(text("Add(m, z)"), "{repair=off}", batches(1)).outcome.changed);
  const Pruned wide = prune(text("Add(m, z)"), "{repair=off}", batches(3));
  CHECK_FALSE(wide.outcome.changed);
  CHECK(skip_reason(wide.context, "Add->s").find("different shapes") != std::string::npos);
  const Pruned blind = prune(text("Add(m, z)"), "{criterion=random}", {});
  CHECK_FALSE(blind.outcome.changed);
  CHECK(skip_reason(blind.context, "Add->s").find("samples would tell") != std::string::npos);
}

TEST_CASE("prune-layers leaves what is no block, with the reason, and bodies") {
  const std::string weights = float_tensor("w", {8, 8}, 1) + ", " + float_tensor("v", {8, 8}, 2);
  const Pruned read = prune(HEAD "g (float[1, 8] x) => (float[1, 8] y) <" + weights +
                                "> { m = MatMul(x, w) f = Relu(m) s = Add(x, f) y = Mul(s, m) }",
                            "");
  CHECK_FALSE(read.outcome.changed);
  CHECK(skip_reason(read.context, "Add->s").find("no residual block: it holds 'm'") == 0);
  // Scores are no tokens.
  const Pruned scores = prune(three_blocks(), "{criterion=perplexity}");
  CHECK_FALSE(scores.outcome.changed);
  CHECK(has_note(scores.context, "nothing is removed: perplexity needs"));
  CHECK_FALSE(prune(HEAD "g (float[1, 8] x) => (float[1, 8] y) <" + weights +
                        "> { a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b) }",
                    "")
                  .outcome.changed);
  CHECK_FALSE(prune(HEAD "g (float[1, 8] x, bool c) => (float[1, 8] y) <" + weights +
                        "> { y = If(c) <then_branch = t () => (float[1, 8] o) { m = MatMul(x, w) o = Add(x, m) }, "
                        "else_branch = e () => (float[1, 8] p) { p = Exp(x) }> }",
                    "{criterion=random}", {})
                  .outcome.changed);
}

TEST_CASE("prune-layers: mistakes of the user") {
  const auto code = [](const std::string& options, bool data) {
    Model model = parse(three_blocks());
    MemorySource source(samples());
    EngineActivations activations(source, 1, 0);
    PassContext context;
    if (data) context.activations = &activations;
    const auto pipeline = Pipeline::parse("prune-layers" + options, all_passes());
    REQUIRE(pipeline);
    const auto result = pipeline->run(model, context, {}, nullptr);
    return result ? Code::ok : result.error().code;
  };
  CHECK(code("", false) == Code::usage);
  CHECK(code("{count=1 ratio=0.5}", true) == Code::usage);
  CHECK(code("{criterion=random repair=on}", false) == Code::usage);
  CHECK(code("{criterion=random max_divergence=1}", false) == Code::usage);
}

TEST_CASE("prune-layers gives the same bytes at any number of threads and batch size") {
  const auto print = [](std::vector<Batch> batches, unsigned jobs) {
    return *prune(three_blocks(), "{count=2}", std::move(batches), jobs).model.fingerprint();
  };
  const std::string one = print(samples(), 1);
  CHECK(print(samples(), 4) == one);
}

}  // namespace onnxpress::testing
