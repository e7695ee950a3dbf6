#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "engine/session.h"
#include "ir/rewriter.h"
#include "num/linalg.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// A matrix of the given rank, as text and as numbers.
std::vector<float> matrix(std::size_t m, std::size_t n, std::size_t rank, unsigned seed) {
  const std::vector<float> a = random_floats(m * rank, seed), b = random_floats(rank * n, seed + 100);
  std::vector<float> out(m * n);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t k = 0; k < rank; ++k) out[i * n + j] += a[i * rank + k] * b[k * n + j];
  return out;
}

std::string list_text(std::span<const float> values) {
  std::string text;
  for (const float value : values) text += fmt::format("{}{:f}", text.empty() ? "" : ", ", value);
  return text;
}
std::string weight(std::string_view dims, std::span<const float> values, std::string_view name = "W") {
  return fmt::format("float[{}] {} = {{{}}}", dims, name, list_text(values));
}

std::vector<Tensor> run_model(const Model& model, std::span<const NamedTensor> inputs) {
  EngineRunner runner;
  auto outputs = runner.run(model, inputs);
  INFO((outputs ? "" : outputs.error().text()));
  REQUIRE(outputs);
  return std::move(*outputs);
}

double max_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
  return worst;
}

std::size_t count(const Model& model, std::string_view op) {
  std::size_t found = 0;
  for (const Graph* graph : model.graphs())
    found +=
        static_cast<std::size_t>(std::ranges::count_if(graph->nodes(), [&](const Node& node) { return node.is(op); }));
  return found;
}

// The weights have exactly the rank that is asked for: the outputs must stay the same, the model become smaller, and a
// second run find nothing to do.
void require_same_outputs(const std::string& text, std::string_view pipeline, const std::vector<Dims>& input_dims) {
  INFO(text.substr(0, text.find('<', 60)) << " ... " << text.substr(text.rfind('}', text.size() - 3)));
  Model model = parse(text);
  std::vector<NamedTensor> inputs;
  const std::vector<std::string> names = model.main().inputs();
  for (std::size_t i = 0; i < input_dims.size(); ++i)
    inputs.push_back({names[i], Tensor::of_floats(input_dims[i], random_floats(*element_count(input_dims[i]), 77))});
  const std::vector<Tensor> before = run_model(model, inputs);
  REQUIRE(run_pipeline(model, pipeline).changed);
  CHECK_FALSE(model.main().initializer("W"));
  REQUIRE(model.main().initializer("W_lowrank_a"));
  const std::vector<Tensor> after = run_model(model, inputs);
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(after[i].dims() == before[i].dims());
    CHECK(max_difference(after[i].as<float>(), before[i].as<float>()) < 1e-4);
  }
  CHECK_FALSE(run_pipeline(model, pipeline).changed);
}

std::string journal_of(std::string_view text, std::string_view pipeline) {
  Model model = parse(text);
  PassContext context;
  run_pipeline(model, pipeline, &context);
  std::string lines;
  for (const JournalEntry& entry : context.journal.entries())
    lines += fmt::format("{} {}: {}\n", entry.done ? "done" : "skipped", entry.node, entry.text);
  return lines;
}
void require_skipped(std::string_view text, std::string_view pipeline, std::string_view reason) {
  require_untouched(text, pipeline);
  const std::string journal = journal_of(text, pipeline);
  INFO(journal << "should say: " << reason);
  CHECK(journal.find(reason) != std::string::npos);
  CHECK(journal.find("done") == std::string::npos);
}

std::string matmul(std::span<const float> values, std::string_view dims = "12,10", std::string_view head = HEAD) {
  return fmt::format("{}g (float[n,12] x) => (float[n,10] y) <{}> {{ y = MatMul(x, W) }}", head, weight(dims, values));
}

std::vector<double> as_doubles(std::span<const float> values) { return {values.begin(), values.end()}; }

}  // namespace

