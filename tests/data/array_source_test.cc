#include <catch2/catch_test_macros.hpp>

#include "base/hash.h"
#include "files.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

// An npz file in a folder of its own.
struct Npz {
  TempDir dir;
  std::string path = dir.path("data.npz");
  explicit Npz(const std::vector<std::pair<std::string, std::string>>& entries) {
    write_zip(path, entries, ZIP_CM_DEFLATE);
  }
  auto open(const std::vector<ValueInfo>& inputs, DataOptions options = {}) const {
    options.path = path;
    return open_source(options, inputs);
  }
};

}  // namespace

TEST_CASE("npz source: samples lacking the batch axis, with labels, twice") {
  const Npz npz({{"x.npy", counting_npy<float>("<f4", "(3, 2)", 6)},
                 {"labels.npy", npy("|u1", "(3, 1)", std::string("\5\6\7"))}});
  auto source = npz.open({input("x", DType::f32, {-1, 2})}).value();
  CHECK(source->size() == 3);
  CHECK(source->has_labels());
  CHECK_FALSE(source->synthetic());
  CHECK(source->description() == "data.npz (npz, 3 samples)");
  CHECK(source->digest() == Hasher().add(read_file(npz.path)).hex());
  for (int round = 0; round < 2; ++round) {
    const auto batches = read_all(*source);
    REQUIRE(batches.size() == 3);
    CHECK(batches[1].inputs[0].name == "x");
    CHECK(batches[1].inputs[0].tensor.dims() == Dims{1, 2});
    CHECK(values_of<float>(batches[1].inputs[0].tensor) == std::vector<float>{2, 3});
    CHECK(batches[2].labels == std::vector<std::int64_t>{7});
    CHECK(batches[2].samples == 1);
    REQUIRE(source->rewind());
  }
}

TEST_CASE("npz source: samples of the model's own rank are whole runs") {
  const Npz npz({{"x.npy", counting_npy<float>("<f4", "(2, 1, 2)", 4)},
                 {"sr.npy", counting_npy<std::int64_t>("<i8", "(2,)", 2)}});
  auto source = npz.open({input("x", DType::f32, {1, 2}), input("sr", DType::i64, {})},
                         {.path = "", .samples = {}, .labels = "", .preprocess = "", .batch = 4})
                    .value();
  const auto batches = read_all(*source);
  REQUIRE(batches.size() == 2);
  CHECK(batches[1].inputs[0].tensor.dims() == Dims{1, 2});
  CHECK(batches[1].inputs[1].tensor.dims().empty());
  CHECK(values_of<std::int64_t>(batches[1].inputs[1].tensor) == std::vector<std::int64_t>{1});
}

TEST_CASE("npz source: a free batch dimension takes options.batch, and a smaller rest") {
  const Npz npz({{"x.npy", counting_npy<float>("<f4", "(5, 1)", 5)},
                 {"labels.npy", counting_npy<std::int64_t>("<i8", "(5,)", 5)}});
  DataOptions options;
  options.batch = 2;
  auto source = npz.open({input("x", DType::f32, {-1, 1})}, options).value();
  CHECK(source->size() == 5);
  CHECK(source->description() == "data.npz (npz, 5 samples in runs of 2)");
  const auto batches = read_all(*source);
  REQUIRE(batches.size() == 3);
  CHECK(batches[1].labels == std::vector<std::int64_t>{2, 3});
  CHECK(batches[2].samples == 1);
  CHECK(values_of<float>(batches[2].inputs[0].tensor) == std::vector<float>{4});
}

TEST_CASE("npz source: a fixed batch dimension groups samples and leaves the rest over") {
  const Npz npz({{"x.npy", counting_npy<float>("<f4", "(5, 1)", 5)},
                 {"labels.npy", counting_npy<std::int64_t>("<i8", "(5,)", 5)}});
  auto source = npz.open({input("x", DType::f32, {2, 1})}).value();
  CHECK(source->size() == 4);
  CHECK(source->description() == "data.npz (npz, 4 of 5 samples in runs of 2, 1 left over)");
  const auto batches = read_all(*source);
  REQUIRE(batches.size() == 2);
  CHECK(batches[1].samples == 2);
  CHECK(values_of<float>(batches[1].inputs[0].tensor) == std::vector<float>{2, 3});
  require_error(npz.open({input("x", DType::f32, {8, 1})}), Code::bad_input, "fewer than the 8");
}

