#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Result {
  Model model = {};
  PassContext context = {};
  OpCounts runtime = {};
  double sqnr = 0;
};

Result quantize(const std::string& source, const Batch& batch, const std::string& pipeline) {
  INFO(source.substr(0, 300) << "...: " << pipeline);
  const Model before = parse(source);
  Result out{.model = parse(source)};
  CHECK(run_pipeline(out.model, pipeline, &out.context).changed);
  out.runtime = runtime_ops(out.model);
  out.sqnr = sqnr_db(run_on(before, batch), run_on(out.model, batch));
  CHECK(out.model.main().outputs() == before.main().outputs());
  CHECK_FALSE(run_pipeline(out.model, pipeline).changed);
  return out;
}

Result quantize(const std::string& source, const Dims& input, const std::string& options) {
  return quantize(source, random_batch("x", input, 7), "quant-weights{min_elements=0 " + options + "}");
}

void require_skipped(const std::string& source, std::string_view label, std::string_view reason,
                     const std::string& pipeline = "quant-weights{min_elements=0}") {
  Model model = parse(source);
  const std::string before = model.fingerprint().value();
  PassContext context = {};
  CHECK_FALSE(run_pipeline(model, pipeline, &context).changed);
  CHECK(model.fingerprint().value() == before);
  INFO(label << ": " << skip_reason(context, label));
  CHECK(skip_reason(context, label).find(reason) != std::string::npos);
}

std::string product(const std::string& node, const Dims& weight, const std::string& more = "") {
  return HEAD "g (float[6, 64] x) => (float[A, B] y) <" + float_tensor("w", weight, 1) + more + "> { " + node + " }";
}

Batch tokens(const Dims& dims, std::int64_t vocabulary) {
  Tensor ids(DType::i64, dims);
  std::int64_t next = 0;
  for (std::int64_t& id : ids.as_mutable<std::int64_t>()) id = (next += 7) % vocabulary;
  Batch batch;
  batch.inputs.push_back({"i", std::move(ids)});
  return batch;
}

TEST_CASE("quant-weights by hand: int8 codes, multiplied back") {
  require_rewrite(HEAD
                  "g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {127, -2, -127, 254}> { y = MatMul(x, w) }",
                  "quant-weights{min_elements=0}",
                  HEAD
                  "g (float[2, 2] x) => (float[2, 2] y) <int8[2, 2] w_quantized = {127, -1, -127, 127}, "
                  "float[1, 2] w_scale = {1, 2}> { w_Cast = Cast <to = 1> (w_quantized) w = Mul(w_Cast, w_scale) "
                  "y = MatMul(x, w) }");
}

TEST_CASE("quant-weights: stored weights cost the runtime nothing") {
  struct Kernel {
    std::string source, op;
    Dims input;
  };
  const std::string image = HEAD "g (float[1, 4, 8, 8] x) => (float[N, C, H, W] y) <";
  const std::string sequence = HEAD "g (float[5, 2, 10] x) => (float[S, D, B, H] y) <";
  const std::vector<Kernel> kernels = {
      {product("y = MatMul(x, w)", {64, 16}), "MatMul", {6, 64}},
      {product("y = Gemm <transB = 1, alpha = 0.5> (x, w)", {16, 64}), "Gemm", {6, 64}},
      {image + float_tensor("w", {6, 4, 3, 3}, 1) + "> { y = Conv(x, w) }", "Conv", {1, 4, 8, 8}},
      {image + float_tensor("w", {4, 3, 3, 3}, 1) + "> { y = ConvTranspose(x, w) }", "ConvTranspose", {1, 4, 8, 8}},
      {sequence + float_tensor("w", {2, 24, 10}, 1) + ", " + float_tensor("r", {2, 24, 8}, 2) +
           "> { y = GRU <hidden_size = 8, direction = \"bidirectional\"> (x, w, r) }",
       "GRU",
       {5, 2, 10}},
      {sequence + float_tensor("w", {1, 32, 10}, 1) + ", " + float_tensor("r", {1, 32, 8}, 2) +
           "> { y = LSTM <hidden_size = 8> (x, w, r) }",
       "LSTM",
       {5, 2, 10}}};
  for (const Kernel& kernel : kernels) {
    for (const std::string options : {"", "weights=int4 block=channel", "symmetric=false", "clip=mse",
                                      "weights=int4 block=channel symmetric=false clip=mse"}) {
      const Result result = quantize(kernel.source, kernel.input, options);
      INFO(kernel.op << " " << options << ": " << text(result.runtime));
      CHECK(result.runtime == OpCounts{{kernel.op, 1}});
      CHECK(result.sqnr >= (options.find("int4") == std::string::npos ? 35 : 12));
      CHECK_FALSE(result.model.main().initializer("w"));
    }
  }
}

