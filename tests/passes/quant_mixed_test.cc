#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <fstream>

#include "engine/activations.h"
#include "pass/pipeline.h"
#include "pass/registry.h"
#include "pass/weights.h"
#include "quant/mixed.h"
#include "support/journal.h"
#include "support/mixed.h"

namespace onnxpress::testing {
namespace {

struct Mixed {
  Model model = {};
  PassContext context = {};
  bool changed = false;
  double sqnr = 0;
};

Mixed mix(const std::string& text, const std::string& options, unsigned jobs = 1) {
  const Model before = parse(text);
  Mixed out{.model = parse(text)};
  MemorySource source(layered_samples());
  EngineActivations activations(source, jobs, 0);
  out.context.activations = &activations;
  out.context.jobs = jobs;
  out.changed = run_pipeline(out.model, "quant-mixed{" + options + "}", &out.context).changed;
  out.context.activations = nullptr;
  double noise = 0, signal = 0;
  for (const Batch& batch : layered_samples()) {
    const Tensor a = run_on(before, batch).front(), b = run_on(out.model, batch).front();
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double x = a.as<float>()[i], y = b.as<float>()[i];
      signal += x * x;
      noise += (x - y) * (x - y);
    }
  }
  out.sqnr = noise == 0 ? INFINITY : 10 * std::log10(signal / noise);
  return out;
}

Error refusal(const std::string& text, const std::string& options) {
  Model model = parse(text);
  MemorySource source(layered_samples());
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  const auto pipeline = Pipeline::parse("quant-mixed{" + options + "}", all_passes());
  REQUIRE(pipeline);
  const auto outcome = pipeline->run(model, context, {}, nullptr);
  REQUIRE_FALSE(outcome);
  CHECK(dump(model) == dump(parse(text)));
  return outcome.error();
}

std::string done_text(const PassContext& context, std::string_view label) {
  for (const JournalEntry& entry : context.journal.entries())
    if (entry.done && entry.node == label) return entry.text;
  return "";
}

std::uint64_t float_bytes() { return weight_bytes(parse(layered_model())); }

std::string table_file(const TempDir& dir, const std::string& text, bool complete = true) {
  const Model model = parse(text);
  MemorySource source(layered_samples());
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  Meter meter(model, context, {});
  SensitivityRun run;
  run.key = {model.fingerprint().value(), "data", settings_text({})};
  run.samples = "memory";
  SensitivityTable table = measure_sensitivity(model, meter, run).value();
  table.complete = complete;
  const std::string path = dir.path("table.json");
  std::ofstream(path) << sensitivity_json(table);
  return path;
}

TEST_CASE("quant-mixed: a size budget is kept, and more bytes never lose more") {
  double best = -INFINITY;
  for (const double share : {0.3, 0.45, 0.6, 0.75, 1.0}) {
    INFO(share);
    const Mixed result = mix(layered_model(), "size=" + std::to_string(share));
    CHECK(static_cast<double>(weight_bytes(result.model)) <= share * static_cast<double>(float_bytes()));
    CHECK(result.sqnr >= best - 0.5);  // noises add up only nearly
    best = result.sqnr;
    CHECK(result.context.journal.warnings().empty());
  }
  CHECK(std::isinf(best));  // at its full size the model stays float
  const Mixed in_bytes = mix(layered_model(), "size=" + std::to_string(float_bytes() / 2));
  CHECK(weight_bytes(in_bytes.model) <= float_bytes() / 2);
  CHECK(in_bytes.changed);
}

TEST_CASE("quant-mixed: the choice for a size is the best of all assignments by the table") {
  const TempDir dir;
  const SensitivityTable table = [&] {
    std::ifstream in(table_file(dir, layered_model()));
    return parse_sensitivity(std::string(std::istreambuf_iterator<char>(in), {})).value();
  }();
  const Model model = parse(layered_model());
  MemorySource source(layered_samples());
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  Meter meter(model, context, {});
  for (std::uint64_t budget = float_bytes() / 3; budget < float_bytes(); budget += 500) {
    MixedBudget wanted;
    wanted.bytes = budget;
    const auto choice = choose_mixed(meter, table, wanted, false);
    REQUIRE(choice);
    CHECK(choice->met);
    double least = INFINITY;
    for (unsigned mask = 0; mask < 8; ++mask) {
      double noise = 0;
      Recipe recipe;
      for (unsigned i = 0; i < 3; ++i) {
        const bool integer = (mask >> i & 1) != 0;
        recipe.formats[table.nodes[i].node] = integer ? NodeFormat::int8 : NodeFormat::float32;
        if (integer) noise += table.nodes[i].alone.at(NodeFormat::int8).error.noise;
      }
      const std::int64_t bytes = meter.bytes(recipe).value();
      if (static_cast<std::int64_t>(float_bytes()) + bytes <= static_cast<std::int64_t>(budget))
        least = std::min(least, noise);
    }
    INFO("budget " << budget);
    CHECK(choice->predicted_noise <= least * 1.0000001);
  }
}

TEST_CASE("quant-mixed: what no choice can reach is warned of, and the smallest is taken") {
  const Mixed result = mix(layered_model(), "size=0.01");
  CHECK(result.changed);
  REQUIRE(result.context.journal.warnings().size() == 1);
  CHECK(result.context.journal.warnings()[0].find("cannot be reached") != std::string::npos);
  CHECK(weight_bytes(result.model) == weight_bytes(mix(layered_model(), "max_drop=100").model));
}

TEST_CASE("quant-mixed: an SQNR budget is kept, with as few float nodes as it takes") {
  const double all = mix(layered_model(), "max_drop=100").sqnr;
  const Mixed easy = mix(layered_model(), "min_sqnr=" + std::to_string(all - 1));
  CHECK(count(ops_of(easy.model), "MatMul") == 3);
  CHECK(easy.sqnr >= all - 1);
  const Mixed hard = mix(layered_model(), "rescue=false min_sqnr=" + std::to_string(all + 3));
  CHECK(hard.sqnr >= all + 3);
  CHECK(weight_bytes(hard.model) > weight_bytes(easy.model));
  CHECK(weight_bytes(hard.model) < float_bytes());
  const Mixed none = mix(layered_model(), "min_sqnr=200");
  CHECK_FALSE(none.changed);
  CHECK(dump(none.model) == dump(parse(layered_model())));
}

TEST_CASE("quant-mixed: a layer whose range is too wide is rescued before it is left float") {
  const double all = mix(layered_model(), "max_drop=100").sqnr;
  const std::string budget = "min_sqnr=" + std::to_string(all + 3);
  const Mixed rescued = mix(layered_model(), budget), not_rescued = mix(layered_model(), "rescue=false " + budget);
  CHECK(rescued.sqnr >= all + 3);
  CHECK(weight_bytes(rescued.model) < weight_bytes(not_rescued.model));
  std::string said;
  for (const JournalEntry& entry : rescued.context.journal.entries()) said += entry.text + "\n";
  INFO(said);
  CHECK(said.find("range cut to") != std::string::npos);
}

TEST_CASE("quant-mixed: 16-bit activations stand in for float only, and only where the budget bears it") {
  const auto formats = [](const Mixed& result) {
    std::string text;
    for (const JournalEntry& entry : result.context.journal.entries())
      if (!entry.node.empty()) text += entry.text.substr(0, entry.text.find_first_of(":;")) + " ";
    return text;
  };
  // No size is a reason for them: int8 has the same bytes.
  CHECK(formats(mix(layered_model(), "size=0.4")).find("int16") == std::string::npos);
  const Mixed with = mix(layered_model(), "min_sqnr=45"), without = mix(layered_model(), "min_sqnr=45 rescue=false");
  CHECK(with.sqnr >= 45);
  CHECK(formats(without).find("int16") == std::string::npos);
  CHECK(weight_bytes(with.model) <= weight_bytes(without.model));
}

TEST_CASE("quant-mixed: max_drop counts changed classes, and 1 percent is the default") {
  const Mixed strict = mix(layered_model(), "max_drop=0"), usual = mix(layered_model(), "");
  const Model before = parse(layered_model());
  for (const Mixed* result : {&strict, &usual}) {
    std::size_t changed = 0;
    for (const Batch& batch : layered_samples()) {
      const Tensor a = run_on(before, batch).front(), b = run_on(result->model, batch).front();
      changed += std::ranges::max_element(a.as<float>()) - a.as<float>().begin() !=
                 std::ranges::max_element(b.as<float>()) - b.as<float>().begin();
    }
    CHECK(changed == 0);  // 1 percent of 24 samples is none
  }
  CHECK(usual.model.fingerprint().value() == strict.model.fingerprint().value());
}

TEST_CASE("quant-mixed: every node says what it lost and what the other formats would cost") {
  const Mixed result = mix(layered_model(), "size=0.6");
  std::size_t integer = 0, real = 0;
  const Model original = parse(layered_model());
  for (const Node& node : nodes_of(original, "MatMul")) {
    const std::string done = done_text(result.context, node.label()),
                      skipped = skip_reason(result.context, node.label());
    INFO(node.label() << ": " << done << skipped);
    if (!done.empty()) {
      ++integer;
      CHECK(done.starts_with("int8: "));
      CHECK(done.find(" dB alone, saves ") != std::string::npos);
      CHECK(done.find("float32 would gain ") != std::string::npos);
      CHECK(done.find("int8 weight (") != std::string::npos);
    } else {
      ++real;
      CHECK(skipped.starts_with("float32; "));
      CHECK(skipped.find("int8 would lose ") != std::string::npos);
    }
  }
  CHECK(integer + real == 3);
  CHECK(integer > 0);
  CHECK(real > 0);
  CHECK(has_note(result.context, "of weights: "));
}

TEST_CASE("quant-mixed: the table of `onnxpress sensitivity` gives the same model as measuring anew") {
  const TempDir dir;
  const std::string path = table_file(dir, layered_model());
  for (const std::string budget : {"size=0.6", "min_sqnr=35"}) {
    const Mixed from_file = mix(layered_model(), budget + " sensitivity=\"" + path + "\"");
    CHECK(from_file.model.fingerprint().value() == mix(layered_model(), budget).model.fingerprint().value());
    CHECK(has_note(from_file.context, "sensitivity measured on memory"));
  }
}

TEST_CASE("quant-mixed: a table of something else is refused") {
  const TempDir dir;
  const std::string path = table_file(dir, layered_model());
  const std::string other =
      HEAD "g (float[1, 32] x) => (float[1, 6] y) <" + float_tensor("w", {32, 6}, 3) + "> { y = MatMul(x, w) }";
  const Error foreign = refusal(other, "size=0.5 sensitivity=\"" + path + "\"");
  CHECK(foreign.code == Code::bad_input);
  CHECK(foreign.text().find("another model") != std::string::npos);
  const Error settings = refusal(layered_model(), "size=0.5 per_channel=false sensitivity=\"" + path + "\"");
  CHECK(settings.code == Code::bad_input);
  CHECK(settings.text().find("per_channel=true") != std::string::npos);
  const Error unfinished =
      refusal(layered_model(), "size=0.5 sensitivity=\"" + table_file(dir, layered_model(), false) + "\"");
  CHECK(unfinished.code == Code::bad_input);
  CHECK(refusal(layered_model(), "size=0.5 sensitivity=" + dir.path("none")).code == Code::io);
  std::ofstream(path) << "hello";
  CHECK(refusal(layered_model(), "size=0.5 sensitivity=\"" + path + "\"").code == Code::bad_input);
}

TEST_CASE("quant-mixed: one budget at a time") {
  CHECK(refusal(layered_model(), "size=0.5 max_drop=1").code == Code::usage);
  CHECK(refusal(layered_model(), "min_sqnr=20 max_drop=1").code == Code::usage);
}

TEST_CASE("quant-mixed: nodes that are not selected, or have no integer form, stay and say why") {
  const Mixed skipping = mix(layered_model(), "max_drop=100 skip=MatMul->y");
  CHECK(skip_reason(skipping.context, "MatMul->y").find("skip=") != std::string::npos);
  CHECK(skipping.changed);
  const std::string dynamic = HEAD "g (float[1, 32] x, float[32, 4] w) => (float[1, 4] y) { y = MatMul(x, w) }";
  Model model = parse(dynamic);
  std::vector<Batch> batches = layered_samples(2);
  for (Batch& batch : batches) batch.inputs.push_back(random_batch("w", {32, 4}, 9).inputs.front());
  MemorySource source(batches);
  EngineActivations activations(source, 1, 0);
  PassContext context;
  context.activations = &activations;
  CHECK_FALSE(run_pipeline(model, "quant-mixed", &context).changed);
  CHECK(dump(model) == dump(parse(dynamic)));
  CHECK_FALSE(skip_reason(context, "MatMul->y").empty());
}

TEST_CASE("quant-mixed: the same bytes with any number of threads") {
  for (const std::string budget : {"size=0.6", "min_sqnr=35"}) {
    const Mixed one = mix(layered_model(), budget, 1), eight = mix(layered_model(), budget, 8);
    CHECK(one.model.fingerprint().value() == eight.model.fingerprint().value());
    CHECK(one.context.journal.entries() == eight.context.journal.entries());
  }
}

}  // namespace
}  // namespace onnxpress::testing
