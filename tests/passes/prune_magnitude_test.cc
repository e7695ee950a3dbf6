#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "data/files.h"
#include "num/select.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

constexpr std::string_view kPass = "prune-magnitude";

std::string prune(std::string_view options) { return fmt::format("{}{{min_elements=0 {}}}", kPass, options); }

// The journal of one run, a line per entry.
std::string journal_of(std::string_view text, std::string_view pipeline) {
  Model model = parse(text);
  PassContext context;
  run_pipeline(model, pipeline, &context);
  std::string lines;
  for (const JournalEntry& entry : context.journal.entries())
    lines += fmt::format("{} {}: {}\n", entry.done ? "done" : "skipped", entry.node, entry.text);
  return lines;
}
bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::string list_text(std::span<const float> values) {
  std::string text;
  for (const float value : values) text += fmt::format("{}{:f}", text.empty() ? "" : ", ", value);
  return text;
}

// Three layers of 6x6 weights of different scale.
std::string three_layers() {
  std::string weights;
  for (unsigned i = 0; i < 3; ++i) {
    std::vector<float> values = random_floats(36, i + 1);
    for (float& value : values) value *= static_cast<float>(i + 1);
    weights += fmt::format("{}float[6,6] W{} = {{{}}}", i == 0 ? "" : ", ", i, list_text(values));
  }
  return HEAD "g (float[n,6] x) => (float[n,6] y) <" + weights +
         "> { a = MatMul(x, W0) b = MatMul(a, W1) y = MatMul(b, W2) }";
}

std::uint64_t zeros_of(const Model& model, std::string_view name) {
  const auto tensor = model.main().initializer(name).read();
  REQUIRE(tensor);
  return count_zeros(tensor->view());
}

}  // namespace

TEST_CASE("prune-magnitude zeroes the smallest weights and nothing else") {
  require_rewrite(
      HEAD
      "g (float[1,2,5,5] x) => (float[1,2,5,5] y) <float[2,2,1,1] W = {4.0, -1.0, 2.0, -3.0}, float[2] b = {0.1, 0.2}>"
      "{ y = Conv(x, W, b) }",
      prune("sparsity=0.5"),
      HEAD
      "g (float[1,2,5,5] x) => (float[1,2,5,5] y) <float[2,2,1,1] W = {4.0, 0.0, 0.0, -3.0}, float[2] b = {0.1, 0.2}>"
      "{ y = Conv(x, W, b) }");
}

TEST_CASE("prune-magnitude rounds the count down and gives ties to the first") {
  require_rewrite(
      HEAD "g (float[n,1] x) => (float[n,5] y) <float[1,5] W = {1.0, -1.0, 1.0, 2.0, 1.0}> { y = MatMul(x, W) }",
      prune("sparsity=0.5"),
      HEAD "g (float[n,1] x) => (float[n,5] y) <float[1,5] W = {0.0, 0.0, 1.0, 2.0, 1.0}> { y = MatMul(x, W) }");
}

TEST_CASE("prune-magnitude counts the zeros that are there") {
  require_rewrite(HEAD "g (float[n,1] x) => (float[n,4] y) <float[1,4] W = {0.0, 3.0, 1.0, 2.0}> { y = MatMul(x, W) }",
                  prune("sparsity=0.5"),
                  HEAD "g (float[n,1] x) => (float[n,4] y) <float[1,4] W = {0.0, 3.0, 0.0, 2.0}> { y = MatMul(x, W) }");
  for (const char* scope : {"local", "global"})
    require_untouched(HEAD
                      "g (float[n,1] x) => (float[n,4] y) <float[1,4] W = {0.0, 3.0, 0.0, 2.0}> { y = MatMul(x, W) }",
                      prune(fmt::format("sparsity=0.5 scope={}", scope)));
}

TEST_CASE("prune-magnitude at the ends of the range") {
  constexpr auto text = HEAD "g (float[n,1] x) => (float[n,3] y) <float[1,3] W = {1.0, 3.0, 2.0}> { y = MatMul(x, W) }";
  for (const char* scope : {"local", "global"}) {
    require_untouched(text, prune(fmt::format("sparsity=0 scope={}", scope)));
    require_rewrite(text, prune(fmt::format("sparsity=1 scope={}", scope)),
                    HEAD "g (float[n,1] x) => (float[n,3] y) <float[1,3] W = {0.0, 0.0, 0.0}> { y = MatMul(x, W) }");
  }
}

