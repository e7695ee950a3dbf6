#include "quant/sensitivity.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "engine/activations.h"
#include "support/mixed.h"

using Catch::Matchers::WithinRel;

namespace onnxpress::testing {
namespace {

// Counts the runs over two models.
class CountingActivations : public EngineActivations {
 public:
  using EngineActivations::EngineActivations;
  Status collect(const Model& model, std::span<const Tap> taps) override {
    ++ranges;
    return EngineActivations::collect(model, taps);
  }
  Status collect_pairs(const Model& a, const Model& b, std::span<const PairTap> taps) override {
    ++pairs;
    return EngineActivations::collect_pairs(a, b, taps);
  }
  int ranges = 0, pairs = 0;
};

struct Measured {
  SensitivityTable table;
  int ranges = 0, pairs = 0;
};

Measured measure(const std::string& text, std::vector<Batch> samples, unsigned jobs = 1, SensitivityRun run = {}) {
  const Model model = parse(text);
  MemorySource source(std::move(samples));
  CountingActivations activations(source, jobs, 0);
  PassContext context;
  context.activations = &activations;
  context.jobs = jobs;
  Meter meter(model, context, {});
  auto table = measure_sensitivity(model, meter, run);
  INFO((table ? "" : table.error().text()));
  REQUIRE(table);
  return {std::move(*table), activations.ranges, activations.pairs};
}

// The slow way: quant-static with a selection, every sample by itself, plain sums.
OutputError oracle(const std::string& text, const std::string& pipeline, const std::vector<Batch>& samples) {
  const Model before = parse(text);
  Model after = parse(text);
  MemorySource source(samples);
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  run_pipeline(after, pipeline, &context);
  double signal = 0, error = 0, kl = 0, agree = 0;
  for (const Batch& batch : samples) {
    const Tensor a = run_on(before, batch).front(), b = run_on(after, batch).front();
    const auto x = a.as<float>(), y = b.as<float>();
    double sum_x = 0, sum_y = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      signal += std::pow(static_cast<double>(x[i]), 2);
      error += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
      sum_x += std::exp(static_cast<double>(x[i]));
      sum_y += std::exp(static_cast<double>(y[i]));
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double p = std::exp(static_cast<double>(x[i])) / sum_x, q = std::exp(static_cast<double>(y[i])) / sum_y;
      kl += p * std::log(p / q);
    }
    agree += std::ranges::max_element(x) - x.begin() == std::ranges::max_element(y) - y.begin();
  }
  const auto rows = static_cast<double>(samples.size());
  return {error / signal, kl / rows, 100 * agree / rows};
}

void check_equal(const OutputError& got, const OutputError& expected) {
  CHECK_THAT(got.noise, WithinRel(expected.noise, 1e-9));
  REQUIRE(got.kl);
  CHECK_THAT(*got.kl, WithinRel(*expected.kl, 1e-6));
  CHECK(*got.agreement == *expected.agreement);
}

}  // namespace

TEST_CASE("sensitivity: each number is what quant-static on that node, or on all others, gives") {
  const std::string text = layered_model();
  const auto samples = layered_samples();
  const Measured got = measure(text, samples);
  REQUIRE(got.table.nodes.size() == 3);
  CHECK(got.table.complete);
  check_equal(got.table.all.at(NodeFormat::int8).error, oracle(text, "quant-static{placement=all}", samples));
  for (const NodeSensitivity& row : got.table.nodes) {
    INFO(row.node);
    CHECK(row.op == "MatMul");
    CHECK(row.kernel);
    check_equal(row.alone.at(NodeFormat::int8).error,
                oracle(text, "quant-static{placement=all only=" + row.node + "}", samples));
    check_equal(row.rest->error, oracle(text, "quant-static{placement=all skip=" + row.node + "}", samples));
    CHECK(row.alone.at(NodeFormat::int8).bytes < 0);
  }
  CHECK(got.ranges <= 2);  // not one run for each recipe
  const auto formats = static_cast<int>(recipe_formats().size());
  CHECK(got.pairs == formats + 3 * (formats + 1) + 1);  // all, each node, two nodes skipped (four there are not)
}

TEST_CASE("sensitivity: the noise of single nodes adds up to that of all, within 2 dB") {
  const Measured got = measure(layered_model(), layered_samples(100));
  double sum = 0;
  for (const NodeSensitivity& row : got.table.nodes) sum += row.alone.at(NodeFormat::int8).error.noise;
  const double all = got.table.all.at(NodeFormat::int8).error.noise;
  CHECK(std::abs(10 * std::log10(sum / all)) < 2);
}