TEST_CASE("lowrank-svd makes two nodes of one") {
  Model model = parse(matmul(matrix(12, 10, 3, 1)));
  run_pipeline(model, "lowrank-svd{rank=3}");
  REQUIRE(model.main().nodes().size() == 2);
  const Node first = model.main().nodes()[0], second = model.main().nodes()[1];
  CHECK(first.inputs() == std::vector<std::string>{"x", "W_lowrank_a"});
  CHECK(first.outputs() == std::vector<std::string>{"y_lowrank"});
  CHECK(second.inputs() == std::vector<std::string>{"y_lowrank", "W_lowrank_b"});
  CHECK(second.outputs() == std::vector<std::string>{"y"});
  CHECK(model.main().initializers().size() == 2);
  CHECK(model.main().initializer("W_lowrank_a").dims() == Dims{12, 3});
  CHECK(model.main().initializer("W_lowrank_b").dims() == Dims{3, 10});
}

TEST_CASE("lowrank-svd keeps the name of the node") {
  Model model = parse(HEAD "g (float[n,12] x) => (float[n,10] y) <" + weight("12,10", matrix(12, 10, 3, 1)) +
                      "> { y = MatMul(x, W) }");
  Rewriter rewriter(model.main());  // text models cannot name a node
  rewriter.prepend({.op = "MatMul", .inputs = {"x", "W"}, .outputs = {"y"}, .name = "fc1"});
  rewriter.erase(model.main().nodes()[0]);
  REQUIRE(rewriter.commit());
  run_pipeline(model, "lowrank-svd{rank=3}");
  REQUIRE(model.main().nodes().size() == 2);
  CHECK(model.main().nodes()[0].name() == "fc1_lowrank");
  CHECK(model.main().nodes()[1].name() == "fc1");
  // Selecting one half by its name does not make it factorable again.
  CHECK_FALSE(run_pipeline(model, "lowrank-svd{rank=1 only=fc1}").changed);
  CHECK_FALSE(run_pipeline(model, "lowrank-svd{rank=1 only=fc1_lowrank}").changed);
}

TEST_CASE("lowrank-svd: MatMul with the constant on either side, any number of axes") {
  const std::string w = weight("12,10", matrix(12, 10, 3, 2));
  require_same_outputs(HEAD "g (float[4,12] x) => (float[4,10] y) <" + w + "> { y = MatMul(x, W) }",
                       "lowrank-svd{rank=3}", {{4, 12}});
  require_same_outputs(HEAD "g (float[2,3,12] x) => (float[2,3,10] y) <" + w + "> { y = MatMul(x, W) }",
                       "lowrank-svd{rank=3}", {{2, 3, 12}});
  require_same_outputs(HEAD "g (float[12] x) => (float[10] y) <" + w + "> { y = MatMul(x, W) }", "lowrank-svd{rank=3}",
                       {{12}});
  require_same_outputs(HEAD "g (float[2,10,5] x) => (float[2,12,5] y) <" + w + "> { y = MatMul(W, x) }",
                       "lowrank-svd{rank=3}", {{2, 10, 5}});
  require_same_outputs(HEAD "g (float[10] x) => (float[12] y) <" + w + "> { y = MatMul(W, x) }", "lowrank-svd{rank=3}",
                       {{10}});
}

TEST_CASE("lowrank-svd: Gemm in every orientation, with and without bias, old opsets too") {
  for (const int opset : {7, 9, 10, 11, 17})
    for (const int slot : {0, 1})
      for (const int trans_a : {0, 1})
        for (const int trans_b : {0, 1})
          for (const bool bias : {true, false}) {
            if (!bias && opset < 11) continue;
            // y [M, N] = a' [M, K] b' [K, N] with the constant in `slot`; M=5 or 12, K=10, N=12 or 5.
            const bool is_a = slot == 0;
            const bool weight_transposed = (is_a ? trans_a : trans_b) != 0;
            const auto dims = [](std::string_view rows, std::string_view cols, bool transposed) {
              return transposed ? fmt::format("{},{}", cols, rows) : fmt::format("{},{}", rows, cols);
            };
            const std::string weight_dims = is_a ? dims("12", "10", trans_a != 0) : dims("10", "12", trans_b != 0);
            const std::string data_dims = is_a ? dims("10", "5", trans_b != 0) : dims("5", "10", trans_a != 0);
            const Dims data = (is_a ? trans_b != 0 : trans_a == 0) ? Dims{5, 10} : Dims{10, 5};
            const bool tall = is_a != weight_transposed;  // the stored weight is [12, 10]
            const std::string text = fmt::format(
                "<ir_version: 7, opset_import: [\"\": {}]> g (float[{}] x) => (float[{}] y) <{}, float[{}] c = {{{}}}> "
                "{{ y = Gemm<alpha = 0.5, beta = 2.0, transA = {}, transB = {}>({}{}) }}",
                opset, data_dims, is_a ? "12,5" : "5,12",
                weight(weight_dims, tall ? matrix(12, 10, 3, 3) : matrix(10, 12, 3, 3)), is_a ? "5" : "12",
                list_text(random_floats(is_a ? 5 : 12, 4)), trans_a, trans_b, is_a ? "W, x" : "x, W",
                bias ? ", c" : "");
            require_same_outputs(text, "lowrank-svd{rank=3}", {data});
          }
}