TEST_CASE("prune-magnitude scope=global has one threshold") {
  require_rewrite(
      HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] A = {1.0, 2.0, 3.0, 4.0}, float[2,2] B = {5.0, -1.0, 6.0, 7.0}>"
      "{ a = MatMul(x, A) y = MatMul(a, B) }",
      prune("sparsity=0.5 scope=global"),
      HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] A = {0.0, 0.0, 0.0, 4.0}, float[2,2] B = {5.0, 0.0, 6.0, 7.0}>"
      "{ a = MatMul(x, A) y = MatMul(a, B) }");
}

TEST_CASE("prune-magnitude scope=global gives ties to the first tensor") {
  require_rewrite(
      HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] B = {1.0, 1.0, 1.0, 1.0}, float[2,2] A = {1.0, 9.0, -1.0, 1.0}>"
      "{ a = MatMul(x, A) y = MatMul(a, B) }",
      prune("sparsity=0.625 scope=global"),
      HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] B = {0.0, 0.0, 1.0, 1.0}, float[2,2] A = {0.0, 9.0, 0.0, 0.0}>"
      "{ a = MatMul(x, A) y = MatMul(a, B) }");
}

TEST_CASE("prune-magnitude reaches the sparsity exactly, at any thread count") {
  for (const std::uint64_t percent : {1U, 29U, 50U, 57U, 99U}) {
    for (const char* scope : {"local", "global"}) {
      const std::string pipeline =
          prune(fmt::format("sparsity={} scope={}", static_cast<double>(percent) / 100, scope));
      Model model = parse(three_layers());
      PassContext context;
      context.jobs = 8;
      run_pipeline(model, pipeline, &context);
      const std::uint64_t zeros = zeros_of(model, "W0") + zeros_of(model, "W1") + zeros_of(model, "W2");
      if (std::string_view(scope) == "local") {
        for (const char* name : {"W0", "W1", "W2"}) CHECK(zeros_of(model, name) == percent * 36 / 100);
      } else {
        CHECK(zeros == percent * 108 / 100);
        CHECK(zeros_of(model, "W0") >= zeros_of(model, "W2"));
      }
      Model alone = parse(three_layers());
      PassContext serial;
      serial.jobs = 1;
      run_pipeline(alone, pipeline, &serial);
      CHECK(alone.fingerprint().value() == model.fingerprint().value());
    }
  }
}

TEST_CASE("prune-magnitude takes every float type") {
  // 1, -0.5, 2, 0.25 as half and bfloat16 bits.
  require_rewrite(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float16[n,1] x) => (float16[n,4] y) "
      "<float16[1,4] W = {15360, 47104, 16384, 13312}> { y = MatMul(x, W) }",
      prune("sparsity=0.5"),
      "<ir_version: 8, opset_import: [\"\": 17]> g (float16[n,1] x) => (float16[n,4] y) "
      "<float16[1,4] W = {15360, 0, 16384, 0}> { y = MatMul(x, W) }");
  require_rewrite(HEAD
                  "g (bfloat16[n,1] x) => (bfloat16[n,4] y) <bfloat16[1,4] W = {16256, 48896, 16384, 16000}>"
                  "{ y = MatMul(x, W) }",
                  prune("sparsity=0.5"),
                  HEAD
                  "g (bfloat16[n,1] x) => (bfloat16[n,4] y) <bfloat16[1,4] W = {16256, 0, 16384, 0}>"
                  "{ y = MatMul(x, W) }");
  require_rewrite(
      HEAD "g (double[n,1] x) => (double[n,2] y) <double[1,2] W = {1.0000000001, 1.0}> { y = MatMul(x, W) }",
      prune("sparsity=0.5"),
      HEAD "g (double[n,1] x) => (double[n,2] y) <double[1,2] W = {1.0000000001, 0.0}> { y = MatMul(x, W) }");
}