TEST_CASE("npz source: samples= caps") {
  const Npz npz({{"x.npy", counting_npy<float>("<f4", "(5, 1)", 5)}});
  DataOptions options;
  options.samples = 3;
  auto source = npz.open({input("x", DType::f32, {1, 1})}, options).value();
  CHECK_FALSE(source->has_labels());
  CHECK(read_all(*source).size() == 3);
  CHECK(source->description() == "data.npz (npz, 3 of 5 samples)");
  options.samples = 0;
  require_error(npz.open({input("x", DType::f32, {1, 1})}, options), Code::usage, "--samples 0");
}

TEST_CASE("npz source: keys must be the input names") {
  const Npz npz({{"input_id.npy", counting_npy<std::int64_t>("<i8", "(2, 3)", 6)},
                 {"mask.npy", counting_npy<std::int64_t>("<i8", "(2, 3)", 6)}});
  const auto ids = input("input_ids", DType::i64, {-1, -1});
  require_error(npz.open({ids}), Code::bad_input,
                "no key 'input_ids' for that input of the model, did you mean 'input_id'?");
  require_error(npz.open({input("pixels", DType::f32, {1})}), Code::bad_input,
                "keys: 'input_id', 'mask'; inputs: 'pixels'");
  auto source = npz.open({input("mask", DType::i64, {-1, -1})}).value();
  CHECK(source->description() == "data.npz (npz, 2 samples, unused: 'input_id')");
  require_error(npz.open({}), Code::bad_input, "no inputs");
}

TEST_CASE("npz source: an input called labels is an input") {
  const Npz npz({{"labels.npy", counting_npy<std::int64_t>("<i8", "(2, 3)", 6)}});
  auto source = npz.open({input("labels", DType::i64, {-1, 3})}).value();
  CHECK_FALSE(source->has_labels());
}

TEST_CASE("npz source: numbers change width, never kind, and never lose an integer") {
  const auto x = [](DType dtype) { return std::vector{input("x", dtype, {-1, 2})}; };
  const Npz wide({{"x.npy", npy("<f8", "(1, 2)", raw(std::vector<double>{0.5, -2}))}});
  CHECK(values_of<float>(read_all(*wide.open(x(DType::f32)).value())[0].inputs[0].tensor) ==
        std::vector<float>{0.5F, -2});
  CHECK(values_of<std::uint16_t>(read_all(*wide.open(x(DType::f16)).value())[0].inputs[0].tensor) ==
        std::vector<std::uint16_t>{0x3800, 0xc000});
  require_error(wide.open(x(DType::i64)), Code::bad_input, "cannot become");
  const Npz half({{"x.npy", npy("<f2", "(1, 2)", raw(std::vector<std::uint16_t>{0x3800, 0xc000}))}});
  CHECK(values_of<float>(read_all(*half.open(x(DType::f32)).value())[0].inputs[0].tensor) ==
        std::vector<float>{0.5F, -2});
  const Npz small({{"x.npy", npy("<i4", "(1, 2)", raw(std::vector<std::int32_t>{-1, 7}))}});
  CHECK(values_of<std::int64_t>(read_all(*small.open(x(DType::i64)).value())[0].inputs[0].tensor) ==
        std::vector<std::int64_t>{-1, 7});
  require_error(small.open(x(DType::f32)), Code::bad_input, "cannot become");
  require_error(small.open(x(DType::boolean)), Code::bad_input, "cannot become");
  require_error(small.open(x(DType::u8)).value()->next(), Code::bad_input, "a value does not fit");
  const Npz large({{"x.npy", npy("<i8", "(1, 2)", raw(std::vector<std::int64_t>{0, std::int64_t{1} << 40}))}});
  require_error(large.open(x(DType::i32)).value()->next(), Code::bad_input, "a value does not fit");
}

