#include "calib/ranges.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

#include "base/file.h"
#include "fake_activations.h"
#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const char* const kModel = HEAD "agraph (float[1] x) => (float[1] y) { y = Relu(x) }";
const std::vector<ValueRef> kValues = {{"y"}, {"x"}, {"y"}};

std::vector<std::vector<float>> samples() { return {{1, -3}, {kNan, 2, kInf}}; }

}  // namespace

TEST_CASE("ranges of many values, each tapped once") {
  FakeActivations activations(samples());
  const Model model = parse(kModel);
  PassContext context;
  context.activations = &activations;
  const auto ranges = measure_ranges(context, model, kValues, {.method = RangeMethod::minmax});
  REQUIRE(ranges);
  CHECK(activations.tapped == std::vector<std::string>{"y", "x"});
  REQUIRE(ranges->size() == 2);
  CHECK(ranges->at("x") == ValueRange{-3, 2, 3, 1, 1});
  CHECK(measure_ranges(context, model, {}, {})->empty());
  const std::vector<ValueRef> bad = {{"bad"}};
  CHECK(measure_ranges(context, model, bad, {}).error().code == Code::engine);
}

TEST_CASE("known ranges are not measured again") {
  FakeActivations activations(samples());
  PassContext context;
  context.activations = &activations;
  const RangeTable known = {{"x", {-1, 1, 5, 0, 0}}};
  const auto ranges = measure_ranges(context, parse(kModel), kValues, {}, &known);
  CHECK(ranges->at("x").max == 1);
  CHECK(activations.tapped == std::vector<std::string>{"y"});
}

TEST_CASE("values of a body carry the name of its owner") {
  const Model model = parse(HEAD R"(agraph (bool c, float[2] x) => (float[2] y) {
    y = If (c) <then_branch = t () => (float[2] v) { v = Relu(x) }, else_branch = e () => (float[2] v) { v = Neg(x) }>
  })");
  const Graph* body = model.graphs()[1];
  CHECK(range_key({"v", body}) == body->owner().label() + ".v");
  CHECK(range_key({"x", &model.main()}) == "x");
  CHECK(range_key({"x"}) == "x");
}

TEST_CASE("options are checked before any sample is run") {
  FakeActivations activations(samples());
  PassContext context;
  context.activations = &activations;
  const auto ranges = measure_ranges(context, parse(kModel), kValues, {.method = RangeMethod::global});
  CHECK(ranges.error().code == Code::usage);
  CHECK(activations.tapped.empty());
  context.activations = nullptr;
  CHECK(measure_ranges(context, parse(kModel), kValues, {}).error().code == Code::usage);
}

TEST_CASE("a statistics file stands for the samples") {
  const TempDir folder;
  const Model model = parse(kModel);
  FakeActivations activations(samples());
  PassContext context;
  context.activations = &activations;
  StatisticsFile file;
  file.model = *model_print(model);
  file.values = *collect_statistics(context, model, kValues);
  REQUIRE(write_statistics(folder.path("a.stats"), file));
  for (const auto method : {RangeMethod::automatic, RangeMethod::minmax, RangeMethod::mse, RangeMethod::entropy}) {
    const RangeTable measured = *measure_ranges(context, model, kValues, {.method = method});
    PassContext dry;
    const RangeSettings settings{.method = method, .stats = folder.path("a.stats")};
    CHECK(*measure_ranges(dry, model, kValues, settings) == measured);
    CHECK(dry.journal.warnings().empty());
  }
  const RangeSettings settings{.stats = folder.path("a.stats")};
  SECTION("another model is warned about") {
    PassContext dry;
    REQUIRE(measure_ranges(dry, parse(HEAD "agraph (float[1] x) => (float[1] y) { y = Neg(x) }"), kValues, settings));
    REQUIRE(dry.journal.warnings().size() == 1);
    CHECK(dry.journal.warnings().front().contains("other nodes"));
  }
  SECTION("a value it lacks is measured, or named") {
    const std::vector<ValueRef> more = {{"x"}, {"z"}};
    PassContext dry;
    const auto failed = measure_ranges(dry, model, more, settings);
    REQUIRE(failed.error().code == Code::usage);
    CHECK(failed.error().text().contains("'z'"));
    activations.tapped.clear();
    CHECK(measure_ranges(context, model, more, settings)->size() == 2);
    CHECK(activations.tapped == std::vector<std::string>{"z"});
  }
  SECTION("a missing file is an error") {
    PassContext dry;
    CHECK(measure_ranges(dry, model, kValues, {.stats = folder.path("b.stats")}).error().code == Code::io);
  }
}

TEST_CASE("ranges as JSON stand for the samples too") {
  const TempDir folder;
  REQUIRE(write_text_file(folder.path("a.json"), R"({"x": [-1, 2], "y": [{"scale": 0.5, "zero_point": 2}]})"));
  PassContext context;
  const auto ranges = measure_ranges(context, parse(kModel), kValues, {.stats = folder.path("a.json")});
  REQUIRE(ranges);
  CHECK(ranges->at("x").min == -1);
  CHECK(ranges->at("y").min == -1);
  CHECK(ranges->at("y").max == 126.5F);
}

}  // namespace onnxpress::testing
