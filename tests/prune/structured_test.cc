#include "prune/structured.h"

#include <catch2/catch_test_macros.hpp>

#include "engine/activations.h"
#include "engine/ort_model.h"
#include "engine/session.h"
#include "io/check.h"
#include "ir/rewriter.h"
#include "prune/unit_cost.h"
#include "support/journal.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

using Criterion = StructuredOptions::Criterion;

struct Pruned {
  Model model;
  PassContext context = {};
  bool changed = false;
};

const std::set<UnitKind> kAll = {UnitKind::channels, UnitKind::neurons, UnitKind::hidden, UnitKind::other};

// With a runner, so that the proof is made, and samples when there are any.
Result<Pruned> try_prune(const Model& model, const StructuredOptions& options, std::vector<Batch> samples = {},
                         const std::set<UnitKind>& kinds = kAll, unsigned jobs = 2) {
  Pruned out{.model = model.clone()};
  EngineRunner runner;
  MemorySource source(std::move(samples));
  EngineActivations activations(source, jobs, 0);
  out.context.jobs = jobs;
  out.context.runner = &runner;
  if (source.size() > 0) out.context.activations = &activations;
  out.context.journal.begin_pass("prune");
  OP_LET(const Outcome outcome, prune_structured(out.model, out.context, options, kinds));
  out.changed = outcome.changed;
  out.context.runner = nullptr;
  out.context.activations = nullptr;
  return out;
}

Pruned prune(const Model& model, const StructuredOptions& options, std::vector<Batch> samples = {},
             const std::set<UnitKind>& kinds = kAll, unsigned jobs = 2) {
  auto out = try_prune(model, options, std::move(samples), kinds, jobs);
  INFO((out ? "" : out.error().text()));
  REQUIRE(out);
  const Status valid = check_model(out->model);
  INFO((valid ? "" : valid.error().text()));
  REQUIRE(valid);
  return std::move(*out);
}

Dims dims_of(const Model& model, std::string_view name) { return model.main().initializer(name).dims(); }

std::string done_text(const PassContext& context, std::string_view label) {
  std::string text;
  for (const JournalEntry& entry : context.journal.entries())
    if (entry.done && entry.node == label) text = entry.text;
  return text;
}

// conv1 -> Relu -> conv2, with `hidden` channels between.
Model chain(std::int64_t hidden, unsigned seed = 1) {
  return parse(
      fmt::format("<ir_version: 8, opset_import: [\"\": 17]> g (float[N,3,6,6] x) => (float[N,4,6,6] y) <{}, {}, {}>"
                  "{{ a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)"
                  "  y = Conv<pads=[1,1,1,1]>(r, w2) }}",
                  float_tensor("w1", {hidden, 3, 3, 3}, seed), float_tensor("b1", {hidden}, seed + 1, 0.1F),
                  float_tensor("w2", {4, hidden, 3, 3}, seed + 2)));
}

// A block on a residual stream of `width`, with `hidden` channels inside.
Model residual(std::int64_t width, std::int64_t hidden) {
  return parse(fmt::format(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,3,6,6] x) => (float[N,2,6,6] y) <{}, {}, {}, {}>"
      "{{ s = Conv(x, w0)  a = Conv<pads=[1,1,1,1]>(s, w1)  r = Relu(a)"
      "  b = Conv<pads=[1,1,1,1]>(r, w2)  t = Add(s, b)  y = Conv(t, w3) }}",
      float_tensor("w0", {width, 3, 1, 1}, 1), float_tensor("w1", {hidden, width, 3, 3}, 2),
      float_tensor("w2", {width, hidden, 3, 3}, 3), float_tensor("w3", {2, width, 1, 1}, 4)));
}

std::vector<Batch> images(std::size_t count) {
  std::vector<Batch> batches;
  for (unsigned i = 0; i < count; ++i) batches.push_back(random_batch("x", {1, 3, 6, 6}, 100 + i));
  return batches;
}

}  // namespace

TEST_CASE("The channels of least norm go, from all that makes and reads them") {
  Model model = chain(4);
  for (const char* name : {"w1", "w2"}) {  // channels 1 and 2 matter little
    const auto initializer = model.main().initializer(name);
    auto tensor = initializer.read();
    REQUIRE(tensor);
    const std::size_t channels = 4, inner = std::string_view(name) == "w1" ? 27 : 9;
    auto w = tensor->as_mutable<float>();
    for (std::size_t i = 0; i < w.size(); ++i)
      if (i / inner % channels == 1 || i / inner % channels == 2) w[i] *= 0.1F;
    Rewriter rewriter(model.main());
    rewriter.set_initializer(initializer, std::move(*tensor));
    REQUIRE(rewriter.commit());
  }
  const Pruned pruned = prune(model, {.ratio = 0.5, .round_to = 1});
  CHECK(pruned.changed);
  CHECK(dims_of(pruned.model, "w1") == Dims{2, 3, 3, 3});
  CHECK(dims_of(pruned.model, "b1") == Dims{2});
  CHECK(dims_of(pruned.model, "w2") == Dims{4, 2, 3, 3});
  const auto before = model.main().initializer("b1").read(), after = pruned.model.main().initializer("b1").read();
  CHECK(after->as<float>()[0] == before->as<float>()[0]);
  CHECK(after->as<float>()[1] == before->as<float>()[3]);
  CHECK(done_text(pruned.context, "Conv->a") == "4 -> 2 channels (group Conv->a)");
  CHECK(done_text(pruned.context, "Conv->y") == "reads 2 of 4 channels (group Conv->a)");
  CHECK(has_note(pruned.context, "parameters 256 -> 128"));
  CHECK(has_note(pruned.context, "proven"));
  CHECK_FALSE(skip_reason(pruned.context, "Conv->y").empty());  // its outputs are those of the graph
}