TEST_CASE("quant-weights: blocks of a stored weight") {
  const std::string source = product("y = MatMul(x, w)", {64, 16});
  for (const std::string options : {"block=16", "block=32 symmetric=false", "block=64 clip=mse"}) {
    const Result result = quantize(source, {6, 64}, options);
    CHECK(result.runtime == OpCounts{{"MatMul", 1}});
    CHECK(result.sqnr >= 40);
  }
  // 48 does not divide by 32: one scale per channel.
  const Result odd = quantize(
      HEAD "g (float[6, 48] x) => (float[6, 8] y) <" + float_tensor("w", {48, 8}, 1) + "> { y = MatMul(x, w) }",
      {6, 48}, "block=32");
  CHECK(odd.model.main().initializer("w_scale").dims() == Dims{1, 8});
}

TEST_CASE("quant-weights: an odd number of 4-bit codes") {
  const Result result = quantize(HEAD "g (float[1, 3, 8, 8] x) => (float[N, C, H, W] y) <" +
                                     float_tensor("w", {5, 3, 3, 3}, 1) + "> { y = Conv(x, w) }",
                                 {1, 3, 8, 8}, "weights=int4");
  CHECK(result.runtime == OpCounts{{"Conv", 1}});
  CHECK(result.model.main().initializer("w_packed").bytes() == 68);  // 135 codes
  CHECK(result.sqnr >= 12);
}

TEST_CASE("quant-weights: int4 products run in 4-bit kernels") {
  const std::string bias = ", " + float_tensor("b", {16}, 2);
  for (const std::string node : {"y = MatMul(x, w)", "y = Gemm(x, w)", "y = Gemm(x, w, b)"})
    for (const std::string options : {"", "block=16", "block=64", "symmetric=false", "clip=mse"}) {
      const Result result = quantize(product(node, {64, 16}, bias), {6, 64}, "weights=int4 target=ort-x86 " + options);
      INFO(node << " " << options << " " << text(result.runtime));
      CHECK(count(result.runtime, "com.microsoft.MatMulNBits") == 1);
      CHECK(count(result.runtime, "MatMul") + count(result.runtime, "Gemm") == 0);
      CHECK(result.sqnr >= 14);
      CHECK(result.model.opset("com.microsoft") == 1);
    }
  const Result transposed =
      quantize(product("y = Gemm <transB = 1> (x, w)", {16, 64}), {6, 64}, "weights=int4 target=ort-x86");
  CHECK(count(transposed.runtime, "com.microsoft.MatMulNBits") == 1);
  CHECK(transposed.sqnr >= 14);
  // A reduction that does not divide: the last block is padded.
  const Result padded = quantize(
      HEAD "g (float[6, 45] x) => (float[6, 8] y) <" + float_tensor("w", {45, 8}, 1) + "> { y = MatMul(x, w) }",
      {6, 45}, "weights=int4 target=ort-x86");
  CHECK(count(padded.runtime, "com.microsoft.MatMulNBits") == 1);
  CHECK(padded.sqnr >= 14);
}

TEST_CASE("quant-weights: what the 4-bit kernel cannot take is stored") {
  for (const std::string node : {"y = Gemm <alpha = 0.5> (x, w)", "y = Gemm <beta = 0.5> (x, w, b)"}) {
    const Result result =
        quantize(product(node, {64, 16}, ", " + float_tensor("b", {16}, 2)), {6, 64}, "weights=int4 target=ort-x86");
    CHECK(count(result.runtime, "com.microsoft.MatMulNBits") == 0);
    CHECK(result.sqnr >= 14);
  }
}

TEST_CASE("quant-weights: an embedding is scaled as its rows are read") {
  const std::string source =
      HEAD "g (int64[2, 5] i) => (float[2, 5, 32] y) <" + float_tensor("e", {40, 32}, 1) + "> { y = Gather(e, i) }";
  const Batch batch = tokens({2, 5}, 40);
  const Result bytes = quantize(source, batch, "quant-weights{min_elements=0}");
  CHECK(bytes.sqnr >= 40);
  CHECK(count(bytes.runtime, "Mul") == 1);  // a table in float would need none
  CHECK(bytes.model.main().initializer("e_quantized").dtype() == DType::i8);
  const Result nibbles = quantize(source, batch, "quant-weights{min_elements=0 weights=int4 target=ort-x86}");
  CHECK(nibbles.sqnr >= 14);
  CHECK(nibbles.model.main().initializer("e_packed").bytes() == 40 * 16);
  const Result negative = quantize(source, batch, "quant-weights{min_elements=0 weights=int4 symmetric=false}");
  CHECK(negative.sqnr >= 14);
}

TEST_CASE("quant-weights: a table shared by the embedding and the last product is stored once") {
  const std::string head = HEAD "g (int64[1, 6] i) => (float[A, B, C] y) <" + float_tensor("e", {40, 64}, 1) + "> ";
  for (const std::string body :
       {"{ h = Gather(e, i) t = Transpose <perm = [1, 0]> (e) y = MatMul(h, t) }",
        "{ h = Gather(e, i) f = Flatten <axis = 2> (h) g = Gemm <transB = 1> (f, e) o = Constant <value_ints = [0]> () "
        "y = Unsqueeze (g, o) }"}) {
    const Result result =
        quantize(head + body, tokens({1, 6}, 40), "quant-weights{min_elements=0 weights=int4 target=ort-x86}");
    INFO(text(result.runtime));
    CHECK(count(result.runtime, "com.microsoft.MatMulNBits") == 1);
    CHECK(count(result.runtime, "MatMul") + count(result.runtime, "Gemm") + count(result.runtime, "Transpose") == 0);
    std::size_t packed = 0;
    for (const Initializer& initializer : result.model.main().initializers())
      packed += initializer.bytes() >= 40 * 32 && initializer.name().starts_with("e") ? 1U : 0U;
    CHECK(packed == 1);
    CHECK(result.sqnr >= 12);
    const Result stored = quantize(head + body, tokens({1, 6}, 40), "quant-weights{min_elements=0}");
    CHECK(stored.sqnr >= 35);
  }
}