TEST_CASE("prune-magnitude compares weights of different types by value") {
  require_rewrite(
      HEAD
      "g (float[n,2] x) => (double[n,2] y) <float[2,2] A = {1.0, 0.25, 3.0, 0.5}, double[2,2] B = {0.75, 0.375, 2.0, "
      "1.5}>"
      "{ a = MatMul(x, A) b = Cast<to = 11>(a) y = MatMul(b, B) }",
      prune("sparsity=0.375 scope=global"),
      HEAD
      "g (float[n,2] x) => (double[n,2] y) <float[2,2] A = {1.0, 0.0, 3.0, 0.0}, double[2,2] B = {0.75, 0.0, 2.0, 1.5}>"
      "{ a = MatMul(x, A) b = Cast<to = 11>(a) y = MatMul(b, B) }");
}

TEST_CASE("prune-magnitude leaves integers, vectors, biases and norm parameters") {
  require_untouched(HEAD "g (int32[n,2] x) => (int32[n,2] y) <int32[2,2] W = {1, 2, 3, 4}> { y = MatMul(x, W) }",
                    prune("sparsity=0.5"));
  require_untouched(HEAD "g (float[n,2] x) => (float[n] y) <float[2] v = {1.0, 2.0}> { y = MatMul(x, v) }",
                    prune("sparsity=0.5"));
  require_untouched(
      HEAD
      "g (float[n,2] x, float[2,2] w) => (float[n,2] z) <float[1,2] c = {1.0, 2.0}, float[2] s = {1.0, 2.0},"
      "float[2] b = {1.0, 2.0}> { y = Gemm(x, w, c) z = LayerNormalization(y, s, b) }",
      prune("sparsity=1"));
}

TEST_CASE("prune-magnitude takes W and R of an LSTM, not its bias") {
  constexpr auto model = HEAD
      "g (float[3,1,1] x) => (float[3,1,1,1] y) <float[1,4,1] W = {{{}}}, float[1,4,1] R = {{{}}}, float[1,8] B = "
      "{{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}}> {{ y = LSTM<hidden_size = 1>(x, W, R, B) }}";
  require_rewrite(fmt::format(model, "1.0, 2.0, 3.0, 4.0", "4.0, 3.0, 2.0, 1.0"), prune("sparsity=0.5"),
                  fmt::format(model, "0.0, 0.0, 3.0, 4.0", "4.0, 3.0, 0.0, 0.0"));
}

TEST_CASE("prune-magnitude prunes a constant on either side of MatMul and Gemm") {
  require_rewrite(HEAD "g (float[2,n] x) => (float[2,n] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}> { y = MatMul(W, x) }",
                  prune("sparsity=0.5"),
                  HEAD "g (float[2,n] x) => (float[2,n] y) <float[2,2] W = {0.0, 0.0, 3.0, 4.0}> { y = MatMul(W, x) }");
  require_rewrite(
      HEAD "g (float[2,3] x) => (float[2,3] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}> { y = Gemm<transA = 1>(W, x) }",
      prune("sparsity=0.5"),
      HEAD "g (float[2,3] x) => (float[2,3] y) <float[2,2] W = {0.0, 0.0, 3.0, 4.0}> { y = Gemm<transA = 1>(W, x) }");
}

TEST_CASE("prune-magnitude prunes a shared weight once") {
  constexpr auto before = HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}>"
      "{ a = MatMul(x, W) y = MatMul(a, W) }";
  require_rewrite(before, prune("sparsity=0.25"),
                  HEAD
                  "g (float[n,2] x) => (float[n,2] y) <float[2,2] W = {0.0, 2.0, 3.0, 4.0}>"
                  "{ a = MatMul(x, W) y = MatMul(a, W) }");
  CHECK(journal_of(before, prune("sparsity=0.25")) ==
        "done MatMul->a: weight 'W' [2, 2]: sparsity 0.00 -> 25.00 %\n"
        "done MatMul->y: weight 'W' [2, 2]: sparsity 0.00 -> 25.00 %\n");
}

