#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "engine/session.h"
#include "io/save.h"
#include "ir/sparse_initializer.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "pass/stored_sparse.h"
#include "sparse/sparse_store.h"
#include "support/journal.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

// One of `keep_one_of` elements is not zero.
Tensor sparse_tensor(DType dtype, const Dims& dims, unsigned keep_one_of, unsigned seed = 1) {
  std::vector<float> values = random_floats(element_count(dims).value(), seed);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % keep_one_of != 1 % keep_one_of) values[i] = 0;
    if (is_integer(dtype)) values[i] = std::round(values[i] * 100) + (dtype == DType::u8 ? 128.0F : 0.0F);
  }
  auto tensor = convert(Tensor::of_floats(dims, values).view(), dtype);
  REQUIRE(tensor);
  return std::move(*tensor);
}

// The model with initializer `name` set to `value`.
Model with_weight(std::string_view text, std::string_view name, Tensor value) {
  Model model = parse(text);
  for (Graph* graph : model.graphs()) {
    const Initializer initializer = graph->initializer(name);
    if (!initializer) continue;
    Rewriter rewriter(*graph);
    rewriter.set_initializer(initializer, std::move(value));
    REQUIRE(rewriter.commit());
    return model;
  }
  FAIL("no such initializer");
  return model;
}

constexpr std::string_view kProduct =
    HEAD "g (float[3, 64] x) => (float[3, 50] y) <float[1] w = {0}> { y = MatMul(x, w) }";
const Dims kDims = {64, 50};

Model product(Tensor weight) { return with_weight(kProduct, "w", std::move(weight)); }

// Stores the weights; the result must compute the same, to the bit, with the same kernels, and be smaller.
Model stored(const Model& before, std::string_view pipeline, const Batch& batch, PassContext* context = nullptr) {
  Model after = before.clone();
  CHECK(run_pipeline(after, pipeline, context).changed);
  const auto expected = run_on(before, batch), got = run_on(after, batch);
  REQUIRE(expected.size() == got.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK(expected[i].dims() == got[i].dims());
    CHECK(std::ranges::equal(expected[i].bytes(), got[i].bytes()));
  }
  INFO(text(runtime_ops(after)));
  CHECK(runtime_ops(before) == runtime_ops(after));
  CHECK(serialized_size(after).value() < serialized_size(before).value());
  CHECK_FALSE(run_pipeline(after, pipeline).changed);
  return after;
}

const Batch kBatch = random_batch("x", {3, 64}, 7);

std::string reason_of(Model& model, std::string_view pipeline, std::string_view node) {
  PassContext context;
  CHECK_FALSE(run_pipeline(model, pipeline, &context).changed);
  return skip_reason(context, node);
}
bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

TEST_CASE("store-sparse: gaps and values, folded back at load, bit by bit") {
  const Model after = stored(product(sparse_tensor(DType::f32, kDims, 10)), "store-sparse{values=fp32}", kBatch);
  CHECK(ops_of(after) ==
        OpCounts{
            {"Cast", 1}, {"ConstantOfShape", 1}, {"CumSum", 1}, {"MatMul", 1}, {"Reshape", 1}, {"ScatterElements", 1}});
  CHECK(after.main().initializer("w_gaps").bytes() == 320);
  CHECK(after.main().initializer("w_values").bytes() == 4 * 320);
  const auto found = stored_sparse(after.main());
  REQUIRE(found.size() == 1);
  CHECK(found[0].value == "w");
  CHECK(found[0].dims == kDims);
  CHECK(stored_values(found[0])->size() == 320);
}

TEST_CASE("store-sparse: of the forms that change nothing the smallest") {
  Tensor weight = sparse_tensor(DType::f32, kDims, 10);
  for (float& value : weight.as_mutable<float>()) value = std::round(value * 8192) / 8192;  // a half has 11 bits
  for (float& value : weight.as_mutable<float>()) value = half_to_float(float_to_half(value));
  Model after = stored(product(weight), "store-sparse", kBatch);
  CHECK(after.main().initializer("w_values").dtype() == DType::f16);

  for (float& value : weight.as_mutable<float>()) value = std::round(value * 50) / 3;
  after = stored(product(weight), "store-sparse", kBatch);
  CHECK(after.main().initializer("w_codes").bytes() == 320);
  CHECK(after.main().initializer("w_table").size() < 110);
}

TEST_CASE("store-sparse: every type, fill and distance") {
  const std::string_view text =
      HEAD "g (float[64, 50] x) => (float[64, 50] y) <float[1] w = {0}> { c = Cast<to = 1>(w) y = Add(x, c) }";
  const Batch batch = random_batch("x", {64, 50}, 3);
  for (const DType dtype : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i8, DType::u8})
    for (const unsigned keep_one_of : {6U, 900U, 100000U}) {
      INFO(dtype_name(dtype) << " " << keep_one_of);
      const Model after =
          stored(with_weight(text, "w", sparse_tensor(dtype, kDims, keep_one_of)), "store-sparse", batch);
      CHECK(stored_sparse(after.main()).size() == 1);
    }
}

