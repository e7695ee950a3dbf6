#include <catch2/catch_test_macros.hpp>

#include "engine/activations.h"
#include "engine/session.h"
#include "io/check.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

const char* const kChain = HEAD
    "g (float[1,1,2,2] x) => (float[1,1,2,2] y) <float[4,1,1,1] w1 = {1, 9, 2, 8}, float[4] b1 = {1, 2, 3, 4},"
    " float[1,4,1,1] w2 = {1, 9, 2, 8}> { a = Conv(x, w1, b1)  r = Relu(a)  y = Conv(r, w2) }";
const char* const kHalf = HEAD
    "g (float[1,1,2,2] x) => (float[1,1,2,2] y) <float[2,1,1,1] w1 = {9, 8}, float[2] b1 = {2, 4},"
    " float[1,2,1,1] w2 = {9, 8}> { a = Conv(x, w1, b1)  r = Relu(a)  y = Conv(r, w2) }";

PassContext run_in(Model& model, std::string_view pipeline) {
  PassContext context;
  EngineRunner runner;
  context.runner = &runner;
  run_pipeline(model, pipeline, &context);
  context.runner = nullptr;
  const Status valid = check_model(model);
  INFO((valid ? "" : valid.error().text()));
  CHECK(valid);
  return context;
}

Dims dims_of(const Model& model, std::string_view name) { return model.main().initializer(name).dims(); }

}  // namespace

TEST_CASE("prune-channels takes channels out of all they run through") {
  require_rewrite(kChain, "prune-channels{round_to=1}", kHalf);
  require_rewrite(kChain, "prune-channels{round_to=1 macs=0.5}", kHalf);
  require_rewrite(kChain, "prune-channels{round_to=1 params=0.5}", kHalf);
  require_rewrite(kChain, "prune-channels{round_to=2 ratio=0.4}", kHalf);
}

TEST_CASE("prune-channels leaves what is too narrow, not selected or guarded") {
  require_untouched(kChain, "prune-channels");
  require_untouched(kChain, "prune-channels{round_to=1 ratio=0}");
  require_untouched(kChain, "prune-channels{round_to=1 min_keep=4}");
  require_untouched(kChain, "prune-channels{round_to=1 max_ratio=0.2}");
  require_untouched(kChain, R"(prune-channels{round_to=1 skip="Conv->a"})");
  require_untouched(kChain, R"(prune-channels{round_to=1 only="Conv->y"})");
  require_rewrite(kChain, R"(prune-channels{round_to=1 only="Conv->a"})", kHalf);
}

TEST_CASE("prune-channels says what blocks a weight") {
  Model model = parse(HEAD
                      "g (float[1,1,2,2] x) => (float[1,4,2,2] y) <float[4,1,1,1] w1 = {1, 9, 2, 8}>"
                      "{ a = Conv(x, w1)  y = Softmax<axis=1>(a) }");
  const PassContext context = run_in(model, "prune-channels{round_to=1}");
  CHECK(skip_reason(context, "Conv->a").contains("blocked by Softmax"));
}

TEST_CASE("prune-channels: a shared weight, one that is also an input, one that is also an output") {
  // Two branches read one weight; each loses what it has to.
  Model shared =
      parse("<ir_version: 8, opset_import: [\"\": 17]> g (float[1,2,2,2] x) => (float[1,2,2,2] y, float[1,2,2,2] z) <" +
            float_tensor("w", {8, 2, 1, 1}, 1) + ", " + float_tensor("u", {2, 8, 1, 1}, 2) + ", " +
            float_tensor("v", {2, 8, 1, 1}, 3) +
            "> { a = Conv(x, w)  r = Relu(a)  y = Conv(r, u)  b = Conv(x, w)  s = Sigmoid(b)  z = Conv(s, v) }");
  const PassContext context = run_in(shared, "prune-channels{round_to=1 ratio=0.75}");
  CHECK(dims_of(shared, "u") == Dims{2, 2, 1, 1});
  CHECK(context.journal.warnings().empty());
  require_untouched(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,1,2,2] x, float[4,1,1,1] w) => (float[1,1,2,2] y)"
      " <float[4,1,1,1] w = {1, 2, 3, 4}, float[1,4,1,1] u = {1, 2, 3, 4}>"
      " { a = Conv(x, w)  r = Relu(a)  y = Conv(r, u) }",
      "prune-channels{round_to=1}");
  require_untouched(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,1,2,2] x) => (float[1,1,2,2] y, float[4,1,1,1] w)"
      " <float[4,1,1,1] w = {1, 2, 3, 4}, float[1,4,1,1] u = {1, 2, 3, 4}>"
      " { a = Conv(x, w)  r = Relu(a)  y = Conv(r, u) }",
      "prune-channels{round_to=1}");
}