TEST_CASE("prune-magnitude keeps a weight that another node keeps") {
  // Excluded by the user, read as a bias, read by an unknown operator.
  constexpr auto shared = HEAD
      "g (float[2,2] x) => (float[2,2] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}>"
      "{ a = MatMul(x, W) y = Gemm(a, W) }";
  require_untouched(shared, prune("sparsity=0.5 skip=op:Gemm"));
  CHECK(contains(journal_of(shared, prune("sparsity=0.5 skip=op:Gemm")),
                 "skipped MatMul->a: weight 'W' is also read by Gemm->y, which keeps it"));
  require_untouched(HEAD
                    "g (float[2,2] x) => (float[2,2] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}> { y = Gemm(x, W, W) }",
                    prune("sparsity=0.5"));
  require_untouched(
      "<ir_version: 8, opset_import: [\"\": 17, \"custom\": 1]> g (float[2,2] x) => (float[2,2] y, float[2,2] z)"
      "<float[2,2] W = {1.0, 2.0, 3.0, 4.0}> { y = MatMul(x, W) z = custom.Foo(W) }",
      prune("sparsity=0.5"));
}

TEST_CASE("prune-magnitude ignores operators of other domains") {
  constexpr auto model =
      "<ir_version: 8, opset_import: [\"\": 17, \"custom\": 1]> g (float[2,2] x) => (float[2,2] z)"
      "<float[2,2] W = {{{}}}, float[2,2] V = {{1.0, 2.0, 3.0, 4.0}}>"
      "{{ y = MatMul(x, W) z = custom.MatMul(y, V) }}";
  require_rewrite(fmt::format(model, "1.0, 2.0, 3.0, 4.0"), prune("sparsity=0.5"),
                  fmt::format(model, "0.0, 0.0, 3.0, 4.0"));
}

TEST_CASE("prune-magnitude keeps weights that are graph inputs or outputs") {
  constexpr auto input = HEAD
      "g (float[n,2] x, float[2,2] W) => (float[n,2] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}>"
      "{ y = MatMul(x, W) }";
  require_untouched(input, prune("sparsity=0.5"));
  CHECK(contains(journal_of(input, prune("sparsity=0.5")), "weight 'W' is also a graph input"));
  constexpr auto output = HEAD
      "g (float[n,2] x) => (float[n,2] y, float[2,2] W) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}>"
      "{ y = MatMul(x, W) }";
  require_untouched(output, prune("sparsity=0.5"));
  CHECK(contains(journal_of(output, prune("sparsity=0.5")), "weight 'W' is also a graph output"));
}

TEST_CASE("prune-magnitude reaches into bodies and to the weights they capture") {
  constexpr auto model = HEAD
      "g (float[2,2] x, bool c) => (float[2,2] y) <float[2,2] W = {{{}}}> {{ y = If(c) <"
      "then_branch = t () => (float[2,2] p) {{ p = MatMul(x, W) }}, "
      "else_branch = e () => (float[2,2] q) <float[2,2] V = {{{}}}> {{ q = MatMul(x, V) }} > }}";
  require_rewrite(fmt::format(model, "1.0, 2.0, 3.0, 4.0", "4.0, 3.0, 2.0, 1.0"), prune("sparsity=0.5"),
                  fmt::format(model, "0.0, 0.0, 3.0, 4.0", "4.0, 3.0, 0.0, 0.0"));
}

TEST_CASE("prune-magnitude keeps a weight that a body hands out") {
  require_untouched(HEAD
                    "g (float[2,2] x, bool c) => (float[2,2] z) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}> {"
                    "y = If(c) <then_branch = t () => (float[2,2] p) { p = Identity(x) },"
                    "else_branch = e () => (float[2,2] W) { unused = Identity(x) }> z = MatMul(y, W) }",
                    prune("sparsity=0.5"));
}

TEST_CASE("prune-magnitude prunes the value of a Constant node") {
  constexpr auto model = HEAD
      "g (float[n,2] x) => (float[n,2] y)"
      "{{ W = Constant<value = float[2,2] {{{}}}>() y = MatMul(x, W) }}";
  require_rewrite(fmt::format(model, "1.0, 2.0, 3.0, 4.0"), prune("sparsity=0.5"),
                  fmt::format(model, "0.0, 0.0, 3.0, 4.0"));
}