TEST_CASE("Outputs of the pruned network are those of the original without the units") {
  const Model model = residual(8, 16);
  for (const Criterion criterion :
       {Criterion::random, Criterion::l1, Criterion::l2, Criterion::group_l2, Criterion::bn_gamma, Criterion::fpgm}) {
    const Pruned pruned = prune(model, {.ratio = 0.5, .criterion = criterion, .round_to = 4});
    CHECK(pruned.changed);
    CHECK(dims_of(pruned.model, "w1") == Dims{8, 4, 3, 3});
    CHECK(dims_of(pruned.model, "w3") == Dims{2, 4, 1, 1});
    CHECK(pruned.context.journal.warnings().empty());
  }
  const Pruned scaled = prune(model, {.criterion = Criterion::bn_gamma, .round_to = 1});
  CHECK(has_note(scaled.context, "no normalization scales its units"));
}

TEST_CASE("inner=true leaves what residual additions tie together") {
  const Pruned pruned = prune(residual(8, 16), {.ratio = 0.5, .round_to = 4, .inner = true});
  CHECK(dims_of(pruned.model, "w1") == Dims{8, 8, 3, 3});
  CHECK(dims_of(pruned.model, "w0") == Dims{8, 3, 1, 1});
  CHECK(skip_reason(pruned.context, "Conv->s").contains("residual additions tie them together"));
}

TEST_CASE("A node that is not selected keeps its units, and all that is tied to them stays") {
  const Model model = residual(8, 16);
  Selection selection;
  selection.skip.push_back(*Selector::parse("Conv->s"));
  Pruned out{.model = model.clone()};
  out.context.selections.push_back(&selection);
  const auto outcome = prune_structured(out.model, out.context, {.ratio = 0.5, .round_to = 1}, kAll);
  REQUIRE(outcome);
  CHECK(outcome->changed);
  CHECK(dims_of(out.model, "w0") == Dims{8, 3, 1, 1});
  CHECK(dims_of(out.model, "w1") == Dims{8, 8, 3, 3});
  CHECK_FALSE(skip_reason(out.context, "Conv->s").empty());
}

TEST_CASE("Kinds that a pass does not take are left, with a reason") {
  const Pruned pruned = prune(chain(8), {.ratio = 0.5, .round_to = 1}, {}, {UnitKind::neurons});
  CHECK_FALSE(pruned.changed);
  CHECK(skip_reason(pruned.context, "Conv->a").contains("this pass prunes other kinds of units"));
}

TEST_CASE("Groups that round_to leaves whole say so") {
  const Pruned pruned = prune(chain(8), {});
  CHECK_FALSE(pruned.changed);
  CHECK(dump(pruned.model) == dump(chain(8)));
  CHECK(skip_reason(pruned.context, "Conv->a").contains("8 channels: no multiple of 16 below"));
  CHECK(dims_of(prune(chain(40), {.ratio = 0.3}).model, "w1") == Dims{32, 3, 3, 3});
}

TEST_CASE("Targets are met at or slightly below, or the shortfall is named") {
  const Model model = residual(16, 32);
  const PlanCost before(model, {});
  for (const double target : {0.8, 0.5, 0.3}) {
    const Pruned by_macs = prune(model, {.macs = target, .round_to = 1});
    const double macs =
        static_cast<double>(PlanCost(by_macs.model, {}).macs({})) / static_cast<double>(before.macs({}));
    CHECK(macs <= target);
    CHECK(macs > target - 0.08);
    const Pruned by_parameters =
        prune(model, {.params = target, .scope = StructuredOptions::Scope::global, .round_to = 1});
    const double parameters = static_cast<double>(PlanCost(by_parameters.model, {}).parameters({})) /
                              static_cast<double>(before.parameters({}));
    CHECK(parameters <= target);
    CHECK(parameters > target - 0.08);
    CHECK(by_macs.context.journal.warnings().empty());
  }
  const Pruned far = prune(model, {.macs = 0.01, .round_to = 1, .max_ratio = 0.5});
  CHECK(far.changed);
  REQUIRE(far.context.journal.warnings().size() == 1);
  CHECK(far.context.journal.warnings().front().contains("macs=0.01 was not reached"));
  CHECK_FALSE(prune(model, {.macs = 1}).changed);
}

