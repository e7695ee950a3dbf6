#include "data/single_samples.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "support/memory_source.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

ValueInfo input(std::string name, std::vector<Dim> shape) {
  return {std::move(name), {DType::f32, std::move(shape), true}};
}

const Dim kFree{std::nullopt, "N"};
Dim fixed(std::int64_t size) { return {size, ""}; }

Batch batch_of(std::vector<std::pair<std::string, Dims>> tensors, std::size_t samples) {
  Batch batch;
  batch.samples = samples;
  for (auto& [name, dims] : tensors) {
    const std::size_t count = *element_count(dims);
    batch.inputs.push_back({name, Tensor::of_floats(dims, random_floats(count, static_cast<unsigned>(count)))});
  }
  return batch;
}

std::vector<Batch> all(SingleSamples& samples) {
  std::vector<Batch> found;
  REQUIRE(samples.rewind());
  while (true) {
    auto next = samples.next();
    REQUIRE(next);
    if (!*next) return found;
    found.push_back(std::move(**next));
  }
}

}  // namespace

TEST_CASE("batches of a free leading axis come one sample at a time, twice the same") {
  const auto first = batch_of({{"x", {3, 2, 2}}, {"y", {3}}}, 3), last = batch_of({{"x", {1, 2, 2}}, {"y", {1}}}, 1);
  MemorySource source({first, last});
  SingleSamples samples(source, {input("x", {kFree, fixed(2), fixed(2)}), input("y", {kFree})});
  for (int round = 0; round < 2; ++round) {
    const auto found = all(samples);
    REQUIRE(found.size() == 4);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(found[i].samples == 1);
      REQUIRE(found[i].inputs.size() == 2);
      CHECK(found[i].inputs[0].name == "x");
      CHECK(found[i].inputs[0].tensor.dims() == Dims{1, 2, 2});
      CHECK(found[i].inputs[1].tensor.dims() == Dims{1});
      CHECK(std::ranges::equal(found[i].inputs[0].tensor.as<float>(),
                               first.inputs[0].tensor.as<float>().subspan(4 * i, 4)));
      CHECK(found[i].inputs[1].tensor.as<float>()[0] == first.inputs[1].tensor.as<float>()[i]);
    }
    CHECK(std::ranges::equal(found[3].inputs[0].tensor.bytes(), last.inputs[0].tensor.bytes()));
  }
}

TEST_CASE("a rewind in the middle of a batch starts over") {
  MemorySource source({batch_of({{"x", {3}}}, 3)});
  SingleSamples samples(source, {input("x", {kFree})});
  REQUIRE(samples.next());
  REQUIRE(samples.next());
  CHECK(all(samples).size() == 3);
}

TEST_CASE("batches stay whole where the model fixes them or an input has no sample axis") {
  const auto whole = [](Batch batch, std::vector<ValueInfo> inputs) {
    const std::size_t count = batch.samples;
    MemorySource source({std::move(batch)});
    SingleSamples samples(source, std::move(inputs));
    const auto found = all(samples);
    return found.size() == 1 && found[0].samples == count;
  };
  CHECK(whole(batch_of({{"x", {4, 2}}}, 4), {input("x", {fixed(4), fixed(2)})}));
  CHECK(whole(batch_of({{"x", {4, 2}}, {"y", {4}}}, 4), {input("x", {kFree, fixed(2)}), input("y", {fixed(4)})}));
  CHECK(whole(batch_of({{"x", {4, 2}}, {"y", {}}}, 4), {input("x", {kFree, fixed(2)}), input("y", {})}));
  CHECK(whole(batch_of({{"x", {4, 2}}, {"y", {3}}}, 4), {input("x", {kFree, fixed(2)}), input("y", {kFree})}));
  CHECK(whole(batch_of({{"x", {4, 2}}}, 1), {input("x", {kFree, fixed(2)})}));  // one sample with an axis of four
  Batch packed;  // three 4-bit elements a sample do not end on a byte
  packed.samples = 2;
  packed.inputs.push_back({"x", Tensor(DType::u4, {2, 3})});
  CHECK(whole(std::move(packed), {{"x", {DType::u4, std::nullopt, true}}}));
}

}  // namespace onnxpress::testing