TEST_CASE("store-sparse: far neighbours take gaps of two bytes where that is less") {
  const std::string_view text =
      HEAD "g (float[1] x) => (float[1] y) <float[1] w = {0}> { s = ReduceSum<keepdims = 0>(w) y = Add(x, s) }";
  const Batch batch = random_batch("x", {1}, 3);
  const Model after = stored(with_weight(text, "w", sparse_tensor(DType::f32, {400000}, 2000)), "store-sparse", batch);
  CHECK(after.main().initializer("w_gaps").dtype() == DType::u16);
  CHECK(ops_of(after).count("Reshape") == 0);  // one axis
}

TEST_CASE("store-sparse: not a number and minus zero come back as they were") {
  Tensor weight = sparse_tensor(DType::f32, kDims, 10);
  weight.as_mutable<float>()[0] = -0.0F;
  weight.as_mutable<float>()[77] = std::numeric_limits<float>::infinity();
  weight.as_mutable<float>()[100] = std::numeric_limits<float>::quiet_NaN();
  stored(product(weight), "store-sparse", kBatch);
}

TEST_CASE("store-sparse: rounded only when asked to, and then stored exactly") {
  const Tensor weight = sparse_tensor(DType::f32, kDims, 5);  // 640 distinct values
  PassContext context;
  for (const bool codebook : {true, false}) {
    const auto rounded = codebook ? round_to_codebook(weight) : round_to_half(weight);
    REQUIRE(rounded);
    Model after = product(weight);
    run_pipeline(after, codebook ? "store-sparse{values=codebook}" : "store-sparse{values=fp16}", &context);
    const auto expected = run_on(product(*rounded), kBatch), got = run_on(after, kBatch);
    CHECK(std::ranges::equal(expected[0].bytes(), got[0].bytes()));
    CHECK(sqnr_db(run_on(product(weight), kBatch), got) > 40);
    CHECK(rounding_sqnr_db(weight, *rounded) > 40);
  }
  CHECK(contains(context.journal.entries().front().text, "rounded, SQNR "));
  CHECK(std::isinf(rounding_sqnr_db(weight, weight)));
}

TEST_CASE("store-sparse: what cannot be rounded stays") {
  Tensor weight = sparse_tensor(DType::f32, kDims, 5);
  weight.as_mutable<float>()[1] = 1e6F;
  Model model = product(weight);
  CHECK(contains(reason_of(model, "store-sparse{values=fp16}", "MatMul->y"), "a half does not reach"));
  weight.as_mutable<float>()[1] = std::numeric_limits<float>::infinity();
  model = product(weight);
  CHECK(contains(reason_of(model, "store-sparse{values=codebook}", "MatMul->y"), "not finite"));
}

TEST_CASE("store-sparse: dense weights stay dense") {
  for (const char* options : {"", "{values=fp32}", "{form=sparse_initializer}"}) {
    Model model = product(sparse_tensor(DType::f32, kDims, 1));
    CHECK(contains(reason_of(model, std::string("store-sparse") + options, "MatMul->y"), "no form is smaller"));
  }
}

TEST_CASE("store-sparse: never larger, whatever the density") {
  for (const unsigned keep_one_of : {1U, 2U, 3U, 4U, 5U})
    for (const char* options : {"", "{values=fp32}", "{form=sparse_initializer}", "{values=codebook}"}) {
      Model model = with_weight(kProduct, "w", sparse_tensor(DType::f32, {64, 5}, keep_one_of));
      const std::uint64_t before = serialized_size(model).value();
      const bool changed = run_pipeline(model, fmt::format("store-sparse{}", options)).changed;
      const std::uint64_t after = serialized_size(model).value();
      CHECK(changed == (after < before));
      CHECK(after <= before);
    }
}

TEST_CASE("store-sparse: a shared weight is stored once") {
  const std::string_view text = HEAD
      "g (float[3, 64] x) => (float[3, 50] y, float[50, 64] z) <float[1] w = {0}> { y = MatMul(x, w) z = "
      "Transpose(w) }";
  PassContext context;
  const Model before = with_weight(text, "w", sparse_tensor(DType::f32, kDims, 10));
  Model after = before.clone();
  run_pipeline(after, "store-sparse", &context);
  CHECK(count(ops_of(after), "ScatterElements") == 1);
  CHECK(context.journal.done_count() == 2);
  const auto expected = run_on(before, kBatch), got = run_on(after, kBatch);
  for (const std::size_t i : {0U, 1U}) CHECK(std::ranges::equal(expected[i].bytes(), got[i].bytes()));
}