TEST_CASE("lowrank-svd: 1x1 Conv") {
  const std::string b = "float[10] b = {" + list_text(random_floats(10, 9)) + "}";
  const std::string head = HEAD "g (float[2,12,6,7] x) => (float[2,10,h,w] y) <";
  const std::string w = weight("10,12,1,1", matrix(10, 12, 3, 5));
  for (const char* attributes : {"", "<kernel_shape = [1, 1]>", "<strides = [2, 3], pads = [1, 0, 2, 1]>",
                                 "<auto_pad = \"SAME_UPPER\", strides = [2, 2]>",
                                 "<kernel_shape = [1, 1], dilations = [2, 2], pads = [1, 1, 1, 1], group = 1>"}) {
    require_same_outputs(head + w + ", " + b + "> { y = Conv" + attributes + "(x, W, b) }", "lowrank-svd{rank=3}",
                         {{2, 12, 6, 7}});
    require_same_outputs(head + w + "> { y = Conv" + attributes + "(x, W) }", "lowrank-svd{rank=3}", {{2, 12, 6, 7}});
  }
  require_same_outputs(HEAD "g (float[2,12,8] x) => (float[2,10,m] y) <" + weight("10,12,1", matrix(10, 12, 3, 5)) +
                           "> { y = Conv<strides = [3]>(x, W) }",
                       "lowrank-svd{rank=3}", {{2, 12, 8}});
}

TEST_CASE("lowrank-svd: a Conv pair has the attributes where they belong") {
  Model model =
      parse(HEAD "g (float[1,12,6,6] x) => (float[1,10,h,w] y) <" + weight("10,12,1,1", matrix(10, 12, 3, 5)) +
            "> { y = Conv<kernel_shape = [1, 1], pads = [1, 1, 1, 1], strides = [2, 2]>(x, W) }");
  run_pipeline(model, "lowrank-svd{rank=3}");
  const auto& nodes = model.main().nodes();
  CHECK(nodes[0].attr_ints("strides") == std::vector<std::int64_t>{2, 2});
  CHECK(nodes[0].attr_ints("pads") == std::vector<std::int64_t>{1, 1, 1, 1});
  CHECK(nodes[1].attr_names() == std::vector<std::string>{"kernel_shape"});
  CHECK(model.main().initializer("W_lowrank_b").dims() == Dims{3, 12, 1, 1});
  CHECK(model.main().initializer("W_lowrank_a").dims() == Dims{10, 3, 1, 1});
}

TEST_CASE("lowrank-svd keeps the energy it is asked for, with the smallest rank") {
  // A spectrum that falls: rank 1 parts of falling size.
  std::vector<float> values(24 * 20);
  for (unsigned k = 0; k < 20; ++k) {
    const auto part = matrix(24, 20, 1, k);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += part[i] * std::pow(0.7F, static_cast<float>(k));
  }
  const std::string text =
      HEAD "g (float[n,24] x) => (float[n,20] y) <" + weight("24,20", values) + "> { y = MatMul(x, W) }";
  const std::vector<double> w = as_doubles(parse(text).main().initializer("W").read()->as<float>());
  for (const double energy : {0.5, 0.8, 0.9, 0.98}) {
    Model model = parse(text);
    run_pipeline(model, energy == 0.98 ? "lowrank-svd" : fmt::format("lowrank-svd{{energy={}}}", energy));
    const Tensor a = *model.main().initializer("W_lowrank_a").read(),
                 b = *model.main().initializer("W_lowrank_b").read();
    const auto rank = static_cast<std::size_t>(a.dims()[1]);
    CHECK(rank * 44 < 480);
    std::vector<double> product(w.size());
    gemm({24, 20, rank}, 1, as_doubles(a.as<float>()), as_doubles(b.as<float>()), 0, product);
    double lost = 0, total = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      lost += (w[i] - product[i]) * (w[i] - product[i]);
      total += w[i] * w[i];
    }
    CHECK(lost <= (1 - energy) * total * (1 + 1e-6));
    if (rank > 1) CHECK(energy_of_rank(thin_svd(w, 24, 20)->s, rank - 1) < energy);
  }
}