TEST_CASE("quant-weights for other runtimes writes DequantizeLinear and raises the opset as far as it must") {
  const std::string old = "<ir_version: 4, opset_import: [\"\": 9]> g (float[6, 64] x) => (float[6, 16] y) <" +
                          float_tensor("w", {64, 16}, 1) + "> { y = MatMul(x, w) }";
  for (const auto& [options, opset] : {std::pair("target=generic", 13),
                                       {"target=generic block=32", 21},
                                       {"target=generic weights=int4", 21},
                                       {"target=generic symmetric=false", 13}}) {
    const Result result = quantize(old, {6, 64}, options);
    CHECK(result.model.opset() == opset);
    CHECK(result.model.opset("com.microsoft") == 0);
    CHECK(count(ops_of(result.model), "DequantizeLinear") == 1);
    CHECK(result.sqnr >= 14);
  }
  const Result stored = quantize(old, {6, 64}, "");
  CHECK(stored.model.opset() == 9);
}

TEST_CASE("quant-weights inside If: weights of its own and captured ones") {
  const Result result =
      quantize(HEAD "g (float[6, 64] x) => (float[6, 16] y) <" + float_tensor("w", {64, 16}, 1) +
                   ", bool yes = {1}> { t = Tanh(x) y = If(yes) <then_branch = a () => (m) { m = MatMul(t, w) }, "
                   "else_branch = e () => (n) <" +
                   float_tensor("v", {64, 16}, 2) + "> { n = MatMul(t, v) }> }",
               {6, 64}, "");
  CHECK(result.model.main().initializer("w_quantized"));
  CHECK_FALSE(result.model.main().initializer("v_quantized"));
  CHECK(result.sqnr >= 35);
}

TEST_CASE("quant-weights: half precision stays half precision") {
  Model source =
      parse(product("h = Cast <to = 10> (x) v = Cast <to = 10> (w) m = MatMul(h, v) y = Cast <to = 1> (m)", {64, 16}));
  run_pipeline(source, "fold-constants");
  for (const std::string options : {"", " weights=int4", " target=generic", " weights=int4 target=generic"}) {
    INFO(options);
    Model model = source.clone();
    const Batch batch = random_batch("x", {6, 64}, 7);
    const auto expected = run_on(model, batch);
    REQUIRE(run_pipeline(model, "quant-weights{min_elements=0" + options + "}").changed);
    CHECK(sqnr_db(expected, run_on(model, batch)) >= 14);
  }
}

TEST_CASE("quant-weights does not") {
  require_skipped(product("n = Neg(w) m = MatMul(x, w) y = Mul(m, n)", {64, 64}), "MatMul->m", "also read by Neg");
  require_skipped(product("y = MatMul(x, w)", {64, 16}), "MatMul->y", "fewer than min_elements=1025",
                  "quant-weights{min_elements=1025}");
  require_skipped(HEAD
                  "g (float[6, 2] x) => (float[6, 2] y, float[2, 2] w) <float[2, 2] w = {1, 2, 3, 4}> "
                  "{ y = MatMul(x, w) }",
                  "MatMul->y", "graph output");
  require_skipped(HEAD "g (double[6, 2] x) => (double[6, 2] y) <double[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }",
                  "MatMul->y", "double");
  require_untouched(HEAD "g (float[6, 2] x, float[2, 2] w = {1, 2, 3, 4}) => (float[6, 2] y) { y = MatMul(x, w) }",
                    "quant-weights{min_elements=0}");
  require_untouched(HEAD "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }",
                    "quant-weights{min_elements=0}");
  require_skipped(product("a = MatMul(x, w) b = MatMul(x, w) y = Add(a, b)", {64, 16}), "MatMul->b", "left out",
                  "quant-weights{min_elements=0 skip=\"MatMul->a\"}");
}

TEST_CASE("quant-weights: the same bytes at any thread count") {
  const std::string source =
      product("a = MatMul(x, w) b = MatMul(x, v) y = Add(a, b)", {64, 32}, ", " + float_tensor("v", {64, 32}, 2));
  std::string first;
  for (const unsigned jobs : {1U, 4U}) {
    Model model = parse(source);
    PassContext context;
    context.jobs = jobs;
    run_pipeline(model, "quant-weights{min_elements=0 weights=int4 clip=mse}", &context);
    if (first.empty()) first = model.fingerprint().value();
    CHECK(model.fingerprint().value() == first);
  }
}

}  // namespace
}  // namespace onnxpress::testing
