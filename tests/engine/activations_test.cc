#include "engine/activations.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "engine/fake_source.h"
#include "io/load.h"
#include "ir/rewriter.h"
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

TEST_CASE("every run of a body reaches the accumulator, in order, at any number of jobs and any limit") {
  const Model model = parse(HEAD
                            "agraph (float[N, 8] x, int64 n) => (float[N, 8] y) <bool go = {1}, int64 one = {1}> "
                            "{ y = Loop(n, go, x) <body = b (int64 i, bool ci, float[N, 8] s) => "
                            "(bool co, float[N, 8] r) { co = Identity(ci) m = Sigmoid(s) c = Equal(i, one) "
                            "r = If(c) <then_branch = p () => (float[N, 8] u) { u = Neg(m) }, "
                            "else_branch = q () => (float[N, 8] v) { v = Add(m, s) }> }> }");
  std::vector<Batch> batches = samples(20);
  for (std::size_t i = 0; i < batches.size(); ++i)
    batches[i].inputs.push_back({"n", Tensor::scalar<std::int64_t>(DType::i64, static_cast<std::int64_t>(i % 4))});
  const Graph* body = model.main().nodes().back().subgraphs()[0];
  const Graph* branch = body->nodes().back().subgraphs()[0];
  const auto collect = [&](unsigned jobs, std::uint64_t limit) {
    FakeSource source(batches);
    std::vector<Recorder> recorders(3);
    const std::vector<Tap> taps = {
        {"m", &recorders[0], body}, {"u", &recorders[1], branch}, {"y", &recorders[2], &model.main()}};
    REQUIRE(EngineActivations(source, jobs, limit).collect(model, taps));
    return recorders;
  };
  const auto expected = collect(1, 0);
  CHECK(expected[0].seen.size() == 30);  // 0, 1, 2 and 3 iterations, five times
  CHECK(expected[1].seen.size() == 10);  // the second iteration, where there is one
  CHECK(expected[2].seen.size() == 20);
  for (const unsigned jobs : {1U, 4U})
    for (const std::uint64_t limit : {0, 1, 1 << 20}) {
      const auto same = collect(jobs, limit);
      for (std::size_t i = 0; i < expected.size(); ++i) REQUIRE(same[i].seen == expected[i].seen);
    }
}

TEST_CASE("the batch size of the source changes nothing") {
  const std::string testdata = ONNXPRESS_SOURCE_DIR "/testdata/";
  for (const std::string name : {"digits_cnn", "digits_transformer", "digits_lstm"}) {
    const auto model = load_model(testdata + "models/" + name + ".onnx");
    REQUIRE(model);
    const auto session = Session::open(*model);
    REQUIRE(session);
    std::vector<std::string> values;
    for (const Node& node : model->main().nodes())
      if (!node.output(0).empty() && is_float(model->main().type(node.output(0)).dtype))
        values.emplace_back(node.output(0));
    const auto collect = [&](std::size_t batch, unsigned jobs, std::uint64_t limit = 0) {
      DataOptions options;
      options.path = testdata + "data/digits_train.npz";
      options.samples = 40;
      options.batch = batch;
      const auto source = open_source(options, (*session)->inputs());
      REQUIRE(source);
      std::vector<Recorder> recorders(values.size());
      std::vector<Tap> taps;
      for (std::size_t i = 0; i < values.size(); ++i) taps.push_back({values[i], &recorders[i]});
      REQUIRE(EngineActivations(**source, jobs, limit).collect(*model, taps));
      std::vector<std::vector<std::vector<std::byte>>> seen;
      for (Recorder& recorder : recorders) seen.push_back(std::move(recorder.seen));
      return seen;
    };
    INFO(name);
    const auto expected = collect(1, 1);
    REQUIRE(expected.front().size() == 40);
    for (const std::size_t batch : {std::size_t{7}, std::size_t{32}}) REQUIRE(collect(batch, 2) == expected);
    for (unsigned jobs = 2; jobs <= 8; ++jobs) REQUIRE(collect(1, jobs) == expected);
    REQUIRE(collect(7, 8, 50'000) == expected);
  }
}

TEST_CASE("a batch the model fixes stays whole") {
  const Model model = parse(HEAD "agraph (float[4, 8] x) => (float[4, 8] y) { y = Neg(x) }");
  Batch batch;
  batch.samples = 4;
  batch.inputs.push_back({"x", Tensor::of_floats({4, 8}, random_floats(32, 1))});
  FakeSource source({batch, batch});
  Recorder recorder;
  const Tap tap{"y", &recorder};
  REQUIRE(EngineActivations(source, 2, 0).collect(model, {&tap, 1}));
  REQUIRE(recorder.seen.size() == 2);
  CHECK(recorder.seen[0].size() == 32 * sizeof(float));
}

// Keeps the bytes of both tensors.
class PairRecorder : public PairAccumulator {
 public:
  std::any reduce(const TensorView& a, const TensorView& b) const override {
    std::vector<std::byte> both(a.bytes.begin(), a.bytes.end());
    both.insert(both.end(), b.bytes.begin(), b.bytes.end());
    return both;
  }
  void merge(std::any partial) override { seen.push_back(std::any_cast<std::vector<std::byte>>(std::move(partial))); }
  std::vector<std::vector<std::byte>> seen;
};

TEST_CASE("pairs come from the same sample of both models, in order, whatever the limit") {
  const Model a = parse(kModel);
  const Model b = parse(HEAD
                        "agraph (float[N, 8] x) => (float[N, 8] y) <float[8] b = {1, 2, 3, 4, 5, 6, 7, 8}> "
                        "{ a = Add(x, b) s = Sigmoid(a) h = Mul(s, x) m = Neg(h) y = Sub(m, s) }");
  const std::vector<std::pair<std::string, std::string>> pairs = {{"y", "y"}, {"m", "h"}, {"m", "m"}, {"a", "x"}};
  const auto bytes_of = [](const Tensor& tensor) {
    return std::vector<std::byte>(tensor.bytes().begin(), tensor.bytes().end());
  };
  const auto batches = samples(12);
  std::vector<std::vector<std::vector<std::byte>>> expected(pairs.size());
  const auto session_a = Session::open(a, {.taps = {"m", "a"}});
  const auto session_b = Session::open(b, {.taps = {"h", "m"}});
  for (const Batch& batch : batches) {
    const auto from_a = (*session_a)->run(batch.inputs), from_b = (*session_b)->run(batch.inputs);
    REQUIRE((from_a && from_b));
    const std::vector<std::pair<Tensor, Tensor>> tensors = {{(*from_a)[0], (*from_b)[0]},
                                                            {(*from_a)[1], (*from_b)[1]},
                                                            {(*from_a)[1], (*from_b)[2]},
                                                            {(*from_a)[2], batch.inputs[0].tensor}};
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      expected[i].push_back(bytes_of(tensors[i].first));
      const auto second = bytes_of(tensors[i].second);
      expected[i].back().insert(expected[i].back().end(), second.begin(), second.end());
    }
  }
  for (const std::uint64_t limit : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{500}, std::uint64_t{1} << 20}) {
    FakeSource source(batches);
    EngineActivations activations(source, 3, limit);
    std::vector<std::size_t> passes;
    for (int call = 0; call < 4; ++call) {  // later calls may know the first model's values already
      std::vector<PairRecorder> recorders(pairs.size());
      std::vector<PairTap> taps;
      for (std::size_t i = 0; i < pairs.size(); ++i) taps.push_back({pairs[i].first, pairs[i].second, &recorders[i]});
      source.rewinds = 0;
      REQUIRE(activations.collect_pairs(a, b, taps));
      for (std::size_t i = 0; i < pairs.size(); ++i) REQUIRE(recorders[i].seen == expected[i]);
      passes.push_back(source.rewinds);
    }
    CHECK(passes[0] == (limit == 1 ? pairs.size() : limit == 500 ? 2 : 1));
  }
}