TEST_CASE("prune-magnitude prunes inside functions") {
  constexpr auto model =
      "<ir_version: 8, opset_import: [\"\": 17, \"local\": 1]> g (float[n,2] x) => (float[n,2] y)"
      "{{ y = local.Layer(x) }}"
      "<domain: \"local\", opset_import: [\"\": 17]> Layer (x) => (y)"
      "{{ W = Constant<value = float[2,2] {{{}}}>() y = MatMul(x, W) }}";
  require_rewrite(fmt::format(model, "1.0, 2.0, 3.0, 4.0"), prune("sparsity=0.5"),
                  fmt::format(model, "0.0, 0.0, 3.0, 4.0"));
}

TEST_CASE("prune-magnitude says what it skips and why") {
  constexpr auto small =
      HEAD "g (float[n,2] x) => (float[n,2] y) <float[2,2] W = {1.0, 2.0, 3.0, 4.0}> { y = MatMul(x, W) }";
  require_untouched(small, "prune-magnitude");
  CHECK(journal_of(small, "prune-magnitude") ==
        "skipped MatMul->y: weight 'W' has 4 elements, fewer than min_elements=256\n");
  CHECK(journal_of(small, prune("sparsity=0")) == "skipped MatMul->y: weight 'W' [2, 2] is sparse enough: 0.00 %\n");
  CHECK(journal_of(HEAD "g (float[n,2] x, float[2,2] w) => (float[n,2] y) { y = MatMul(x, w) }", "prune-magnitude") ==
        "skipped MatMul->y: its weight is not a constant\n");
  require_untouched(small, prune("sparsity=0.5 skip=op:MatMul"));
}

TEST_CASE("prune-magnitude prunes the operators it is told") {
  constexpr auto model = HEAD
      "g (int64[n] i) => (float[n,2] y) <float[2,2] E = {{{}}}, float[2,2] W = {{{}}}>"
      "{{ a = Gather(E, i) y = MatMul(a, W) }}";
  const std::string start = fmt::format(model, "1.0, 2.0, 3.0, 4.0", "1.0, 2.0, 3.0, 4.0");
  require_rewrite(start, prune("sparsity=0.5"), fmt::format(model, "1.0, 2.0, 3.0, 4.0", "0.0, 0.0, 3.0, 4.0"));
  require_rewrite(start, prune("sparsity=0.5 ops=[Gather]"),
                  fmt::format(model, "0.0, 0.0, 3.0, 4.0", "1.0, 2.0, 3.0, 4.0"));
  const auto wrong = Pipeline::parse("prune-magnitude{ops=[Conf]}", all_passes());
  REQUIRE(wrong);
  Model untouched = parse(start);
  PassContext context;
  const auto outcome = wrong->run(untouched, context, {}, nullptr);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code == Code::usage);
  CHECK(contains(outcome.error().text(), "did you mean 'Conv'"));
  CHECK_FALSE(Pipeline::parse("prune-magnitude{sparsity=1.5}", all_passes()));
}