TEST_CASE("npz source: shapes and counts that contradict the model or each other") {
  const Npz npz(
      {{"x.npy", counting_npy<float>("<f4", "(2, 3)", 6)}, {"y.npy", counting_npy<float>("<f4", "(3, 2)", 6)}});
  require_error(npz.open({input("x", DType::f32, {-1, 4})}), Code::bad_input,
                "[1, 3] does not fit input 'x' of type float[n, 4]");
  require_error(npz.open({input("x", DType::f32, {-1, 3, 1, 1})}), Code::bad_input, "do not fit input 'x'");
  require_error(npz.open({input("x", DType::f32, {-1, 3}), input("y", DType::f32, {-1, 2})}), Code::bad_input,
                "has 2 samples");
  const Npz pair(
      {{"x.npy", counting_npy<float>("<f4", "(4, 3)", 12)}, {"y.npy", counting_npy<float>("<f4", "(4, 3)", 12)}});
  require_error(pair.open({input("x", DType::f32, {2, 3}), input("y", DType::f32, {4, 3})}), Code::bad_input,
                "different fixed batches (2 and 4)");
  require_error(pair.open({input("x", DType::f32, {2, 3}), input("y", DType::f32, {3})}), Code::bad_input,
                "not every array can be stacked");
}

TEST_CASE("npz source: labels are one integer a sample") {
  const auto x = std::pair{std::string("x.npy"), counting_npy<float>("<f4", "(2, 3)", 6)};
  const std::vector inputs = {input("x", DType::f32, {-1, 3})};
  require_error(Npz({x, {"labels.npy", counting_npy<float>("<f4", "(2,)", 2)}}).open(inputs), Code::bad_input,
                "one integer a sample");
  require_error(Npz({x, {"labels.npy", counting_npy<std::int64_t>("<i8", "(2, 2)", 4)}}).open(inputs), Code::bad_input,
                "one integer a sample");
  require_error(Npz({x, {"labels.npy", counting_npy<std::int64_t>("<i8", "(3,)", 3)}}).open(inputs), Code::bad_input,
                "has 3");
}

TEST_CASE("npz source: no samples, and a run too large to hold") {
  const Npz none({{"x.npy", npy("<f4", "(0, 3)", "")}});
  require_error(none.open({input("x", DType::f32, {-1, 3})}), Code::bad_input, "no samples");
  const Npz empty_items({{"x.npy", npy("<f4", "(3000000000, 0)", "")}});
  auto source = empty_items.open({input("x", DType::f32, {-1, 0})});
  REQUIRE(source);
  CHECK((*source)->next().value()->inputs[0].tensor.size() == 0);
}

TEST_CASE("npz source: an input of unknown rank gets a batch axis") {
  const Npz npz({{"x.npy", counting_npy<float>("<f4", "(2, 3)", 6)}});
  auto source = npz.open({{"x", {DType::f32, std::nullopt, true}}}).value();
  CHECK(read_all(*source)[0].inputs[0].tensor.dims() == Dims{1, 3});
  require_error(npz.open({{"x", {DType::f32, std::nullopt, false}}}), Code::bad_input, "not a dense tensor");
}

TEST_CASE("npy source: one array for one input") {
  TempDir dir;
  const std::string path = dir.path("x.npy");
  write_file(path, counting_npy<float>("<f4", "(2, 3)", 6));
  auto source = require_source({.path = path, .samples = {}, .labels = {}, .preprocess = {}},
                               {input("any", DType::f32, {-1, 3})});
  CHECK(source->description() == "x.npy (npy, 2 samples)");
  CHECK(source->digest() == Hasher().add(read_file(path)).hex());
  CHECK(read_all(*source)[1].inputs[0].name == "any");
  DataOptions options;
  options.path = path;
  const std::vector two = {input("a", DType::f32, {-1, 3}), input("b", DType::f32, {-1, 3})};
  require_error(open_source(options, two), Code::bad_input, "the model has 2 inputs ('a', 'b')");
}