TEST_CASE("lowrank-svd: rank from ratio, rounding, least saving") {
  const auto rank_of = [](std::string_view pipeline) -> std::int64_t {
    Model model = parse(HEAD "g (float[n,24] x) => (float[n,24] y) <" + weight("24,24", random_floats(576, 6)) +
                        "> { y = MatMul(x, W) }");  // break-even rank 12
    run_pipeline(model, pipeline);
    const Initializer a = model.main().initializer("W_lowrank_a");
    return a ? a.dims()[1] : 0;
  };
  CHECK(rank_of("lowrank-svd{ratio=0.5}") == 6);
  CHECK(rank_of("lowrank-svd{ratio=0.6}") == 7);
  CHECK(rank_of("lowrank-svd{ratio=0.01}") == 1);
  CHECK(rank_of("lowrank-svd{ratio=1}") == 0);
  CHECK(rank_of("lowrank-svd{rank=11}") == 11);
  CHECK(rank_of("lowrank-svd{rank=12}") == 0);
  CHECK(rank_of("lowrank-svd{rank=500}") == 0);
  CHECK(rank_of("lowrank-svd{rank=5 round_to=8}") == 8);
  CHECK(rank_of("lowrank-svd{rank=8 round_to=8}") == 8);
  CHECK(rank_of("lowrank-svd{rank=9 round_to=8}") == 9);  // 16 would not be smaller
  CHECK(rank_of("lowrank-svd{rank=9 round_to=100}") == 9);
  CHECK(rank_of("lowrank-svd{rank=9 min_saving=0.25}") == 9);
  CHECK(rank_of("lowrank-svd{rank=9 min_saving=0.26}") == 0);
}

TEST_CASE("lowrank-svd leaves what would not get smaller, with the numbers") {
  const std::string text = matmul(random_floats(120, 7));
  require_skipped(text, "lowrank-svd{rank=6}", "rank 6 of 12x10 takes 132 weights instead of 120: not smaller");
  require_skipped(text, "lowrank-svd{energy=1}", "rank 10 of 12x10 takes 220 weights instead of 120: not smaller");
  require_skipped(text, "lowrank-svd{rank=5 min_saving=0.5}", "saves less than 0.5");
  CHECK(journal_of(matmul(matrix(12, 10, 3, 1)), "lowrank-svd{rank=3}") ==
        "done MatMul->y: rank 3 of 12x10: 120 -> 66 weights, 100.000 % of the energy\n");
}

TEST_CASE("lowrank-svd takes one measure of the rank") {
  for (const char* options : {"rank=3 energy=0.9", "rank=3 ratio=0.5", "ratio=0.5 energy=0.5"}) {
    const auto pipeline = Pipeline::parse(fmt::format("lowrank-svd{{{}}}", options), all_passes());
    REQUIRE(pipeline);
    Model model = parse(matmul(matrix(12, 10, 3, 1)));
    PassContext context;
    const auto outcome = pipeline->run(model, context, {}, nullptr);
    REQUIRE_FALSE(outcome);
    CHECK(outcome.error().code == Code::usage);
  }
  for (const char* options : {"rank=0", "ratio=1.5", "energy=-0.1", "round_to=0", "min_saving=2"})
    CHECK_FALSE(Pipeline::parse(fmt::format("lowrank-svd{{{}}}", options), all_passes()));
}

