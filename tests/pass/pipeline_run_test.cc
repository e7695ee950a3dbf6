#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "io/check.h"
#include "pass/toy_passes.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

constexpr std::string_view kThreeRelus =
    HEAD "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Relu(x) b = Add(a, w) c = Relu(b) y = Relu(c) }";

struct Ran {
  Model model = parse(kThreeRelus);
  PassContext context;
  std::vector<PassRecord> records;
  Result<Outcome> outcome = Outcome{};

  explicit Ran(std::string_view text, Pipeline::Checks checks = {.verify_each = true, .honesty = true, .checker = {}},
               Activations* activations = nullptr) {
    context.activations = activations;
    if (!checks.checker) checks.checker = [](const Model& m) { return check_model(m); };
    const auto pipeline = Pipeline::parse(text, toy_passes());
    REQUIRE(pipeline);
    outcome = pipeline->run(model, context, checks, &records);
  }
  std::string count() const { return model.metadata("count"); }
  std::size_t relus() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(model.main().nodes(), [](const Node& node) { return node.is("Relu"); }));
  }
};

class NoSamples : public Activations {
 public:
  Status collect(const Model&, std::span<const Tap>) override { return {}; }
  std::string description() const override { return "none"; }
};

}  // namespace

TEST_CASE("a pipeline runs its passes in order and records each") {
  const Ran ran("toy-relu,toy-count{until=1},toy-relu");
  REQUIRE(ran.outcome);
  CHECK(ran.outcome->changed);
  REQUIRE(ran.records.size() == 3);
  CHECK(ran.records[0].pass == "toy-relu");
  CHECK(ran.records[0].changed);
  CHECK(ran.records[0].nodes_done == 3);
  CHECK(ran.records[0].nodes_skipped == 0);
  CHECK(ran.records[0].bytes_before == 8);
  CHECK(ran.records[0].bytes_after == 8);
  CHECK(ran.records[0].peak_memory > 1'000'000);
  CHECK(ran.records[0].seconds >= 0);
  CHECK(ran.records[1].pass == "toy-count{until=1}");
  CHECK(ran.records[1].nodes_skipped == 1);
  CHECK_FALSE(ran.records[2].changed);
  CHECK(ran.relus() == 0);
}

TEST_CASE("the empty pipeline does nothing") {
  const Ran ran("");
  REQUIRE(ran.outcome);
  CHECK_FALSE(ran.outcome->changed);
  CHECK(ran.records.empty());
}

TEST_CASE("only and skip confine a pass; refusals are journaled") {
  const Ran ran("toy-relu{only=[Relu->a,Relu->c] skip=re:.*c}");
  REQUIRE(ran.outcome);
  CHECK(ran.relus() == 2);
  const std::vector<JournalEntry> expected = {{"toy-relu", "Relu->a", "Relu", true, "made a Sigmoid"},
                                              {"toy-relu", "Relu->c", "Relu", false, "matches skip=re:.*c"},
                                              {"toy-relu", "Relu->y", "Relu", false, "not in only="}};
  CHECK(ran.context.journal.entries() == expected);
  CHECK(ran.context.journal.done_count() == 1);
  CHECK(ran.context.selections.empty());
}

TEST_CASE("on confines every pass inside, nested ones to the intersection") {
  const Ran ran("on{Relu->a Relu->c}(toy-count{until=1},on{*c *y}(toy-relu)),toy-count{until=2}");
  REQUIRE(ran.outcome);
  CHECK(ran.relus() == 2);
  CHECK(ran.count() == "xx");
  CHECK(ran.context.selections.empty());
}

TEST_CASE("selections of an outer caller stay") {
  PassContext context;
  const Selection outer{.only = {*Selector::parse("*a")}, .skip = {}};
  context.selections.push_back(&outer);
  Model model = parse(kThreeRelus);
  REQUIRE(Pipeline::parse("on{op:Relu}(toy-relu)", toy_passes())->run(model, context, {}, nullptr));
  CHECK(context.selections.size() == 1);
  CHECK(context.journal.done_count() == 1);
}

TEST_CASE("fixpoint stops when nothing changes and reports one row per pass") {
  const Ran ran("fixpoint(toy-relu,toy-count)");
  REQUIRE(ran.outcome);
  CHECK(ran.outcome->changed);
  CHECK(ran.count() == "xxx");
  REQUIRE(ran.records.size() == 2);
  CHECK(ran.records[0].changed);
  CHECK(ran.records[0].nodes_done == 3);
  CHECK(ran.records[1].nodes_skipped == 1);
  CHECK(ran.records[1].bytes_after == 8);
  std::size_t never = 0;
  for (const JournalEntry& entry : ran.context.journal.entries()) never += entry.text == "never touched";
  CHECK(never == 1);
  CHECK(ran.context.journal.warnings().empty());
}

TEST_CASE("fixpoint gives up after max rounds and says so") {
  const Ran ran("fixpoint{max=2}(toy-count)");
  REQUIRE(ran.outcome);
  CHECK(ran.count() == "xx");
  CHECK(ran.context.journal.entries().back() ==
        JournalEntry{"fixpoint", "", "", false, "still changing after 2 rounds"});
  CHECK(Ran("fixpoint(toy-count{until=50})").count() == std::string(10, 'x'));
}

TEST_CASE("a pass that needs data is refused before anything runs") {
  const Ran ran("toy-relu,fixpoint(toy-data)");
  REQUIRE_FALSE(ran.outcome);
  CHECK(ran.outcome.error().code == Code::usage);
  CHECK(ran.outcome.error().text() == "toy-data needs --data");
  CHECK(ran.relus() == 3);
  NoSamples samples;
  CHECK(Ran("toy-data", {}, &samples).outcome);
}

TEST_CASE("an error of a pass names the pass") {
  const Ran ran("toy-count,toy-fault");
  REQUIRE_FALSE(ran.outcome);
  CHECK(ran.outcome.error().code == Code::bad_input);
  CHECK(ran.outcome.error().text() == "toy-fault: node c: bad pads");
  CHECK(ran.records.size() == 1);
}

TEST_CASE("the changed flag is checked both ways") {
  const Ran lie("toy-fault{fault=lie}");
  REQUIRE_FALSE(lie.outcome);
  CHECK(lie.outcome.error().code == Code::internal);
  CHECK(lie.outcome.error().text() == "pass 'toy-fault' says it changed the model and did not");
  const Ran hide("toy-fault{fault=hide}");
  REQUIRE_FALSE(hide.outcome);
  CHECK(hide.outcome.error().text() == "pass 'toy-fault' changed the model and did not say so");
  const Pipeline::Checks none;
  CHECK(Ran("toy-fault{fault=lie}", none).outcome);
}

TEST_CASE("verify_each names the pass that broke the model") {
  const Ran broken("toy-relu,toy-fault{fault=invalid},toy-count");
  REQUIRE_FALSE(broken.outcome);
  CHECK(broken.outcome.error().code == Code::internal);
  CHECK(broken.outcome.error().text().starts_with("pass 'toy-fault' made an invalid model: "));
  CHECK(Ran("toy-fault{fault=invalid}", Pipeline::Checks{}).outcome);
}
