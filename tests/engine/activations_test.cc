#include "engine/activations.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "engine/fake_source.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

constexpr const char* kModel = HEAD
    "agraph (float[N, 8] x) => (float[N, 8] y) <float[8] b = {1, 2, 3, 4, 5, 6, 7, 8}> "
    "{ a = Add(x, b) s = Sigmoid(a) m = Mul(s, x) p = NonZero(m) y = Sub(m, s) }";

// Keeps every tensor's bytes in the order they are merged: shows order, content and number of calls.
class Recorder : public Accumulator {
 public:
  std::any reduce(const TensorView& value) const override {
    return std::vector<std::byte>(value.bytes.begin(), value.bytes.end());
  }
  void merge(std::any partial) override { seen.push_back(std::any_cast<std::vector<std::byte>>(std::move(partial))); }
  std::uint64_t bytes() const override { return seen.empty() ? 0 : 2 * seen.front().size(); }
  std::vector<std::vector<std::byte>> seen;
};

std::vector<Batch> samples(std::size_t count) {
  std::vector<Batch> batches;
  for (unsigned i = 0; i < count; ++i) {
    const std::int64_t rows = 1 + i % 3;
    Batch batch;
    batch.inputs.push_back({"x", Tensor::of_floats({rows, 8}, random_floats(static_cast<std::size_t>(rows) * 8, i))});
    batches.push_back(std::move(batch));
  }
  return batches;
}

const std::vector<std::string> kValues = {"a", "s", "m", "p", "y", "x", "a"};

std::vector<Recorder> record(FakeSource& source, unsigned jobs, std::uint64_t limit) {
  std::vector<Recorder> recorders(kValues.size());
  std::vector<Tap> taps;
  for (std::size_t i = 0; i < kValues.size(); ++i) taps.push_back({kValues[i], &recorders[i]});
  const Status status = EngineActivations(source, jobs, limit).collect(parse(kModel), taps);
  INFO((status ? "" : status.error().text()));
  REQUIRE(status);
  return recorders;
}

void require_same(const std::vector<Recorder>& a, const std::vector<Recorder>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(kValues[i]);
    REQUIRE(a[i].seen == b[i].seen);
  }
}

}  // namespace

TEST_CASE("every tap sees every batch, in order") {
  const auto batches = samples(9);
  FakeSource source(batches);
  const auto recorders = record(source, 1, 0);
  const auto session = Session::open(parse(kModel), {.taps = {"a", "s", "m", "p"}});
  REQUIRE(session);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const auto outputs = (*session)->run(batches[i].inputs);
    REQUIRE(outputs);
    const auto bytes = [&](std::size_t k) {
      return std::vector<std::byte>((*outputs)[k].bytes().begin(), (*outputs)[k].bytes().end());
    };
    CHECK(recorders[4].seen[i] == bytes(0));
    for (std::size_t k = 0; k < 4; ++k) CHECK(recorders[k].seen[i] == bytes(k + 1));
    CHECK(std::ranges::equal(recorders[5].seen[i], batches[i].inputs[0].tensor.bytes()));
  }
  for (const Recorder& recorder : recorders) CHECK(recorder.seen.size() == batches.size());
  CHECK(source.rewinds == 1);
}

TEST_CASE("the number of jobs does not change what accumulators see") {
  FakeSource source(samples(50));
  const auto expected = record(source, 1, 0);
  require_same(record(source, 4, 0), expected);
  require_same(record(source, 0, 0), expected);
}

TEST_CASE("taps that exceed the memory limit are collected in several passes, with the same result") {
  FakeSource source(samples(20));
  const auto expected = record(source, 2, 0);
  CHECK(source.rewinds == 1);
  source.rewinds = 0;
  require_same(record(source, 2, 1), expected);
  CHECK(source.rewinds == kValues.size());
  source.rewinds = 0;
  require_same(record(source, 2, 1 << 20), expected);
  CHECK(source.rewinds == 1);
  source.rewinds = 0;
  require_same(record(source, 2, 600), expected);
  CHECK(source.rewinds > 1);
  CHECK(source.rewinds < kValues.size());
}

TEST_CASE("collecting nothing runs nothing") {
  FakeSource source(samples(3));
  CHECK(EngineActivations(source, 2, 0).collect(parse(kModel), {}));
  CHECK(source.rewinds == 0);
}

TEST_CASE("errors of the source, the model and the samples come back") {
  Recorder recorder;
  const Tap tap{"a", &recorder};
  const Tap nowhere{"nowhere", &recorder};
  const std::uint64_t limits[] = {0, 100};
  for (const std::uint64_t limit : limits) {
    FakeSource none({});
    const Status empty = EngineActivations(none, 2, limit).collect(parse(kModel), {&tap, 1});
    REQUIRE_FALSE(empty);
    CHECK(empty.error().code == Code::bad_input);
    CHECK_THAT(empty.error().text(), Catch::Matchers::ContainsSubstring("no samples"));

    FakeSource broken(samples(20));
    broken.fail_at = 7;
    const Status failed = EngineActivations(broken, 4, limit).collect(parse(kModel), {&tap, 1});
    REQUIRE_FALSE(failed);
    CHECK(failed.error().code == Code::io);

    FakeSource fine(samples(3));
    CHECK_FALSE(EngineActivations(fine, 2, limit).collect(parse(kModel), {&nowhere, 1}));
    auto wrong = samples(3);
    wrong[1].inputs[0].tensor = Tensor::of_floats({1, 7}, std::vector<float>(7));
    FakeSource misshapen(std::move(wrong));
    const Status status = EngineActivations(misshapen, 1, limit).collect(parse(kModel), {&tap, 1});
    REQUIRE_FALSE(status);
    CHECK(status.error().code == Code::bad_input);
  }
}

TEST_CASE("the description says when the samples are invented") {
  FakeSource source({});
  const EngineActivations activations(source, 1, 0);
  CHECK(activations.description() == "fake samples");
  source.invented = true;
  CHECK(activations.description() == "fake samples, synthetic");
}

}  // namespace onnxpress::testing