TEST_CASE("store-sparse: weights of bodies, captured ones and Constant nodes") {
  const std::string_view text = HEAD
      "g (bool c, float[3, 64] x) => (float[3, 50] y) <float[1] w = {0}> { "
      "y = If (c) <then_branch = p () => (float[3, 50] u) <float[1] v = {0}> { u = MatMul(x, v) }, "
      "else_branch = q () => (float[3, 50] t) { t = MatMul(x, w) }> }";
  Model before = with_weight(text, "w", sparse_tensor(DType::f32, kDims, 10));
  for (Graph* graph : before.graphs()) {
    if (!graph->initializer("v")) continue;
    Rewriter rewriter(*graph);
    rewriter.set_initializer(graph->initializer("v"), sparse_tensor(DType::f32, kDims, 10, 5));
    REQUIRE(rewriter.commit());
  }
  for (const char* pipeline : {"store-sparse", "store-sparse{form=sparse_initializer}"})
    for (const bool branch : {true, false}) {
      Batch batch = kBatch;
      batch.inputs.push_back({"c", Tensor::scalar<bool>(DType::boolean, branch)});
      Model after = before.clone();
      run_pipeline(after, pipeline);
      const auto expected = run_on(before, batch), got = run_on(after, batch);
      CHECK(std::ranges::equal(expected[0].bytes(), got[0].bytes()));
      CHECK(serialized_size(after).value() < serialized_size(before).value());
    }

  Model constant =
      parse(HEAD "g (float[3, 64] x) => (float[3, 50] y) { w = Constant<value = float[1] {0}>() y = MatMul(x, w) }");
  Rewriter rewriter(constant.main());
  rewriter.set_attribute(constant.main().producer("w"), "value", sparse_tensor(DType::f32, kDims, 10));
  REQUIRE(rewriter.commit());
  const Model after = stored(constant, "store-sparse", kBatch);
  CHECK(count(ops_of(after), "Constant") == 0);
}

TEST_CASE("store-sparse: integer weights of a quantized model keep their kernels") {
  // The zero point is not zero: the most frequent code is what takes no room.
  const std::string_view text = HEAD
      "g (float[1, 8, 9, 9] x) => (float[1, 16, 9, 9] y) <uint8[1] w = {0}, float ws = {0.01}, uint8 wz = {128}, "
      "float xs = {0.01}, uint8 xz = {128}, float ys = {0.1}, uint8 yz = {128}> { xq = QuantizeLinear(x, xs, xz) "
      "xd = DequantizeLinear(xq, xs, xz) wd = DequantizeLinear(w, ws, wz) c = Conv<pads = [1, 1, 1, 1]>(xd, wd) "
      "yq = QuantizeLinear(c, ys, yz) y = DequantizeLinear(yq, ys, yz) }";
  const Model before = with_weight(text, "w", sparse_tensor(DType::u8, {16, 8, 3, 3}, 10));
  const Model after = stored(before, "store-sparse", random_batch("x", {1, 8, 9, 9}, 2));
  CHECK(count(runtime_ops(after), "QLinearConv") == 1);
}

TEST_CASE("store-sparse: weights that must stay have a reason") {
  const Tensor weight = sparse_tensor(DType::f32, kDims, 10);
  Model model = with_weight(
      HEAD "g (float[3, 64] x, float[64, 50] w) => (float[3, 50] y) <float[1] w = {0}> { y = MatMul(x, w) }", "w",
      weight);
  CHECK(contains(reason_of(model, "store-sparse", "MatMul->y"), "also a graph input"));
  model = with_weight(HEAD
                      "g (float[3, 64] x) => (float[3, 50] y, float[64, 50] w) <float[1] w = {0}> { y = MatMul(x, w) }",
                      "w", weight);
  CHECK(contains(reason_of(model, "store-sparse", "MatMul->y"), "also a graph output"));
  model = product(weight);
  CHECK(contains(reason_of(model, "store-sparse{min_elements=3201}", "MatMul->y"), "fewer than min_elements=3201"));
  model = product(weight);
  reason_of(model, "store-sparse{skip=op:MatMul}", "MatMul->y");
  model =
      with_weight(HEAD
                  "g (float[3, 64] x) => (float[3, 50] y, float[50, 64] z) <float[1] w = {0}> { y = MatMul(x, w) z = "
                  "Transpose(w) }",
                  "w", weight);
  CHECK(contains(reason_of(model, "store-sparse{skip=op:Transpose}", "MatMul->y"), "a node that is left out"));
  model = with_weight(
      "<ir_version: 3, opset_import: [\"\": 11]> g (float[3, 64] x, float[64, 50] w) => (float[3, 50] "
      "y) <float[1] w = {0}> { y = MatMul(x, w) }",
      "w", weight);
  CHECK(contains(reason_of(model, "store-sparse", "MatMul->y"), "also a graph input"));
  model = with_weight(HEAD
                      "g (bool c) => (float[64, 50] y) <float[1] w = {0}> { y = If (c) <then_branch = p () => "
                      "(float[64, 50] w) { }, else_branch = q () => (float[64, 50] t) { t = Neg(w) }> }",
                      "w", weight);
  CHECK(contains(reason_of(model, "store-sparse", "Neg->t"), "handed out by a nested body"));
}

