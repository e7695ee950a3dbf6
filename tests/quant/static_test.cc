// quantize_static() as a call: what the options, the measured ranges and the scopes of a model make of it. What the
// runtime fuses is tested with the pass (tests/passes/quant_static_test.cc).
#include "quant/static.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "engine/activations.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

struct Done {
  Model model = {};
  PassContext context = {};
  double sqnr = 0;
  bool changed = false;
};

Done quantize(Model before, const Dims& input, const StaticSettings& settings = {}) {
  Done done{.model = before.clone()};
  std::vector<Batch> batches;
  for (unsigned seed = 100; seed < 104; ++seed) batches.push_back(random_batch("x", input, seed));
  MemorySource source_of(batches);
  EngineActivations activations(source_of, 1, 0);
  done.context.activations = &activations;
  const auto changed = quantize_static(done.model, done.context, settings);
  if (!changed) FAIL(changed.error().what);
  done.changed = *changed;
  done.sqnr = std::numeric_limits<double>::infinity();
  for (const Batch& batch : batches)
    done.sqnr = std::min(done.sqnr, sqnr_db(run_on(before, batch), run_on(done.model, batch)));
  done.context.activations = nullptr;
  return done;
}

Done quantize(const std::string& source, const Dims& input, const StaticSettings& settings = {}) {
  return quantize(parse(source), input, settings);
}

#define PADS "<pads = [1, 1, 1, 1]>"
#define X8 HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y) <"
const Dims kX8 = {1, 8, 12, 12};

std::string conv_weights(const std::string& w, const std::string& b, unsigned seed, const Dims& dims = {8, 8, 3, 3}) {
  return float_tensor(w, dims, seed, 0.3F) + ", " + float_tensor(b, {dims[0]}, seed + 50, 0.3F);
}
const std::string kTwo = X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) +
                         "> { c = Conv " PADS "(x, w1, b1) r = Relu(c) y = Conv " PADS "(r, w2, b2) }";

StaticSettings with(auto change) {
  StaticSettings settings;
  change(settings);
  return settings;
}

TEST_CASE("placement by cost: small layers stay float, large ones do not, and the journal says what it would take") {
  const StaticSettings cost = with([](StaticSettings& s) {
    s.placement = Placement::cost;
    s.target = Target::ort_x86_vnni;
  });
  const Done small = quantize(kTwo, kX8, cost);
  CHECK_FALSE(small.changed);
  CHECK(dump(small.model) == dump(parse(kTwo)));
  CHECK(skip_reason(small.context, "Conv->y").find("integers do not pay") != std::string::npos);
  const Done large = quantize(HEAD "g (float[1, 64, 28, 28] x) => (float[N, C, H, W] y) <" +
                                  conv_weights("w", "b", 1, {64, 64, 3, 3}) + "> { y = Conv " PADS "(x, w, b) }",
                              {1, 64, 28, 28}, cost);
  CHECK(count(runtime_ops(large.model), "QLinearConv") == 1);
}

TEST_CASE("placement by cost: a node that stays float stores its weight as codes, when that saves room") {
  StaticSettings cost = with([](StaticSettings& s) {
    s.placement = Placement::cost;
    s.target = Target::ort_x86_vnni;
  });
  const std::string source =
      HEAD "g (float[1, 48] x) => (float[1, 48] y) <" + float_tensor("w", {48, 48}, 1) + "> { y = MatMul(x, w) }";
  const Done stored = quantize(source, {1, 48}, cost);
  CHECK(stored.changed);
  CHECK(stored.model.main().initializer("w_quantized").dtype() == DType::i8);
  CHECK(runtime_ops(stored.model) == OpCounts{{"MatMul", 1}});
  CHECK(stored.sqnr >= 35);
  cost.store = false;
  CHECK_FALSE(quantize(source, {1, 48}, cost).changed);
}

