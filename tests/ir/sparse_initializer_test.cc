#include "ir/sparse_initializer.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "io/check.h"
#include "io/load.h"
#include "io/save.h"
#include "ir/file_bytes.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress {
namespace {

using testing::parse;

// Without the weight: what is added to it is what the file grows by, but for the length of the graph around it.
const char* const kModel = HEAD "g (float[3, 20] x) => (float[3, 20] y) { y = Relu(x) }";

std::uint64_t size_of(const Model& model) {
  const auto size = serialized_size(model);
  REQUIRE(size);
  return *size;
}

TEST_CASE("file_bytes: to the byte what initializers and nodes take") {
  for (const std::int64_t rows : {1, 7, 300}) {
    Model model = parse(kModel);
    const std::uint64_t before = size_of(model);
    Rewriter rewriter(model.main());
    const NodeSpec spec{.op = "ConstantOfShape",
                        .inputs = {"dims"},
                        .outputs = {"zeros"},
                        .attributes = {{"value", Tensor(DType::f16, {1})}},
                        .name = "node"};
    rewriter.prepend(spec);
    rewriter.add_initializer("weight", Tensor(DType::f32, {rows, 5}));
    REQUIRE(rewriter.commit());
    const std::uint64_t added = node_bytes(spec) + initializer_bytes("weight", DType::f32, {rows, 5});
    const std::uint64_t grown = size_of(model) - before;
    CHECK(grown >= added);
    CHECK(grown <= added + 2);  // the length of the graph may take more bytes now
  }
}

TEST_CASE("sparse initializers: written, counted to the byte, seen again, run") {
  Model model = parse(HEAD "g (float[3, 20] x) => (float[3, 20] y) <float[20] w = " +
                      std::string("{0,0,5,0,0,0,0,-2,0,0,0,0,0,0,0,0,0,0,0,1}") + "> { y = Add(x, w) }");
  const Batch batch = testing::random_batch("x", {3, 20}, 1);
  const auto expected = testing::run_on(model, batch);
  Rewriter rewriter(model.main());
  rewriter.remove_initializer(model.main().initializer("w"));
  REQUIRE(rewriter.commit());
  const std::uint64_t before = size_of(model);
  SparseInitializerWriter writer(model);
  CHECK_FALSE(writer.commit());
  const std::vector<float> values = {5, -2, 1};
  const std::vector<std::uint32_t> positions = {2, 7, 19};
  REQUIRE(writer.add(model.main(), "w", {20}, Tensor::of_floats({3}, values), positions));
  CHECK(writer.commit());
  CHECK(size_of(model) - before == sparse_initializer_bytes("w", DType::f32, {20}, 3));

  REQUIRE(check_model(model));
  const auto text = serialize_model(model);
  REQUIRE(text);
  const auto loaded = load_model_bytes(std::as_bytes(std::span(*text)), "again");
  REQUIRE(loaded);
  const auto found = sparse_initializers(loaded->main());
  REQUIRE(found.size() == 1);
  CHECK(found[0].name == "w");
  CHECK(found[0].dims == Dims{20});
  CHECK(found[0].bytes == 3 * 12);
  CHECK(loaded->main().type("w").static_shape() == Dims{20});
  CHECK_FALSE(loaded->main().is_constant("w"));
  const auto back = sparse_values(loaded->main(), "w");
  REQUIRE(back);
  CHECK(std::ranges::equal(back->as<float>(), values));
  CHECK_FALSE(sparse_values(loaded->main(), "other"));
  const auto got = testing::run_on(*loaded, batch);
  CHECK(std::ranges::equal(expected[0].bytes(), got[0].bytes()));
}

TEST_CASE("sparse initializers raise the IR version to the first that has them") {
  Model model = parse(
      "<ir_version: 4, opset_import: [\"\": 11]> g (float[2] x) => (float[2] y) <float[2] w = {0, 1}> { y = Add(x, w) "
      "}");
  Rewriter rewriter(model.main());
  rewriter.remove_initializer(model.main().initializer("w"));
  REQUIRE(rewriter.commit());
  SparseInitializerWriter writer(model);
  const std::vector<float> one = {1};
  const std::vector<std::uint32_t> position = {1};
  REQUIRE(writer.add(model.main(), "w", {2}, Tensor::of_floats({1}, one), position));
  CHECK(writer.commit());
  CHECK(model.ir_version() == 6);
}

}  // namespace
}  // namespace onnxpress