TEST_CASE("lowrank-svd factors a shared weight once") {
  const std::string text = HEAD "g (float[4,12] x, float[10,4] z) => (float[4,10] y, float[12,4] u, float[4,10] v) <" +
                           weight("12,10", matrix(12, 10, 3, 8)) +
                           "> { y = MatMul(x, W) u = MatMul(W, z) v = Gemm(x, W) }";
  require_same_outputs(text, "lowrank-svd{rank=3}", {{4, 12}, {10, 4}});
  Model model = parse(text);
  run_pipeline(model, "lowrank-svd{rank=3}");
  CHECK(model.main().initializers().size() == 2);
  CHECK(model.main().nodes().size() == 6);
}

TEST_CASE("lowrank-svd leaves a weight that something else reads") {
  const std::string w = weight("12,10", matrix(12, 10, 3, 8));
  const std::string shared = HEAD "g (float[4,12] x, int64[2] i) => (float[4,10] y, float[2,10] z) <" + w +
                             "> { y = MatMul(x, W) z = Gather(W, i) }";
  require_skipped(shared, "lowrank-svd{rank=3}", "weight 'W' is also read by Gather->z");
  const std::string two =
      HEAD "g (float[4,12] x) => (float[4,10] y, float[4,10] z) <" + w + "> { y = MatMul(x, W) z = Gemm(x, W) }";
  require_skipped(two, "lowrank-svd{rank=3 skip=op:Gemm}", "weight 'W' is also read by Gemm->z");
  require_skipped(
      "<ir_version: 8, opset_import: [\"\": 17, \"custom\": 1]> g (float[4,12] x) => (float[4,10] y, float[4,10] z) <" +
          w + "> { y = MatMul(x, W) z = custom.Foo(W) }",
      "lowrank-svd{rank=3}", "weight 'W' is also read by Foo->z");
  require_skipped(HEAD "g (float[12,12] x) => (float[12,10] y) <" + w + "> { y = Gemm(x, W, W) }",
                  "lowrank-svd{rank=3}", "weight 'W' is also read by Gemm->y");
}

TEST_CASE("lowrank-svd works beside operators it does not know") {
  Model model =
      parse("<ir_version: 8, opset_import: [\"\": 17, \"custom\": 1]> g (float[4,12] x) => (float[4,10] z) <" +
            weight("12,10", matrix(12, 10, 3, 8)) + ", " + weight("10,12", matrix(10, 12, 3, 9), "V") +
            "> { a = custom.Foo(x) y = MatMul(a, W) z = custom.MatMul(y, V) }");
  CHECK(run_pipeline(model, "lowrank-svd{rank=3}").changed);
  CHECK(model.main().initializer("V"));
  CHECK(model.main().nodes().size() == 4);
}

TEST_CASE("lowrank-svd leaves weights that are graph inputs or outputs") {
  const std::string w = weight("12,10", matrix(12, 10, 3, 8));
  require_skipped(HEAD "g (float[4,12] x, float[12,10] W) => (float[4,10] y) <" + w + "> { y = MatMul(x, W) }",
                  "lowrank-svd{rank=3}", "weight 'W' is also a graph input");
  require_skipped(HEAD "g (float[4,12] x) => (float[4,10] y, float[12,10] W) <" + w + "> { y = MatMul(x, W) }",
                  "lowrank-svd{rank=3}", "weight 'W' is also a graph output");
  // Up to IR 3 every initializer is listed as an input; that makes it no choice of the caller.
  Model old = parse("<ir_version: 3, opset_import: [\"\": 9]> g (float[4,12] x, float[12,10] W) => (float[4,10] y) <" +
                    w + "> { y = MatMul(x, W) }");
  CHECK(run_pipeline(old, "lowrank-svd{rank=3}").changed);
  CHECK(old.main().inputs() == std::vector<std::string>{"x", "W_lowrank_a", "W_lowrank_b"});
}

