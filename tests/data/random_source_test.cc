#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "files.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

std::unique_ptr<SampleSource> random_source(std::string path, const std::vector<ValueInfo>& inputs,
                                            std::optional<std::size_t> samples = {}) {
  DataOptions options;
  options.path = std::move(path);
  options.samples = samples;
  return require_source(options, inputs);
}

std::vector<float> first_floats(std::string path, const std::string& name) {
  auto source = random_source(std::move(path), {input(name, DType::f32, {1000})});
  return values_of<float>(source->next().value()->inputs[0].tensor);
}

}  // namespace

TEST_CASE("random source: typed, stamped, and the same every time") {
  const std::vector inputs = {input("x", DType::f32, {-1, 3}), input("ids", DType::i64, {1, -1})};
  auto source = random_source("random:seed=5", inputs);
  CHECK(source->synthetic());
  CHECK_FALSE(source->has_labels());
  CHECK(source->size() == 32);
  CHECK(source->description() == "random:seed=5 (synthetic, 32 samples; free dimensions set to 1: x[n], ids[n])");
  const auto once = read_all(*source);
  REQUIRE(once.size() == 32);
  REQUIRE(source->rewind());
  const auto again = read_all(*source);
  for (std::size_t i = 0; i < once.size(); ++i) {
    CHECK(once[i].inputs[0].tensor.dims() == Dims{1, 3});
    CHECK(std::ranges::equal(once[i].inputs[0].tensor.bytes(), again[i].inputs[0].tensor.bytes()));
  }
  CHECK_FALSE(std::ranges::equal(once[0].inputs[0].tensor.bytes(), once[1].inputs[0].tensor.bytes()));
  CHECK(random_source("random:seed=5", inputs)->digest() == source->digest());
  CHECK(random_source("random:seed=6", inputs)->digest() != source->digest());
  CHECK(read_all(*random_source("random:seed=5", inputs, 3)).size() == 3);
}

TEST_CASE("random source: values depend on seed and name, and fill the range -1 to 1") {
  const auto values = first_floats("random:seed=1", "x");
  CHECK(values == first_floats("random:seed=1", "x"));
  CHECK(values != first_floats("random:seed=2", "x"));
  CHECK(values != first_floats("random:seed=1", "y"));
  const auto [low, high] = std::ranges::minmax(values);
  CHECK(low >= -1);
  CHECK(low < -0.9F);
  CHECK(high < 1);
  CHECK(high > 0.9F);
}

TEST_CASE("random source: every kind of number") {
  for (const DType dtype : {DType::f16, DType::bf16, DType::f64, DType::i32, DType::u8, DType::boolean}) {
    auto source = random_source("random:seed=1", {input("x", dtype, {64})});
    const Tensor tensor = source->next().value()->inputs[0].tensor;
    CHECK(tensor.dtype() == dtype);
    if (dtype == DType::i32) {
      const auto values = values_of<std::int32_t>(tensor);
      CHECK(std::ranges::count(values, 0) + std::ranges::count(values, 1) == 64);
      CHECK(std::ranges::count(values, 1) > 10);
    }
  }
}

TEST_CASE("random source: shapes and values of single inputs") {
  const std::vector inputs = {input("x:0", DType::f32, {-1, -1}), input("ids", DType::i32, {2, -1}),
                              input("rate", DType::i64, {})};
  auto source = random_source("random:seed=1,x:0=3x200:2..4,ids=:5..7,rate=:16000", inputs, 2);
  CHECK(source->description() ==
        "random:seed=1,x:0=3x200:2..4,ids=:5..7,rate=:16000 (synthetic, 2 samples; free dimensions set to 1: ids[n])");
  const Batch batch = *source->next().value();
  CHECK(batch.inputs[0].tensor.dims() == Dims{3, 200});
  const auto [low, high] = std::ranges::minmax(values_of<float>(batch.inputs[0].tensor));
  CHECK((low >= 2 && low < 2.1F && high < 4 && high > 3.9F));
  CHECK(batch.inputs[1].tensor.dims() == Dims{2, 1});
  for (const std::int32_t id : values_of<std::int32_t>(batch.inputs[1].tensor)) CHECK((id >= 5 && id <= 7));
  CHECK(values_of<std::int64_t>(batch.inputs[2].tensor) == std::vector<std::int64_t>{16000});
  CHECK(source->digest() != random_source("random:seed=1", inputs)->digest());
}

TEST_CASE("random source: wishes that fit no input") {
  DataOptions options;
  const std::vector inputs = {input("x", DType::f32, {2, -1}), input("ids", DType::i64, {2})};
  const auto refused = [&](const char* path, Code code, const char* text) {
    options.path = path;
    require_error(open_source(options, inputs), code, text);
  };
  refused("random:seed=1,y=2x3", Code::usage, "no input 'y'");
  for (const char* path : {"random:seed=1,x", "random:seed=1,x=", "random:seed=1,x=2x", "random:seed=1,x=0x3",
                           "random:seed=1,x=:", "random:seed=1,x=:4..2", "random:seed=1,x=:nan", "random:seed=1,=2"})
    refused(path, Code::usage, "INPUT=");
  refused("random:seed=1,x=3x3", Code::bad_input, "x");
  refused("random:seed=1,ids=:0.5", Code::usage, "whole numbers");
}

TEST_CASE("random source: what it cannot do") {
  DataOptions options;
  const std::vector inputs = {input("x", DType::f32, {2})};
  for (const char* path :
       {"random:", "random:seed=", "random:seed=x", "random:seed=-1", "random:seed=1,2", "random:sead=1"}) {
    options.path = path;
    require_error(open_source(options, inputs), Code::usage, "random:seed=N");
  }
  options.path = "random:seed=1";
  require_error(open_source(options, std::vector{input("s", DType::string, {1})}), Code::bad_input,
                "no tensor of numbers");
  require_error(open_source(options, std::vector<ValueInfo>{{"x", {DType::f32, std::nullopt, true}}}), Code::bad_input,
                "no known rank");
  require_error(open_source(options, std::vector{input("x", DType::f32, {std::int64_t{1} << 40})}), Code::resource,
                "one run takes");
  require_error(
      open_source(options, std::vector{input("x", DType::f32, {std::int64_t{1} << 40, std::int64_t{1} << 40})}),
      Code::bad_input, "no possible tensor");
}
