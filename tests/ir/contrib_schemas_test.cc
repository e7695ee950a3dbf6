#include <catch2/catch_test_macros.hpp>

#include "support/attention.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

// Known dims of a value, -1 for free ones; {} when there is no shape.
Dims dims_of(const Model& model, std::string_view value) {
  const ValueType type = model.main().type(value);
  Dims dims;
  if (type.shape)
    for (const Dim& dim : *type.shape) dims.push_back(dim.value.value_or(-1));
  return dims;
}

const std::string kHead = "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]> ";

}  // namespace

TEST_CASE("Shapes are known behind fused attention") {
  CHECK(dims_of(parse(fused_attention({.heads = 4, .width = 6})), "o") == Dims{-1, 3, 24});
  CHECK(dims_of(parse(fused_multi_head({.heads = 4, .width = 6})), "o") == Dims{-1, 3, 24});
  CHECK(dims_of(parse(fused_grouped(false)), "o") == Dims{-1, 3, 96});
  CHECK(dims_of(parse(fused_grouped(true)), "o") == Dims{-1, 3, 96});
}

TEST_CASE("Shapes are known of values that are wider than queries, of packed forms and of caches") {
  const Model uneven = parse(kHead +
                             "g (float[2,3,8] x, float[8,40] w, float[40] b, float[2,2,4,5,2] past) => (float[] y) {"
                             " y, present = com.microsoft.Attention <num_heads = 4, qkv_hidden_sizes = [8, 8, 24]>"
                             " (x, w, b, , past) }");
  CHECK(dims_of(uneven, "y") == Dims{2, 3, 24});
  CHECK(dims_of(uneven, "present") == Dims{2, 2, 4, -1, 6});
  const Model packed = parse(kHead +
                             "g (float[2,3,4,3,6] q) => (float[] y) {"
                             " y = com.microsoft.MultiHeadAttention <num_heads = 4> (q) }");
  CHECK(dims_of(packed, "y") == Dims{2, 3, 24});
  const Model cached = parse(kHead +
                             "g (float[2,1,24] q, float[2,1,12] k, float[2,1,12] v, float[2,2,9,6] pk,"
                             " float[2,2,9,6] pv, int32[2] s, int32 t) => (float[] y, float[] nk, float[] nv) {"
                             " y, nk, nv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>"
                             " (q, k, v, pk, pv, s, t) }");
  CHECK(dims_of(cached, "y") == Dims{2, 1, 24});
  CHECK(dims_of(cached, "nk") == Dims{2, 2, -1, 6});
}

TEST_CASE("Nothing is made up where shapes do not fit or are not known") {
  const Model odd = parse(kHead +
                          "g (float[2,3,8] x, float[8,25] w, float[25] b) => (float[] y) {"
                          " y = com.microsoft.Attention <num_heads = 4> (x, w, b) }");
  CHECK(dims_of(odd, "y") == Dims{2, 3, -1});
  const Model no_heads = parse(kHead +
                               "g (float[2,3,8] q, float k, float[] v) => (float[] y) {"
                               " y = com.microsoft.MultiHeadAttention (q, k, v) }");
  CHECK(dims_of(no_heads, "y") == Dims{2, 3, -1});
  const Model unknown = parse(kHead +
                              "g (float[] q) => (float[] y) { a = Abs(q) z = com.microsoft.MultiHeadAttention"
                              " <num_heads = 4> (a) y = Abs(z) }");
  CHECK_FALSE(unknown.main().type("z").shape);
}

TEST_CASE("Shapes pass through skip normalizations, GELUs and rotary positions") {
  const Model model =
      parse(kHead +
            "g (float[2,3,8] x, float[2,3,8] s, float[8] g, float[5,2] c, int64[2,3] p) => (float[] y) {"
            " a, , , sum = com.microsoft.SkipLayerNormalization (x, s, g)"
            " b = com.microsoft.BiasGelu(a, g)"
            " y = com.microsoft.RotaryEmbedding(b, p, c, c) }");
  for (const char* value : {"a", "sum", "b", "y"}) CHECK(dims_of(model, value) == Dims{2, 3, 8});
}

TEST_CASE("A convolution whose weight has another rank than its input has no shape, and is no crash") {
  const Model flat = parse(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,8] x) => (float[] y) <float[1,8,1,1] w = "
      "{1, 1, 1, 1, 1, 1, 1, 1}> { z = Conv(x, w) t = ConvTranspose(x, w) y = Add(z, t) }");
  CHECK_FALSE(flat.main().type("z").shape);
  CHECK_FALSE(flat.main().type("t").shape);
  const Model fits = parse(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,8,2,2] x) => (float[] y) <float[1,8,1,1] w = "
      "{1, 1, 1, 1, 1, 1, 1, 1}> { z = Conv(x, w) y = Relu(z) }");
  CHECK(dims_of(fits, "z") == Dims{1, 1, 2, 2});
}