TEST_CASE("store-sparse leaves shapes, indices and constants of functions") {
  Model model = with_weight(HEAD "g (float[64, 50] x) => (float[3200] y) <int64[1] s = {-1}> { y = Reshape(x, s) }",
                            "s", Tensor(DType::i64, {1}));
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "store-sparse{min_elements=0}", &context).changed);
  CHECK(context.journal.entries().empty());

  model = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"f\": 1]> g (float[4] x) => (float[4] y) { y = f.shift(x) } "
      "<domain: \"f\", opset_import: [\"\": 17]> shift (a) => (b) { k = Constant<value = float[4] {0, 0, 0, "
      "1}>() b = Add(a, k) }");
  CHECK(contains(reason_of(model, "store-sparse{min_elements=0}", "Add->b"), "inside a function"));
}

TEST_CASE("store-sparse: beside operators of other domains") {
  const std::string_view text =
      "<ir_version: 8, opset_import: [\"\": 17, \"custom\": 1]> g (float[3, 64] x) => (float[3, 50] y) <float[1] w = "
      "{0}> { y = custom.Product(x, w) }";
  Model model = with_weight(text, "w", sparse_tensor(DType::f32, kDims, 10));
  CHECK(run_pipeline(model, "store-sparse").changed);
  CHECK(model.main().nodes().back().input(1) == "w");
}

TEST_CASE("store-sparse raises an old opset only where that is worth it") {
  const std::string_view text =
      "<ir_version: 6, opset_import: [\"\": 9]> g (float[3, 64] x) => (float[3, 50] y) <float[1] w = {0}> { y = "
      "MatMul(x, w) }";
  const Model after = stored(with_weight(text, "w", sparse_tensor(DType::f32, kDims, 10)), "store-sparse", kBatch);
  CHECK(after.opset() == 11);
  Model dense = with_weight(text, "w", sparse_tensor(DType::f32, kDims, 1));
  CHECK_FALSE(run_pipeline(dense, "store-sparse").changed);
  CHECK(dense.opset() == 9);
}

TEST_CASE("store-sparse: sparse initializers where these are smaller") {
  const Model after =
      stored(product(sparse_tensor(DType::f32, kDims, 10)), "store-sparse{form=sparse_initializer}", kBatch);
  CHECK(ops_of(after) == OpCounts{{"MatMul", 1}});
  REQUIRE(sparse_initializers(after.main()).size() == 1);
  CHECK(sparse_initializers(after.main())[0].bytes == 320 * 12);
  // 8 bytes of position for one of value
  Model bytes = with_weight(
      HEAD "g (float[64, 50] x) => (float[64, 50] y) <int8[1] w = {0}> { c = Cast<to = 1>(w) y = Add(x, c) }", "w",
      sparse_tensor(DType::i8, kDims, 8));
  CHECK_FALSE(run_pipeline(bytes, "store-sparse{form=sparse_initializer}").changed);

  Model model = product(sparse_tensor(DType::f32, kDims, 10));
  PassContext context;
  const auto parsed = Pipeline::parse("store-sparse{form=sparse_initializer values=fp16}", all_passes());
  REQUIRE(parsed);
  const auto outcome = parsed->run(model, context, {}, nullptr);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code == Code::usage);
}

TEST_CASE("store-sparse: other passes do not undo it") {
  const Model before = product(sparse_tensor(DType::f32, kDims, 10));
  Model after = before.clone();
  run_pipeline(after, "store-sparse");
  const std::uint64_t size = serialized_size(after).value();
  PassContext context;
  EngineRunner runner;
  context.runner = &runner;
  CHECK_FALSE(run_pipeline(after, "fold-constants{max_bytes=1000000},@clean", &context).changed);
  CHECK(serialized_size(after).value() == size);
  CHECK(run_pipeline(after, "fold-constants{dequantize=true}").changed);  // unless told to
  const auto weight = after.main().initializer("w").read();
  REQUIRE(weight);
  CHECK(std::ranges::equal(weight->bytes(), before.main().initializer("w").read()->bytes()));
}

}  // namespace onnxpress::testing
