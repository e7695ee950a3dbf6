#include "ir/macs.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

using namespace onnxpress;
using testing::filled;
using testing::parse;

namespace {

std::optional<std::uint64_t> only_macs(const std::string& text) {
  const Model model = parse(text);
  const Node node = model.main().nodes().back();
  const auto macs = node_macs(node, nullptr);
  REQUIRE(macs);
  return *macs;
}

}  // namespace

TEST_CASE("Multiply-accumulates by hand") {
  SECTION("Conv: outputs x filter") {
    CHECK(only_macs(HEAD "g (float[1,3,8,8] x) => (float[1,4,6,6] y) <" + filled("float[4,3,3,3]", "w", 108) +
                    "> { y = Conv(x, w) }") == 4 * 6 * 6 * 3 * 3 * 3);
  }
  SECTION("grouped Conv") {
    CHECK(only_macs(HEAD "g (float[2,4,5,5] x) => (float[2,6,5,5] y) <" + filled("float[6,2,1,1]", "w", 12) +
                    "> { y = Conv<group = 2>(x, w) }") == 2 * 6 * 5 * 5 * 2);
  }
  SECTION("ConvTranspose: inputs x filter") {
    CHECK(only_macs(HEAD "g (float[1,2,4,4] x) => (float[1,3,8,8] y) <" + filled("float[2,3,2,2]", "w", 24) +
                    "> { y = ConvTranspose<strides = [2, 2]>(x, w) }") == 2 * 4 * 4 * 3 * 2 * 2);
  }
  SECTION("Gemm in every layout") {
    CHECK(only_macs(HEAD "g (float[5,3] x) => (float[5,2] y) <" + filled("float[3,2]", "w", 6) +
                    "> { y = Gemm(x, w) }") == 5 * 3 * 2);
    CHECK(only_macs(HEAD "g (float[3,5] x) => (float[5,2] y) <" + filled("float[2,3]", "w", 6) +
                    "> { y = Gemm<transA = 1, transB = 1>(x, w) }") == 5 * 3 * 2);
  }
  SECTION("MatMul with a matrix, batched, with a vector") {
    CHECK(only_macs(HEAD "g (float[2,7,3] x) => (float[2,7,4] y) <" + filled("float[3,4]", "w", 12) +
                    "> { y = MatMul(x, w) }") == 2 * 7 * 3 * 4);
    CHECK(only_macs(HEAD "g (float[2,1,7,3] x, float[5,3,4] w) => (float[2,5,7,4] y) { y = MatMul(x, w) }") ==
          2 * 5 * 7 * 3 * 4);
    CHECK(only_macs(HEAD "g (float[7,3] x, float[3] w) => (float[7] y) { y = MatMul(x, w) }") == 21);
  }
  SECTION("integer and fused forms") {
    CHECK(only_macs(HEAD "g (uint8[7,3] x, uint8[3,2] w) => (int32[7,2] y) { y = MatMulInteger(x, w) }") == 42);
    CHECK(only_macs("<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>"
                    "g (float[7,3] x, float[3,2] w) => (float[7,2] y) { y = com.microsoft.FusedMatMul(x, w) }") == 42);
    CHECK(only_macs("<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>"
                    "g (float[7,32] x, uint8[5,1,16] w, float[5] s) => (float[7,5] y)"
                    " { y = com.microsoft.MatMulNBits<K = 32, N = 5, bits = 4, block_size = 32>(x, w, s) }") ==
          7 * 32 * 5);
  }
  SECTION("LSTM: every step all of W and R") {
    CHECK(only_macs(HEAD "g (float[6,2,3] x, float[1,20,3] w, float[1,20,5] r) => (float[6,1,2,5] y)"
                         " { y = LSTM<hidden_size = 5>(x, w, r) }") == 6 * 2 * (20 * 3 + 20 * 5));
  }
  SECTION("Einsum of two operands") {
    CHECK(only_macs(HEAD "g (float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y)"
                         " { y = Einsum<equation = \"bij, bjk -> bik\">(x, w) }") == 2 * 3 * 4 * 5);
    CHECK_FALSE(only_macs(HEAD "g (float[2,3] x, float[2,3] w) => (float[2,3] y)"
                               " { y = Einsum<equation = \"...i, ...i -> ...i\">(x, w) }"));
  }
}

TEST_CASE("Ops that do not multiply have no MACs, unknown shapes are said to be unknown") {
  const Model relu = parse(HEAD "g (float[4] x) => (float[4] y) { y = Relu(x) }");
  CHECK_FALSE(node_macs(relu.main().nodes()[0], nullptr));
  const Model foreign = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"my.ops\": 1]>"
      "g (float[4,4] x) => (float[4,4] y) { y = my.ops.Conv(x, x) }");
  CHECK_FALSE(node_macs(foreign.main().nodes()[0], nullptr));
  const Model unknown = parse(HEAD "g (float[1,3,H,8] x, int64[4] s) => (float[1,4,A,B] y) <" +
                              filled("float[4,3,3,3]", "w", 108) + "> { r = Reshape(x, s)  y = Conv(r, w) }");
  const auto macs = node_macs(unknown.main().nodes()[1], nullptr);
  REQUIRE(macs);
  CHECK_FALSE(*macs);
}

TEST_CASE("MACs as they would be with other shapes") {
  const Model model = parse(HEAD "g (float[1,2,4,4] x) => (float[1,4,4,4] y) <" + filled("float[4,2,1,1]", "w", 8) +
                            "> { y = Conv(x, w) }");
  const auto halved = [](const Node&, bool output, std::size_t slot, Dims dims) {
    if (output) dims[1] = 2;
    if (!output && slot == 1) dims[0] = 2;
    return dims;
  };
  CHECK(node_macs(model.main().nodes()[0], nullptr) == std::optional<std::optional<std::uint64_t>>(128));
  CHECK(node_macs(model.main().nodes()[0], nullptr, halved) == std::optional<std::optional<std::uint64_t>>(64));
}

TEST_CASE("com.microsoft Attention: projections and two products over the sequence") {
  const auto macs = only_macs(
      "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>"
      "g (float[2,5,8] x, float[8,24] w, float[24] b) => (float[2,5,8] y)"
      " { y = com.microsoft.Attention<num_heads = 2>(x, w, b) }");
  CHECK(macs == 2 * 5 * 8 * 24 + 2 * (2 * 5 * 5 * 8));
}