TEST_CASE("lowrank-svd leaves what it cannot split") {
  const std::string pass = "lowrank-svd{rank=1}";
  require_skipped(HEAD "g (float[1,4,6,6] x) => (float[1,4,h,w] y) <" + weight("4,4,3,3", random_floats(144, 1)) +
                      "> { y = Conv(x, W) }",
                  pass, "is not 1x1");
  require_skipped(HEAD "g (float[1,8,6,6] x) => (float[1,8,6,6] y) <" + weight("8,4,1,1", random_floats(32, 1)) +
                      "> { y = Conv<group = 2>(x, W) }",
                  pass, "it has 2 groups");
  require_skipped(HEAD "g (float[2,4,4] x) => (float[2,4,4] y) <" + weight("2,4,4", random_floats(32, 1)) +
                      "> { y = MatMul(x, W) }",
                  pass, "its weight has 3 axes, not 2");
  require_skipped(
      HEAD "g (int32[n,3] x) => (int32[n,3] y) <int32[3,3] W = {1, 2, 3, 4, 5, 6, 7, 8, 9}> { y = MatMul(x, W) }", pass,
      "weight 'W' is int32");
  require_skipped(HEAD "g (float[n,3] x, float[3,3] w) => (float[n,3] y) { y = MatMul(x, w) }", pass,
                  "its weight is not a constant");
  require_skipped(HEAD "g (float[n,3] x) => (float[3,3] y) <" + weight("3,3", random_floats(9, 1), "V") + ", " +
                      weight("3,3", random_floats(9, 1)) + "> { y = MatMul(V, W) }",
                  pass, "both operands are constant");
  require_skipped(HEAD "g (float[n,3] x) => (float[n,3] y) { W = Constant<value = float[3,3] {" +
                      list_text(random_floats(9, 1)) + "}>() y = MatMul(x, W) }",
                  pass, "run clean-constants first");
}

TEST_CASE("lowrank-svd leaves a weight with NaN") {
  const std::vector<float> values(9, 1.0F);
  Model model = parse(HEAD "g (float[n,3] x) => (float[n,3] y) <" + weight("3,3", values) + "> { y = MatMul(x, W) }");
  std::vector<float> broken = values;
  broken[4] = std::numeric_limits<float>::quiet_NaN();
  Rewriter rewriter(model.main());
  rewriter.set_initializer(model.main().initializer("W"), Tensor::of_floats({3, 3}, broken));
  REQUIRE(rewriter.commit());
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "lowrank-svd{rank=1}", &context).changed);
  REQUIRE(context.journal.entries().size() == 1);
  CHECK(context.journal.entries()[0].text == "weight 'W': it has NaN or infinite values");
}

TEST_CASE("lowrank-svd of a zero matrix") {
  require_same_outputs(matmul(std::vector<float>(120)), "lowrank-svd", {{4, 12}});
}

TEST_CASE("lowrank-svd takes 16-bit floats and double") {
  for (const char* type : {"float16", "bfloat16", "double"}) {
    const std::string list = std::string_view(type) == "double" ? "4.0, 2.0, 2.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0"
                             : std::string_view(type) == "float16"
                                 ? "17408, 16384, 16384, 16384, 15360, 15360, 16384, 15360, 15360"
                                 : "16512, 16384, 16384, 16384, 16256, 16256, 16384, 16256, 16256";
    Model model = parse(
        fmt::format(HEAD "g ({0}[n,3] x) => ({0}[n,3] y) <{0}[3,3] W = {{{1}}}> {{ y = MatMul(x, W) }}", type, list));
    const DType dtype = model.main().initializer("W").dtype();
    const std::vector<float> w = *to_floats(model.main().initializer("W").read()->view());
    CHECK(run_pipeline(model, "lowrank-svd{rank=1}").changed);
    const Tensor a = *model.main().initializer("W_lowrank_a").read(),
                 b = *model.main().initializer("W_lowrank_b").read();
    CHECK(a.dtype() == dtype);
    CHECK(b.dtype() == dtype);
    const std::vector<float> left = *to_floats(a.view()), right = *to_floats(b.view());
    for (std::size_t i = 0; i < 9; ++i) CHECK(std::abs(left[i / 3] * right[i % 3] - w[i]) < 0.03);
  }
}