TEST_CASE("prune-magnitude keeps N of M along the axis that is summed over") {
  // Conv: kernels as they lie; five elements a row, so that the last group has one.
  require_rewrite(HEAD
                  "g (float[1,5,3,3] x) => (float[1,2,3,3] y) <float[2,5,1,1] W = {1, 4, 2, 3, 9, -5, 1, 1, 1, 1}> "
                  "{ y = Conv(x, W) }",
                  prune("pattern=2:4"),
                  HEAD
                  "g (float[1,5,3,3] x) => (float[1,2,3,3] y) <float[2,5,1,1] W = {0, 4, 0, 3, 9, -5, 0, 0, 1, 1}> "
                  "{ y = Conv(x, W) }");
  // MatMul [K, N]: down the columns; Gemm with transB: along the rows.
  require_rewrite(
      HEAD "g (float[n,4] x) => (float[n,2] y) <float[4,2] W = {1, 8, 2, 7, 3, 6, 4, 5}> { y = MatMul(x, W) }",
      prune("pattern=1:2"),
      HEAD "g (float[n,4] x) => (float[n,2] y) <float[4,2] W = {0, 8, 2, 0, 0, 6, 4, 0}> { y = MatMul(x, W) }");
  require_rewrite(HEAD
                  "g (float[n,4] x) => (float[n,2] y) <float[2,4] W = {1, 8, 2, 7, 3, 6, 4, 5}> "
                  "{ y = Gemm<transB = 1>(x, W) }",
                  prune("pattern=1:2"),
                  HEAD
                  "g (float[n,4] x) => (float[n,2] y) <float[2,4] W = {0, 8, 0, 7, 0, 6, 0, 5}> "
                  "{ y = Gemm<transB = 1>(x, W) }");
  // ConvTranspose [Ci, Co, k]: over the input channels.
  require_rewrite(HEAD
                  "g (float[1,2,3] x) => (float[1,3,3] y) <float[2,3,1] W = {1, 2, 3, -3, -2, -1}> "
                  "{ y = ConvTranspose(x, W) }",
                  prune("pattern=1:2"),
                  HEAD
                  "g (float[1,2,3] x) => (float[1,3,3] y) <float[2,3,1] W = {0, 0, 3, -3, -2, 0}> "
                  "{ y = ConvTranspose(x, W) }");
  // Of its group: here each output sums over one.
  require_untouched(HEAD
                    "g (float[1,2,3] x) => (float[1,2,3] y) <float[2,1,1] W = {1, 2}> "
                    "{ y = ConvTranspose<group = 2>(x, W) }",
                    prune("pattern=1:2"));
}

TEST_CASE("prune-magnitude leaves a weight whose readers disagree about a row of N:M") {
  constexpr auto text = HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] W = {1, 2, 3, 4}> { a = MatMul(x, W) y = Gemm<transB = 1>(a, W) "
      "}";
  require_untouched(text, prune("pattern=1:2"));
  CHECK(contains(journal_of(text, prune("pattern=1:2")), "readers of weight 'W' sum over different axes"));
}

TEST_CASE("prune-magnitude threshold= zeroes what is below a value") {
  require_rewrite(HEAD
                  "g (float[n,1] x) => (float[n,4] y) <float[1,4] W = {0.5, -0.49, 0.51, -2}> { y = MatMul(x, W) }",
                  prune("threshold=0.5"),
                  HEAD "g (float[n,1] x) => (float[n,4] y) <float[1,4] W = {0.5, 0, 0.51, -2}> { y = MatMul(x, W) }");
  require_untouched(HEAD "g (float[n,1] x) => (float[n,2] y) <float[1,2] W = {0.5, -0.49}> { y = MatMul(x, W) }",
                    prune("threshold=0"));
  require_untouched(HEAD "g (float[n,1] x) => (float[n,2] y) <float[1,2] W = {0.5, -0.49}> { y = MatMul(x, W) }",
                    prune("threshold=-0.0"));
}

TEST_CASE("prune-magnitude compares tensors by their norm or by LAMP scores") {
  // B is A ten times as large: plain magnitudes would only prune A.
  constexpr auto model = HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] A = {{{}}}, float[2,2] B = {{{}}}>"
      "{{ a = MatMul(x, A) y = MatMul(a, B) }}";
  const std::string before = fmt::format(model, "1.0, 2.0, 3.0, 4.0", "10.0, 20.0, 30.0, 40.0");
  for (const char* scope : {"normalized", "lamp"})
    require_rewrite(before, prune(fmt::format("scope={}", scope)),
                    fmt::format(model, "0.0, 0.0, 3.0, 4.0", "0.0, 0.0, 30.0, 40.0"));
  // LAMP never empties a layer while another has more than its largest weight: that one scores 1.
  require_rewrite(fmt::format(model, "1.0, 1.0, 1.0, 1.0", "10.0, 0.1, 0.1, 0.1"), prune("scope=lamp sparsity=0.375"),
                  fmt::format(model, "1.0, 1.0, 1.0, 1.0", "10.0, 0.0, 0.0, 0.0"));
}