TEST_CASE("a changed reference is run anew") {
  FakeSource source(samples(3));
  EngineActivations activations(source, 2, 0);
  Model a = parse(kModel);
  const Model b = parse(kModel);
  const auto ask = [&] {
    PairRecorder recorder;
    const PairTap tap{"y", "y", &recorder};
    REQUIRE(activations.collect_pairs(a, b, {&tap, 1}));
    return recorder.seen;
  };
  const auto before = ask();
  for (int i = 0; i < 3; ++i) CHECK(ask() == before);
  Rewriter rewriter(a.main());
  rewriter.set_initializer(a.main().initializer("b"), Tensor(DType::f32, {8}));
  REQUIRE(rewriter.commit());
  const auto changed = ask();
  REQUIRE(changed.size() == before.size());
  for (std::size_t i = 0; i < changed.size(); ++i) CHECK(changed[i] != before[i]);
  for (int i = 0; i < 3; ++i) CHECK(ask() == changed);
  // A weight outside the proto: the proto looks the same but for the slot.
  Model large = parse(HEAD "agraph (float[N, 8] x) => (float[N, 512] y) <float[1] w = {0}> { y = MatMul(x, w) }");
  const auto set = [&](unsigned seed) {
    Rewriter edit(large.main());
    edit.set_initializer(large.main().initializer("w"), Tensor::of_floats({8, 512}, random_floats(8 * 512, seed)));
    REQUIRE(edit.commit());
    PairRecorder recorder;
    const PairTap tap{"y", "y", &recorder};
    for (int i = 0; i < 3; ++i) REQUIRE(activations.collect_pairs(large, b, {&tap, 1}));
    return recorder.seen.back();
  };
  const auto first = set(1);
  CHECK(set(2) != first);
  CHECK(set(1) == first);
}

TEST_CASE("errors of either model of a pair come back") {
  PairRecorder recorder;
  const Model model = parse(kModel);
  for (const PairTap& tap : {PairTap{"nowhere", "y", &recorder}, PairTap{"y", "nowhere", &recorder}}) {
    FakeSource source(samples(2));
    const Status status = EngineActivations(source, 2, 0).collect_pairs(model, model, {&tap, 1});
    REQUIRE_FALSE(status);
    CHECK(status.error().code == Code::bad_input);
  }
  FakeSource none({});
  const PairTap tap{"y", "y", &recorder};
  CHECK_FALSE(EngineActivations(none, 2, 0).collect_pairs(model, model, {&tap, 1}));
  FakeSource broken(samples(9));
  broken.fail_at = 5;
  const Status failed = EngineActivations(broken, 2, 0).collect_pairs(model, model, {&tap, 1});
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == Code::io);
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