TEST_CASE("lowrank-svd reaches into bodies and to the weights they capture") {
  const std::string text = HEAD "g (float[4,12] x, bool c) => (float[4,10] y) <" +
                           weight("12,10", matrix(12, 10, 3, 8)) +
                           "> { y = If(c) <"
                           "then_branch = t () => (float[4,10] p) { p = MatMul(x, W) }, "
                           "else_branch = e () => (float[4,10] q) <" +
                           weight("12,10", matrix(12, 10, 3, 9), "V") + "> { q = MatMul(x, V) } > }";
  Model model = parse(text);
  const auto inputs = [](bool c) {
    return std::vector<NamedTensor>{{"x", Tensor::of_floats({4, 12}, random_floats(48, 3))},
                                    {"c", Tensor::scalar<bool>(DType::boolean, c)}};
  };
  const std::vector<Tensor> then_before = run_model(model, inputs(true)), else_before = run_model(model, inputs(false));
  CHECK(run_pipeline(model, "lowrank-svd{rank=3}").changed);
  CHECK(count(model, "MatMul") == 4);
  CHECK(model.main().initializer("W_lowrank_a"));
  CHECK_FALSE(model.main().initializer("V_lowrank_a"));  // it stands in the body, where V was
  CHECK(max_difference(run_model(model, inputs(true))[0].as<float>(), then_before[0].as<float>()) < 1e-4);
  CHECK(max_difference(run_model(model, inputs(false))[0].as<float>(), else_before[0].as<float>()) < 1e-4);
  CHECK_FALSE(run_pipeline(model, "lowrank-svd{rank=3}").changed);
}

TEST_CASE("lowrank-svd leaves a weight that a body hands out") {
  require_skipped(HEAD "g (float[12,10] x, float[4,12] v, bool c) => (float[4,10] z, float[12,10] y) <" +
                      weight("12,10", matrix(12, 10, 3, 8)) +
                      "> { y = If(c) <then_branch = t () => (float[12,10] p) { p = Identity(x) },"
                      "else_branch = e () => (float[12,10] W) { unused = Identity(x) }> z = MatMul(v, W) }",
                  "lowrank-svd{rank=3}", "handed out by a nested body");
}

TEST_CASE("lowrank-svd knows a pair, and what only looks like one") {
  const std::string weights =
      weight("12,3", random_floats(36, 1), "A") + ", " + weight("3,10", random_floats(30, 2), "B");
  require_skipped(HEAD "g (float[4,12] x) => (float[4,10] y) <" + weights + "> { a = MatMul(x, A) y = MatMul(a, B) }",
                  "lowrank-svd{rank=1}", "half of a low-rank pair already");
  const auto changes = [](const std::string& text) {
    Model model = parse(text);
    return run_pipeline(model, "lowrank-svd{rank=1}").changed;
  };
  // A non-linearity between, another reader of the middle, a middle that is an output, a bias on the first.
  CHECK(changes(HEAD "g (float[4,12] x) => (float[4,10] y) <" + weights +
                "> { a = MatMul(x, A) b = Relu(a) y = MatMul(b, B) }"));
  CHECK(changes(HEAD "g (float[4,12] x) => (float[4,10] y, float[4,3] z) <" + weights +
                "> { a = MatMul(x, A) y = MatMul(a, B) z = Relu(a) }"));
  CHECK(changes(HEAD "g (float[4,12] x) => (float[4,10] y, float[4,3] a) <" + weights +
                "> { a = MatMul(x, A) y = MatMul(a, B) }"));
  CHECK(changes(HEAD "g (float[4,12] x) => (float[4,10] y) <" + weights +
                ", float[3] c = {1.0, 2.0, 3.0}> { a = Gemm(x, A, c) y = Gemm(a, B) }"));
}

TEST_CASE("lowrank-svd gives the same bytes at any thread count") {
  std::string weights, nodes;
  for (int i = 0; i < 12; ++i) {
    weights +=
        (i == 0 ? "" : ", ") + weight("16,16", matrix(16, 16, 5, static_cast<unsigned>(i)), fmt::format("W{}", i));
    nodes += fmt::format("r{0} = Relu({1}) v{0} = MatMul(r{0}, W{0}) ", i, i == 0 ? "x" : fmt::format("v{}", i - 1));
  }
  const std::string text = HEAD "g (float[n,16] x) => (float[n,16] y) <" + weights + "> { " + nodes + "y = Relu(v11) }";
  std::vector<std::string> prints;
  for (const unsigned jobs : {1U, 2U, 8U}) {
    Model model = parse(text);
    PassContext context;
    context.jobs = jobs;
    CHECK(run_pipeline(model, "lowrank-svd{energy=0.9}", &context).changed);
    prints.push_back(model.fingerprint().value());
  }
  CHECK(prints[0] == prints[1]);
  CHECK(prints[0] == prints[2]);
}

}  // namespace onnxpress::testing