TEST_CASE("placement by cost: shapes come from the first sample") {
  const StaticSettings cost = with([](StaticSettings& s) {
    s.placement = Placement::cost;
    s.target = Target::ort_x86_vnni;
    s.store = false;
  });
  const std::string source =
      HEAD "g (float[n, 96] x) => (float[n, 512] y) <" + float_tensor("w", {96, 512}, 1) + "> { y = MatMul(x, w) }";
  CHECK(quantize(source, {128, 96}, cost).changed);
  CHECK_FALSE(quantize(source, {1, 96}, cost).changed);
}

TEST_CASE("a Conv that stays float between integer ones is not quantized by the runtime") {
  const std::string source =
      X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) + ", " + conv_weights("w3", "b3", 3) +
      "> { c = Conv " PADS "(x, w1, b1) d = Conv " PADS "(c, w2, b2) y = Conv " PADS "(d, w3, b3) }";
  const Done done = quantize(source, kX8, with([](StaticSettings& s) { s.per_node["Conv->d"] = NodeFormat::float32; }));
  const OpCounts ops = runtime_ops(done.model);
  INFO(text(ops));
  CHECK(count(ops, "QLinearConv") == 2);
  CHECK(count(ops, "Conv") == 1);
  CHECK(done.sqnr >= 25);
}

TEST_CASE("per node: float, int4 and int16 beside int8") {
  const Done done = quantize(kTwo, kX8, with([](StaticSettings& s) {
                               s.per_node["Conv->c"] = NodeFormat::int4;
                               s.per_node["Conv->y"] = NodeFormat::float32;
                             }));
  CHECK(done.model.main().initializer("w2").dtype() == DType::f32);
  CHECK_FALSE(done.model.main().initializer("w1"));
  CHECK(count(runtime_ops(done.model), "QLinearConv") == 1);
  CHECK(done.sqnr >= 15);
  const Done wide = quantize(kTwo, kX8, with([](StaticSettings& s) { s.per_node["Conv->y"] = NodeFormat::int16; }));
  CHECK(nodes_of(wide.model, "QuantizeLinear").size() == 3);
  CHECK(wide.model.opset("com.microsoft") == 1);
  CHECK(wide.sqnr >= 25);
  // A node that the cost model would leave float.
  const Done forced = quantize(kTwo, kX8, with([](StaticSettings& s) {
                                 s.placement = Placement::cost;
                                 s.per_node["Conv->y"] = NodeFormat::int8;
                               }));
  CHECK(count(runtime_ops(forced.model), "QLinearConv") == 1);
}

TEST_CASE("formats of activations and weights") {
  struct Case {
    ActivationFormat activations;
    WeightFormat weights;
    DType code, weight;
    double sqnr;
  };
  const Case cases[] = {
      {ActivationFormat::uint8, WeightFormat::uint8, DType::u8, DType::u8, 25},
      {ActivationFormat::uint8_symmetric, WeightFormat::int8, DType::u8, DType::i8, 25},
      {ActivationFormat::int8, WeightFormat::int8, DType::i8, DType::i8, 25},
      {ActivationFormat::int8_symmetric, WeightFormat::int8, DType::i8, DType::i8, 25},
      {ActivationFormat::uint16, WeightFormat::int8, DType::u16, DType::i8, 30},
      {ActivationFormat::int16, WeightFormat::int8, DType::i16, DType::i8, 30},
  };
  for (const Case& one : cases) {
    const Done done = quantize(kTwo, kX8, with([&](StaticSettings& s) {
                                 s.activations = one.activations;
                                 s.weights = one.weights;
                               }));
    INFO(static_cast<int>(one.activations));
    CHECK(done.model.main().initializer("x_zero_point").dtype() == one.code);
    CHECK(done.model.main().initializer("w1_quantized").dtype() == one.weight);
    CHECK(done.sqnr >= one.sqnr);
  }
}