TEST_CASE("Options that contradict each other or need samples") {
  const Model model = chain(8);
  const auto code = [&](const StructuredOptions& options) {
    const auto out = try_prune(model, options);
    REQUIRE_FALSE(out);
    return out.error().code;
  };
  CHECK(code({.ratio = 0.5, .macs = 0.5}) == Code::usage);
  CHECK(code({.criterion = Criterion::activation}) == Code::usage);
  CHECK(code({.criterion = Criterion::obs}) == Code::usage);
  CHECK(code({.criterion = Criterion::loss}) == Code::usage);
  CHECK(code({.repair = {.repair = RepairOptions::When::on}}) == Code::usage);
}

TEST_CASE("Several steps end where one does, in widths") {
  const Pruned one = prune(residual(8, 16), {.ratio = 0.5, .round_to = 1});
  const Pruned four = prune(residual(8, 16), {.ratio = 0.5, .round_to = 1, .steps = 4});
  for (const char* name : {"w0", "w1", "w2", "w3"}) CHECK(dims_of(one.model, name) == dims_of(four.model, name));
  const PlanCost before(residual(8, 16), {});
  const Pruned target = prune(residual(8, 16), {.macs = 0.5, .round_to = 1, .steps = 3});
  CHECK(2 * PlanCost(target.model, {}).macs({}) <= before.macs({}));
}

TEST_CASE("A network that would not shrink is left as it is") {
  // Each of the two readers would keep another half of the shared weight.
  const Model model = parse(
      "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,2] x) => (float[1,2] y)"
      " <float[2,2] w = {1,2,3,4}> { a = MatMul(x, w)  r = Relu(a)  y = MatMul(r, w) }");
  const Pruned pruned = prune(model, {.ratio = 0.5, .round_to = 1});
  CHECK_FALSE(pruned.changed);
  CHECK(dump(pruned.model) == dump(model));
  CHECK(skip_reason(pruned.context, "MatMul->a").contains("copies of the constants it shares"));
  for (const JournalEntry& entry : pruned.context.journal.entries()) CHECK_FALSE(entry.done);
}

TEST_CASE("With samples: channels that never fire go first, however large their weights") {
  Model model = chain(6, 5);
  const auto initializer = model.main().initializer("b1");
  auto bias = initializer.read();
  REQUIRE(bias);
  bias->as_mutable<float>()[2] = -100;  // dead behind the Relu
  bias->as_mutable<float>()[5] = -100;
  Rewriter rewriter(model.main());
  rewriter.set_initializer(initializer, std::move(*bias));
  REQUIRE(rewriter.commit());
  for (const Criterion criterion : {Criterion::activation, Criterion::obs}) {
    const StructuredOptions options{
        .ratio = 1.0 / 3, .criterion = criterion, .round_to = 1, .repair = {.repair = RepairOptions::When::off}};
    const Pruned pruned = prune(model, options, images(10));
    CHECK(dims_of(pruned.model, "w1") == Dims{4, 3, 3, 3});
    const auto left = pruned.model.main().initializer("b1").read();
    for (const float b : left->as<float>()) CHECK(b > -1);
    const Batch probe = random_batch("x", {1, 3, 6, 6}, 7);
    CHECK(sqnr_db(run_on(model, probe), run_on(pruned.model, probe)) > 90);
    // The same bytes at any thread count.
    const Pruned alone = prune(model, options, images(10), kAll, 1);
    CHECK(*alone.model.fingerprint() == *pruned.model.fingerprint());
  }
}

TEST_CASE("With samples the layers behind are repaired") {
  const Model model = residual(8, 16);
  StructuredOptions options{.ratio = 0.5, .round_to = 1, .inner = true};
  const Batch probe = random_batch("x", {1, 3, 6, 6}, 7);
  const auto expected = run_on(model, probe);
  const double repaired = sqnr_db(expected, run_on(prune(model, options, images(30)).model, probe));
  options.repair.repair = RepairOptions::When::off;
  const double plain = sqnr_db(expected, run_on(prune(model, options, images(30)).model, probe));
  INFO(plain << " dB -> " << repaired << " dB");
  CHECK(repaired > plain + 1);
}

TEST_CASE("Networks in bodies are pruned as well") {
  const Model model = parse(
      fmt::format("<ir_version: 8, opset_import: [\"\": 17]> g (float[1,4] x, bool c) => (float[1,2] y) {{ y = If(c) <"
                  "then_branch = t () => (float[1,2] p) <{}, {}> {{ h = MatMul(x, u)  r = Relu(h)  p = MatMul(r, d) }},"
                  "else_branch = e () => (float[1,2] q) <{}> {{ q = MatMul(x, v) }} > }}",
                  float_tensor("u", {4, 16}, 1), float_tensor("d", {16, 2}, 2), float_tensor("v", {4, 2}, 3)));
  const Pruned pruned = prune(model, {.ratio = 0.5, .round_to = 4});
  CHECK(pruned.changed);
  CHECK(done_text(pruned.context, "MatMul->h") == "16 -> 8 neurons (group MatMul->h)");
}

}  // namespace onnxpress::testing