TEST_CASE("sensitivity: the best nodes to skip come first") {
  const Measured got = measure(layered_model(), layered_samples());
  const auto order = by_gain(got.table);
  REQUIRE(got.table.skips.size() == 2);
  CHECK(got.table.skips[0].nodes == std::vector<std::string>{order[0]->node});
  CHECK(got.table.skips[0].effect == *order[0]->rest);
  CHECK(got.table.skips[1].nodes.size() == 2);
  CHECK(got.table.skips[1].effect.error.noise < got.table.all.at(NodeFormat::int8).error.noise);
}

TEST_CASE("sensitivity: nodes with one weight are one unit; what lives between kernels is only left out") {
  const std::string text = HEAD "g (float[1, 8] x) => (float[1, 8] y) <" + float_tensor("w", {8, 8}, 1) + ", " +
                           float_tensor("v", {8, 8}, 2) +
                           "> { a = MatMul(x, w) b = MatMul(a, w) s = Add(a, b) y = MatMul(s, v) }";
  std::vector<Batch> samples;
  for (unsigned seed = 1; seed < 9; ++seed) samples.push_back(random_batch("x", {1, 8}, seed));
  const Measured got = measure(text, samples);
  REQUIRE(got.table.nodes.size() == 3);
  CHECK(got.table.nodes[0].with == std::vector<std::string>{"MatMul->b"});
  CHECK(got.table.nodes[0].node == "MatMul->a");
  CHECK(got.table.nodes[1].op == "Add");
  CHECK_FALSE(got.table.nodes[1].kernel);
  CHECK(got.table.nodes[1].alone.empty());
  CHECK(got.table.nodes[1].rest);
  // Quantized together, the float weight goes: 256 bytes become 64 and some scales.
  CHECK(got.table.nodes[0].alone.at(NodeFormat::int8).bytes < -64);
}

TEST_CASE("sensitivity: nothing integer, nothing measured") {
  const Measured got = measure(HEAD "g (float[1, 32] x) => (float[1, 32] y) { y = Relu(x) }", layered_samples());
  CHECK(got.table.nodes.empty());
  CHECK(got.table.complete);
}

TEST_CASE("sensitivity: the same bytes with any number of threads") {
  const std::string one = sensitivity_json(measure(layered_model(), layered_samples(), 1).table);
  CHECK(one == sensitivity_json(measure(layered_model(), layered_samples(), 8).table));
}

TEST_CASE("sensitivity: a run that was stopped anywhere goes on and ends with the same bytes") {
  const std::string whole = sensitivity_json(measure(layered_model(), layered_samples()).table);
  const int all_pairs = measure(layered_model(), layered_samples()).pairs;
  for (int stop = 1; stop < all_pairs; ++stop) {
    INFO("stopped after " << stop);
    const Model model = parse(layered_model());
    MemorySource source(layered_samples());
    EngineActivations activations(source, 1, 0);
    PassContext context;
    context.activations = &activations;
    Meter meter(model, context, {});
    std::string kept;
    int saves = 0;
    SensitivityRun run;
    run.save = [&](const SensitivityTable& table, bool last) -> Status {
      if (last) kept = sensitivity_json(table);
      if (!last && ++saves == stop) return fail(Code::internal, "stopped");
      return {};
    };
    REQUIRE_FALSE(measure_sensitivity(model, meter, run));
    const auto known = parse_sensitivity(kept);
    REQUIRE(known);
    CHECK_FALSE(known->complete);
    const Measured rest = measure(layered_model(), layered_samples(), 1, {.key = {}, .samples = {}, .known = &*known});
    CHECK(sensitivity_json(rest.table) == whole);
    CHECK(rest.pairs < all_pairs);
  }
}