TEST_CASE("prune-magnitude criterion=random draws with the seed") {
  const std::string text = three_layers();
  const auto drawn = [&](std::uint64_t seed, unsigned jobs, std::string_view options) {
    Model model = parse(text);
    PassContext context;
    context.seed = seed;
    context.jobs = jobs;
    run_pipeline(model, prune(options), &context);
    CHECK(zeros_of(model, "W0") + zeros_of(model, "W1") + zeros_of(model, "W2") == 54);
    return model.fingerprint().value();
  };
  for (const char* options : {"criterion=random", "criterion=random scope=global"}) {
    CHECK(drawn(1, 1, options) == drawn(1, 8, options));
    CHECK(drawn(1, 1, options) != drawn(2, 1, options));
  }
  CHECK(drawn(1, 1, "criterion=random pattern=3:6") != drawn(1, 1, "criterion=random"));
}

TEST_CASE("prune-magnitude takes other shares for single layers, and spares the ends") {
  constexpr auto model = HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] A = {{{}}}, float[2,2] B = {{{}}}, float[2,2] C = {{{}}}>"
      "{{ a = MatMul(x, A) b = Gemm(a, B) y = MatMul(b, C) }}";
  const std::string full = "1.0, 2.0, 3.0, 4.0", half = "0.0, 0.0, 3.0, 4.0", quarter = "0.0, 2.0, 3.0, 4.0";
  const std::string before = fmt::format(model, full, full, full);
  require_rewrite(before, prune("layers=[\"op:Gemm=0.25\"]"), fmt::format(model, half, quarter, half));
  require_rewrite(before, prune("layers=[\"op:Gemm=0\",\"*=0.25\"]"), fmt::format(model, quarter, full, quarter));
  require_rewrite(before, prune("ends=false"), fmt::format(model, full, half, full));
  require_rewrite(before, prune("scope=global layers=[\"*->a=0\"]"), fmt::format(model, full, half, half));
  CHECK(contains(journal_of(before, prune("ends=false")), "skipped MatMul->a: ends=false: it is the first layer"));
  CHECK(contains(journal_of(before, prune("layers=[\"op:Gemm=0\"]")), "skipped Gemm->b: layers= leaves it"));
}

TEST_CASE("prune-magnitude takes masks from a file") {
  const TempDir folder;
  const std::string path = folder.path("masks.npz");
  write_zip(path, {{"A.npy", npy("|u1", "(2, 2)", std::string("\1\0\0\2", 4))}});
  constexpr auto model = HEAD
      "g (float[n,2] x) => (float[n,2] y) <float[2,2] A = {{{}}}, float[2,2] B = {{1.0, 2.0, 3.0, 4.0}}>"
      "{{ a = MatMul(x, A) y = MatMul(a, B) }}";
  const std::string before = fmt::format(model, "1.0, 2.0, 3.0, 4.0"), option = "mask=\"" + path + "\"";
  require_rewrite(before, prune(option), fmt::format(model, "1.0, 0.0, 0.0, 4.0"));
  CHECK(contains(journal_of(before, prune(option)), "skipped MatMul->y: there is no mask for weight 'B'"));
  write_zip(path, {{"AB.npy", npy("|u1", "(2, 2)", std::string(4, '\0'))}});
  const auto fails = [&](std::string_view options) {
    const auto pipeline = Pipeline::parse(prune(options), all_passes());
    if (!pipeline) return pipeline.error().text();
    Model untouched = parse(before);
    PassContext context;
    const auto outcome = pipeline->run(untouched, context, {}, nullptr);
    REQUIRE_FALSE(outcome);
    return outcome.error().text();
  };
  CHECK(contains(fails(option), "'AB' is no weight of the model that can be pruned"));
  CHECK(contains(fails(option), "did you mean 'A'"));
  write_zip(path, {{"A.npy", npy("|u1", "(4,)", std::string(4, '\0'))}});
  CHECK(contains(fails(option), "is [4], the weight [2, 2]"));
  CHECK(contains(fails("mask=\"/nowhere/m.npz\""), "m.npz"));
  for (const char* bad : {"threshold=1 scope=lamp", "pattern=2:4 scope=global", "criterion=random scope=lamp",
                          "threshold=1 pattern=2:4", "mask=m.npz criterion=random", "mask=m.npz layers=[\"Conv=0.5\"]",
                          "pattern=4:2", "layers=[Conv]", "layers=[\"Conv=2\"]"})
    CHECK_FALSE(fails(bad).empty());
}

}  // namespace onnxpress::testing