TEST_CASE("TensorRT: symmetric codes on what a layer reads, float biases, nothing behind") {
  Done done = quantize(kTwo, kX8, with([](StaticSettings& s) { s.target = Target::tensorrt; }));
  CHECK(nodes_of(done.model, "QuantizeLinear").size() == 2);
  for (const Node& node : nodes_of(done.model, "QuantizeLinear"))
    CHECK(done.model.main().constant(node.input(2)).value()->as<std::int8_t>()[0] == 0);
  CHECK(done.model.main().initializer("b1").dtype() == DType::f32);
  CHECK(done.model.main().producer("y").is("Conv"));
  // The Relu stands before the codes of the second layer.
  CHECK(done.model.main().producer("r_quantized").input(0) == "r");
  CHECK(done.sqnr >= 25);
}

TEST_CASE("TensorRT: of a residual Add the input that does not come from a layer") {
  const Done done =
      quantize(X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2) +
                   "> { c = Conv " PADS "(x, w1, b1) r = Relu(c) d = Conv " PADS "(r, w2, b2) y = Add(d, r) }",
               kX8, with([](StaticSettings& s) { s.target = Target::tensorrt; }));
  const Node add = nodes_of(done.model, "Add").front();
  CHECK(add.input(0) == "d");
  CHECK(add.input(1) == "r_dequantized");
  CHECK(done.sqnr >= 25);
}

// A detector's head: boxes up to 640, scores below 1.
const std::string kHead =
    HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, L] y) <" + float_tensor("w1", {4, 8, 1, 1}, 1, 100) + ", " +
    float_tensor("w2", {4, 8, 1, 1}, 2, 0.3F) +
    ", int64[3] boxes = {1, 4, 144}, int64[3] scores = {1, 4, 144}> { b = Conv(x, w1) s = Conv(x, w2) p = Sigmoid(s) "
    "c = Reshape(b, boxes) q = Reshape(p, scores) y = Concat <axis = 1> (c, q) }";

TEST_CASE("a Concat of boxes and scores stays float, with a warning, and the scores survive") {
  const Done done = quantize(kHead, kX8);
  CHECK(has_note(done.context, "'Concat->y' joins 'c'"));
  CHECK(has_note(done.context, "with 'q'"));
  CHECK(skip_reason(done.context, "Concat->y").find("no one scale serves both") != std::string::npos);
  const auto scores = [&](const Model& model) {
    const std::vector<float> all = to_floats(run_on(model, random_batch("x", kX8, 100)).front().view()).value();
    return std::vector<float>(all.begin() + 4 * 144, all.end());
  };
  const std::vector<float> exact = scores(parse(kHead)), kept = scores(done.model);
  float error = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) error = std::max(error, std::abs(exact[i] - kept[i]));
  CHECK(error < 0.02F);
}

TEST_CASE("a Concat of like values is no detector's head") {
  const Done done =
      quantize(X8 + conv_weights("w1", "b1", 1) + ", " + float_tensor("w2", {8, 8, 3, 3}, 2, 3) +
                   "> { c = Conv " PADS "(x, w1, b1) d = Conv " PADS "(x, w2) y = Concat <axis = 1> (c, d) }",
               kX8);
  CHECK_FALSE(has_note(done.context, "joins"));
  CHECK(count(runtime_ops(done.model), "com.microsoft.QLinearConcat") == 1);
}

TEST_CASE("a Mul by constants far apart stays float, one by like constants does not") {
  const auto scaled = [](const std::string& factors) {
    return X8 + conv_weights("w1", "b1", 1) + ", " + conv_weights("w2", "b2", 2, {4, 2, 1, 1}) +
           ", float[2, 1, 1] k = {" + factors + "}, " + float_tensor("w0", {2, 8, 1, 1}, 4) +
           "> { c = Conv(x, w0) m = Mul(c, k) y = Conv(m, w2, b2) }";
  };
  const Done apart = quantize(scaled("640, 1"), kX8);
  CHECK(has_note(apart.context, "'Mul->m' multiplies by constants more than 50 times apart"));
  CHECK(count(runtime_ops(apart.model), "com.microsoft.QLinearMul") == 0);
  const Done like = quantize(scaled("2, 1"), kX8);
  CHECK_FALSE(has_note(like.context, "times apart"));
  CHECK(count(runtime_ops(like.model), "com.microsoft.QLinearMul") == 1);
  CHECK(like.sqnr >= 25);
}