TEST_CASE("prune-channels beside an operator nobody knows") {
  require_untouched(
      "<ir_version: 8, opset_import: [\"\": 17, \"my.ops\": 1]> g (float[1,1,2,2] x) => (float[1,1,2,2] y)"
      " <float[4,1,1,1] w1 = {1, 9, 2, 8}, float[1,4,1,1] w2 = {1, 9, 2, 8}>"
      " { a = Conv(x, w1)  r = my.ops.Strange(a)  y = Conv(r, w2) }",
      "prune-channels{round_to=1}");
}

TEST_CASE("prune-channels: half precision, depthwise, concatenation, normalization") {
  Model half = parse(HEAD
                     "g (float16[1,1,2,2] x) => (float16[1,1,2,2] y) <float16[4,1,1,1] w1 = {1, 9, 2, 8},"
                     " float16[1,4,1,1] w2 = {1, 9, 2, 8}> { a = Conv(x, w1)  r = Relu(a)  y = Conv(r, w2) }");
  run_in(half, "prune-channels{round_to=1}");
  CHECK(dims_of(half, "w1") == Dims{2, 1, 1, 1});
  Model depthwise = parse("<ir_version: 8, opset_import: [\"\": 17]> g (float[1,2,4,4] x) => (float[1,2,4,4] y) <" +
                          float_tensor("w1", {8, 2, 1, 1}, 1) + ", " + float_tensor("d", {8, 1, 3, 3}, 2) + ", " +
                          float_tensor("w2", {2, 8, 1, 1}, 3) +
                          "> { a = Conv(x, w1)  r = Relu(a)  m = Conv<group=8, pads=[1,1,1,1]>(r, d)"
                          "  y = Conv(m, w2) }");
  run_in(depthwise, "prune-channels{round_to=4}");
  CHECK(dims_of(depthwise, "d") == Dims{4, 1, 3, 3});
  CHECK(nodes_of(depthwise, "Conv")[1].attr_int("group", 0) == 4);
  Model concat = parse("<ir_version: 8, opset_import: [\"\": 17]> g (float[1,2,4,4] x) => (float[1,2,4,4] y) <" +
                       float_tensor("w1", {8, 2, 1, 1}, 1) + ", " + float_tensor("w2", {4, 2, 1, 1}, 2) + ", " +
                       float_tensor("w3", {2, 12, 1, 1}, 3) + ", " + float_tensor("g", {12}, 4) + ", " +
                       "float[12] v = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}" +
                       "> { a = Conv(x, w1)  b = Conv(x, w2)  c = Concat<axis=1>(a, b)"
                       "  n = BatchNormalization(c, g, g, g, v)  r = Relu(n)  y = Conv(r, w3) }");
  run_in(concat, "prune-channels{round_to=1 ratio=0.5 criterion=bn_gamma}");
  CHECK(dims_of(concat, "w1") == Dims{4, 2, 1, 1});
  CHECK(dims_of(concat, "w2") == Dims{2, 2, 1, 1});
  CHECK(dims_of(concat, "w3") == Dims{2, 6, 1, 1});
  CHECK(dims_of(concat, "g") == Dims{6});
}

TEST_CASE("prune-channels: hidden units of an LSTM") {
  Model model = parse("<ir_version: 8, opset_import: [\"\": 17]> g (float[3,1,2] x) => (float[3,1,2] y) <" +
                      float_tensor("w", {1, 32, 2}, 1) + ", " + float_tensor("r", {1, 32, 8}, 2) + ", " +
                      float_tensor("b", {1, 64}, 3) + ", " + float_tensor("u", {8, 2}, 4) +
                      ", int64[1] one = {1}> { h = LSTM<hidden_size=8>(x, w, r, b)  s = Squeeze(h, one)"
                      "  y = MatMul(s, u) }");
  const PassContext context = run_in(model, "prune-channels{round_to=1}");
  CHECK(dims_of(model, "w") == Dims{1, 16, 2});
  CHECK(dims_of(model, "r") == Dims{1, 16, 4});
  CHECK(dims_of(model, "u") == Dims{4, 2});
  CHECK(context.journal.warnings().empty());
}

}  // namespace onnxpress::testing