TEST_CASE("sensitivity: JSON holds everything, also what is not finite") {
  SensitivityTable table{.key = {"m", "d", "s"}, .samples = "some \"samples\"", .float_bytes = 1ULL << 40};
  const double inf = std::numeric_limits<double>::infinity();
  table.all[NodeFormat::int8] = {{0.1, 0.25, 99.5}, -123};
  table.nodes.push_back(
      {.node = "a", .op = "Conv", .with = {"b"}, .alone = {{NodeFormat::int4, {{inf, inf, 0.0}, 5}}}});
  table.nodes.push_back({.node = "c", .op = "Add", .kernel = false, .rest = Effect{{0, {}, {}}, 0}});
  table.skips.push_back({{"a", "b"}, {{1.0 / 3, {}, {}}, 7}});
  table.complete = true;
  const std::string text = sensitivity_json(table);
  const auto back = parse_sensitivity(text);
  REQUIRE(back);
  CHECK(sensitivity_json(*back) == text);
  CHECK(back->key == table.key);
  CHECK(back->nodes[0].alone == table.nodes[0].alone);
  CHECK(back->nodes[1].rest == table.nodes[1].rest);
  CHECK_FALSE(back->nodes[0].rest);
}

TEST_CASE("sensitivity: a file that is something else is refused with the reason") {
  SensitivityTable table{.key = {"m", "d", "s"}, .samples = "x", .float_bytes = 8};
  table.nodes.push_back({.node = "n", .op = "Conv", .alone = {{NodeFormat::int8, {{0.5, {}, {}}, -3}}}});
  const std::string good = sensitivity_json(table);
  REQUIRE(parse_sensitivity(good));
  const auto broken = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
    const auto table_read = parse_sensitivity(text);
    INFO(from << " -> " << to);
    REQUIRE_FALSE(table_read);
    CHECK(table_read.error().code == Code::bad_input);
    return table_read.error().text();
  };
  CHECK(broken("{", "").find("no JSON") != std::string::npos);
  CHECK(broken("onnxpress-sensitivity", "other").find("no sensitivity table") != std::string::npos);
  CHECK(broken("\"version\": 1", "\"version\": 2").find("version 2") != std::string::npos);
  broken("\"noise\": 0.5", "\"noise\": -0.5");
  broken("\"noise\": 0.5", "\"noise\": \"x\"");
  broken("\"bytes\": -3", "\"bytes\": 1e300");
  broken("\"bytes\": -3", "\"bytes\": 9223372036854775807");
  broken("\"int8\"", "\"int9\"");
  broken("\"int8\"", "\"float32\"");
  broken("\"float_bytes\": 8", "\"float_bytes\": -8");
  broken("\"with\": []", "\"with\": [\"n\"]");
  broken("\"with\": []", "\"with\": [3]");
  broken("\"with\": []", "\"with\": {}");
  broken("\"complete\": false", "\"complete\": 0");
  broken("\"nodes\": [", "\"nodes\": [null, ");
  for (const std::string text : {"", "[]", "3", "null", "{\"kind\": {}}"}) CHECK_FALSE(parse_sensitivity(text));
  CHECK_FALSE(parse_sensitivity(std::string(100000, '[')));
}

TEST_CASE("sensitivity: class probabilities are compared as such, whatever shape they get afterwards") {
  const std::string weight = "<" + float_tensor("w", {32, 6}, 3) + ", int64[2] shape = {1, 6}> ";
  const std::string head = HEAD "g (float[1, 32] x) => (float[1, 6] y) ";
  const auto kl = [&](const std::string& nodes) {
    return *measure(head + weight + nodes, layered_samples()).table.nodes.front().alone.at(NodeFormat::int8).error.kl;
  };
  const double logits = kl("{ y = MatMul(x, w) }");
  CHECK(logits > 0);
  for (const std::string& nodes : {std::string("{ m = MatMul(x, w) y = Softmax(m) }"),
                                   std::string("{ m = MatMul(x, w) s = Softmax(m) y = Reshape(s, shape) }")})
    CHECK_THAT(kl(nodes), WithinRel(logits, 1e-3));
}

TEST_CASE("patterns match a label and nothing else") {
  const Model model = parse(HEAD "g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }");
  const Node node = model.main().nodes().front();
  CHECK(pattern_of("/layer1/conv") == "/layer1/conv");
  CHECK(Selector::parse(pattern_of(node.label()))->matches(node));
  for (const std::string label : {"a*", "conv?", "re:x", "op:Relu", ""}) {
    INFO(label);
    const auto selector = Selector::parse(pattern_of(label));
    if (label.empty()) continue;
    REQUIRE(selector);
    CHECK_FALSE(selector->matches(node));
    CHECK(pattern_of(label).starts_with("re:"));
  }
}

}  // namespace onnxpress::testing