TEST_CASE("attention: products of activations on request; what adds a mask stays float") {
  const std::string source =
      HEAD "g (float[1, 16, 32] x) => (float[N, L, D] y) <" + float_tensor("wq", {32, 32}, 1) + ", " +
      float_tensor("wk", {32, 32}, 2) + ", " + float_tensor("wo", {32, 32}, 3) +
      ", float[1, 1, 16] mask = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1000000000, -1000000000, "
      "-1000000000, -1000000000}, float[1] zero = {0}> { q = MatMul(x, wq) k = MatMul(x, wk) t = "
      "Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t) z = ReduceMean <axes = [2], keepdims = 1> "
      "(x) zz = Mul(z, zero) m0 = Add(zz, mask) m = Add(s, m0) p = Softmax(m) v = MatMul(p, q) y = "
      "MatMul(v, wo) }";
  const Done plain = quantize(source, {1, 16, 32});
  CHECK(count(runtime_ops(plain.model), "QLinearMatMul") +
            count(runtime_ops(plain.model), "com.microsoft.MatMulIntegerToFloat") ==
        3);
  CHECK(plain.sqnr >= 20);
  const Done attention = quantize(source, {1, 16, 32}, with([](StaticSettings& s) { s.attention = true; }));
  CHECK(count(runtime_ops(attention.model), "QLinearMatMul") +
            count(runtime_ops(attention.model), "com.microsoft.MatMulIntegerToFloat") ==
        5);
  CHECK(count(runtime_ops(attention.model), "com.microsoft.QLinearAdd") == 0);
  CHECK(attention.sqnr >= 20);
}

TEST_CASE("a value with infinities is never codes") {
  const Done done =
      quantize(HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y) <" + conv_weights("w1", "b1", 1) + ", " +
                   conv_weights("w2", "b2", 2) +
                   ", float big = {3e38}, float[1] low = {1}> { c = Conv " PADS
                   "(x, w1, b1) e = Mul(c, big) i = Mul(e, big) k = Min(i, low) y = Conv " PADS "(k, w2, b2) }",
               kX8);
  CHECK(skip_reason(done.context, "Conv->y").find("infinities") != std::string::npos);
}

TEST_CASE("bodies of If are quantized in their own scope; a branch not taken stays float") {
  const std::string source = HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y) <" + conv_weights("w", "b", 1) +
                             ", " + float_tensor("v", {4, 8, 1, 1}, 2) +
                             ", bool yes = {1}> { c = Conv " PADS
                             "(x, w, b) y = If(yes) <then_branch = a () => (t) { t = Conv(c, v) }, "
                             "else_branch = e () => (f) { f = Conv(x, v) }> }";
  const Done done = quantize(source, kX8);
  CHECK(skip_reason(done.context, "Conv->t").empty());
  CHECK(skip_reason(done.context, "Conv->f").find("never computed") != std::string::npos);
  CHECK(count(runtime_ops(done.model), "QLinearConv") == 2);
  // The captured weight stays one tensor beside the float one that the other branch reads.
  CHECK(done.model.main().initializer("v_quantized"));
  CHECK(done.model.main().initializer("v"));
  CHECK(done.sqnr >= 25);
}

TEST_CASE("a weight that both branches capture is stored once; bodies read values of outer scopes") {
  const std::string source =
      HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y) <" + float_tensor("v", {8, 8, 1, 1}, 2) +
      ", bool yes = {1}, bool no = {0}> { r = Relu(x) y0 = If(yes) <then_branch = a () => (t) { t = Conv(r, v) }, "
      "else_branch = e () => (f) { f = Conv(x, v) }> y = If(no) <then_branch = a2 () => (t2) { t2 = Conv(x, v) }, "
      "else_branch = e2 () => (f2) { f2 = Conv(y0, v) }> }";
  const Done done = quantize(source, kX8);
  CHECK(skip_reason(done.context, "Conv->f").find("never computed") != std::string::npos);
  CHECK(skip_reason(done.context, "Conv->t2").find("never computed") != std::string::npos);
  CHECK(done.model.main().initializer("v_quantized"));
  CHECK_FALSE(done.model.main().initializer("v_quantized_1"));
  CHECK(count(runtime_ops(done.model), "QLinearConv") == 2);
  CHECK(done.sqnr >= 25);
}

TEST_CASE("the body of a Loop is quantized over all its turns") {
  const std::string source =
      HEAD "g (float[6, 32] x) => (float[6, 32] y) <" + float_tensor("w", {32, 32}, 1, 0.3F) + ", " +
      float_tensor("v", {32, 32}, 2, 0.3F) +
      ", int64 turns = {3}, bool yes = {1}> { y = Loop(turns, yes, x) <body = b (int64 i, bool c, float[6, 32] s) => "
      "(bool c2, float[6, 32] n) { c2 = Identity(c) h = MatMul(s, w) a = Relu(h) n = MatMul(a, v) }> }";
  const Done done = quantize(source, {6, 32});
  const OpCounts ops = runtime_ops(done.model);
  INFO(text(ops));
  CHECK(count(ops, "QLinearMatMul") + count(ops, "com.microsoft.MatMulIntegerToFloat") == 2);
  CHECK(done.sqnr >= 20);
}

TEST_CASE("half-precision: integer nodes work on float, the rest stays half") {
  const std::string half =
      HEAD "g (float[1, 8, 12, 12] x) => (float[N, C, H, W] y) <" + conv_weights("w1f", "b1f", 1) + ", " +
      conv_weights("w2f", "b2f", 2) +
      ", float16 six = {6}, float16 zero = {0}> { w1 = Cast <to = 10> (w1f) b1 = Cast <to "
      "= 10> (b1f) w2 = Cast <to = 10> (w2f) b2 = Cast <to = 10> (b2f) h = Cast <to = 10> (x) c = Conv " PADS
      "(h, w1, b1) r = Clip(c, zero, six) d = Conv " PADS "(r, w2, b2) t = Tanh(d) y = Cast <to = 1> (t) }";
  Model folded = parse(half);
  PassContext context;
  EngineRunner runner;
  context.runner = &runner;
  run_pipeline(folded, "fold-constants", &context);
  const Done done = quantize(std::move(folded), kX8);
  const OpCounts ops = runtime_ops(done.model);
  INFO(text(ops));
  CHECK(count(ops, "QLinearConv") == 2);
  CHECK(count(ops, "Conv") == 0);
  CHECK(done.sqnr >= 25);
}

TEST_CASE("known ranges are taken as they are, without samples") {
  Model model = parse(kTwo);
  PassContext context;
  const RangeTable known = {{"x", {.min = -1, .max = 1, .finite = 1}},
                            {"r", {.min = 0, .max = 2.55F, .finite = 1}},
                            {"y", {.min = -4, .max = 4, .finite = 1}}};
  StaticSettings settings;
  settings.known = &known;
  REQUIRE(quantize_static(model, context, settings).value());
  CHECK(model.main().constant("r_scale").value()->as<float>()[0] == 2.55F / 255);
  const RangeTable less = {{"x", {.min = -1, .max = 1, .finite = 1}}};
  settings.known = &less;
  Model other = parse(kTwo);
  const auto failed = quantize_static(other, context, settings);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == Code::usage);
}

}  // namespace
}  // namespace onnxpress::testing
