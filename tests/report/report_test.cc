#include "report/report.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "report/cells.h"
#include "report/sample_report.h"
#include "report/schema_check.h"
#include "support/memory_source.h"
#include "support/models.h"

using namespace onnxpress;
using testing::sample_report;

namespace {

// Compares with tests/report/golden/NAME; ONNXPRESS_UPDATE_GOLDEN=1 writes it instead.
void check_golden(const std::string& name, const std::string& text) {
  const std::string path = ONNXPRESS_SOURCE_DIR "/tests/report/golden/" + name;
  if (std::getenv("ONNXPRESS_UPDATE_GOLDEN") != nullptr) REQUIRE(write_text_file(path, text));
  const auto expected = read_text_file(path, 1 << 20);
  REQUIRE(expected);
  CHECK(text == *expected);
}

nlohmann::json schema() {
  const auto text = read_text_file(ONNXPRESS_SOURCE_DIR "/docs/report.schema.json", 1 << 20);
  REQUIRE(text);
  return nlohmann::json::parse(*text);
}

Report inspect_report() {
  Report report;
  report.command = "inspect";
  report.input = {"m.onnx", 1000, 24, ""};
  report.before = testing::sample_stats(false);
  return report;
}

Report eval_report() {
  Report report = inspect_report();
  report.command = "eval";
  report.evaluation = Evaluation{Metric::perplexity, 3, {{Metric::perplexity, "logits", 4.60061, 381}}, {}, {}};
  report.latency = LatencyStats{0.001, 0.002, 0.0012, 0.0009, 50};
  return report;
}

}  // namespace

TEST_CASE("All forms of the report are as published") {
  check_golden("report.json", report_json(sample_report()));
  check_golden("report.md", report_markdown(sample_report()));
  check_golden("report.txt", report_text(sample_report()));
  check_golden("inspect.txt", report_text(inspect_report()));
}

TEST_CASE("Every kind of report follows the published schema") {
  Report bare;
  bare.command = "compare";
  for (const Report& report : {sample_report(), inspect_report(), eval_report(), bare}) {
    const auto json = nlohmann::json::parse(report_json(report));
    CHECK(testing::schema_violation(schema(), json) == "");
  }
}

TEST_CASE("The schema check notices what it should") {
  const auto good = nlohmann::json::parse(report_json(sample_report()));
  const auto violation = [&](auto change) {
    auto json = good;
    change(json);
    return testing::schema_violation(schema(), json);
  };
  CHECK(violation([](auto& json) { json.erase("gates"); }).contains("gates"));
  CHECK(violation([](auto& json) { json["extra"] = 1; }).contains("extra"));
  CHECK(violation([](auto& json) { json["before"]["nodes"] = "66"; }).contains("nodes"));
  CHECK(violation([](auto& json) { json["schema_version"] = 2; }).contains("schema_version"));
  CHECK(violation([](auto& json) { json["before"]["weights"]["float"]["bytes"] = 0.5; }).contains("bytes"));
  CHECK(violation([](auto& json) { json["gates"][0]["name"] = "max-fun"; }).contains("name"));
}

TEST_CASE("JSON holds null where a number is infinite, and survives names that are no text") {
  Report report = sample_report();
  report.warnings = {"\xff\x01"};
  const auto json = nlohmann::json::parse(report_json(report));
  CHECK(json["comparison"]["outputs"][1]["sqnr_db"].is_null());
  CHECK(json["comparison"]["outputs"][1]["equal"] == true);
  CHECK(json["layer_errors"][0]["sqnr_db"].is_null());
  CHECK(json["layer_errors"][0]["broken"] == 1);
  CHECK(json["warnings"].size() == 1);
  CHECK(json["after"]["weights"]["int8"]["bytes"] == 268344);
}

TEST_CASE("Warnings of the evaluation are among the warnings") {
  Report report = sample_report();
  report.comparison->warnings = {"output y after: 9 NaN values"};
  CHECK(report_text(report).contains("output y after: 9 NaN values"));
  CHECK(report_markdown(report).contains("output y after: 9 NaN values"));
}

TEST_CASE("MACs nobody could count are not zero") {
  Report report = inspect_report();
  report.before.macs = 0;
  CHECK(report_text(report).contains("MACs                   unknown"));
  report.before.macs_unknown.clear();
  CHECK_FALSE(report_text(report).contains("unknown"));
}

TEST_CASE("Text: no escape sequences unless colour is asked for") {
  CHECK_FALSE(report_text(sample_report()).contains('\x1b'));
  CHECK(report_text(sample_report(), {.color = true}).contains("\x1b[1m"));
  CHECK_FALSE(report_text(sample_report(), {.color = true}).contains("MaxPool\x1b"));
}

TEST_CASE("Text: long tables are cut, or not when asked") {
  Report report = sample_report();
  for (int i = 0; i < 100; ++i) report.before.ops["Op" + std::to_string(i)] = 1;
  CHECK(report_text(report, {.max_rows = 10}).contains("more in the JSON report"));
  CHECK_FALSE(report_text(report, {.max_rows = 0}).contains("more in the JSON report"));
  CHECK(report_text(report, {.max_rows = 0}).contains("Op99"));
}

TEST_CASE("Markdown stays below its limit whatever the model is called") {
  Report report = sample_report();
  for (int i = 0; i < 5000; ++i) {
    report.layers->push_back({std::string(300, '|'), "x", "node" + std::to_string(i), "Conv", {}});
    report.journal.push_back(
        {"p", "node" + std::to_string(i), "Conv", false, std::string(1000, '*') + std::to_string(i)});
    report.warnings.push_back(std::string(500, '<') + std::to_string(i));
  }
  for (const std::size_t limit : {std::size_t{60000}, std::size_t{5000}, std::size_t{500}, std::size_t{10}}) {
    const std::string text = report_markdown(report, limit);
    CHECK(text.size() <= limit);
    if (limit >= 500) CHECK(text.contains("JSON report"));
  }
  CHECK(report_markdown(report).contains("Provenance"));
}

TEST_CASE("Markdown: names cannot become markup") {
  Report report = sample_report();
  report.warnings = {"a|b <img src=x> @user [x](y) `c` **d**"};
  const std::string text = report_markdown(report);
  CHECK(text.contains("a\\|b &lt;img src=x> &#64;user \\[x\\](y) \\`c\\` \\*\\*d\\*\\*"));
}

TEST_CASE("Equal reasons are one group, in order of appearance") {
  const auto groups = group_skips(sample_report().journal);
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].count == 2);
  CHECK(groups[0].nodes.size() == 2);
  CHECK(groups[1].reason == "no int8 kernel");
  CHECK(group_skips({}).empty());
}

TEST_CASE("The summary in one look") {
  CHECK(summary_line(sample_report()) ==
        "1.09 MB -> 309.1 kB (0.28x) · top-1 91.75 -> 91.70 (-0.05) · SQNR 31.1 dB · "
        "p50 660.0 us -> 180.0 us (3.67x as fast) · 1 of 2 gates FAILED");
  CHECK(summary_line(inspect_report()) == "1.02 kB · 268.3 k parameters · 40.5 M MACs");
  CHECK(summary_line(eval_report()).contains("perplexity 4.6006 · p50 1.00 ms"));
}

TEST_CASE("Gates pass at the limit and fail beyond it or without a number") {
  Report report = sample_report();
  report.gates.clear();
  CHECK(gates_pass(report));
  GateLimits limits;
  limits.max_drop = report.comparison->scores[0].drop;
  limits.min_sqnr = 20;
  limits.max_size = 309112;
  limits.max_ratio = 0.3;
  REQUIRE(apply_gates(report, limits));
  CHECK(report.gates.size() == 4);
  CHECK(gates_pass(report));

  const auto fails = [](GateLimits one, auto change) {
    Report tried = sample_report();
    tried.gates.clear();
    change(tried);
    REQUIRE(apply_gates(tried, one));
    return !gates_pass(tried);
  };
  const auto nothing = [](Report&) {};
  CHECK(fails({.max_drop = 0.04}, nothing));
  CHECK(fails({.min_sqnr = 40}, nothing));
  CHECK(fails({.max_size = 309111}, nothing));
  CHECK(fails({.max_ratio = 0.28}, nothing));
  CHECK(fails({.min_sqnr = 1}, [](Report& tried) {
    tried.comparison->outputs[0].closeness = testing::sample_closeness(std::numeric_limits<float>::quiet_NaN());
  }));
  CHECK_FALSE(fails({.min_sqnr = 1000}, [](Report& tried) {
    for (auto& output : tried.comparison->outputs) output.closeness = testing::sample_closeness(0);
  }));
}

TEST_CASE("A gate nobody measured for is refused") {
  for (const GateLimits& limits :
       {GateLimits{.max_drop = 1}, GateLimits{.min_sqnr = 1}, GateLimits{.max_size = 1}, GateLimits{.max_ratio = 1}}) {
    Report report = inspect_report();
    const auto status = apply_gates(report, limits);
    REQUIRE_FALSE(status);
    CHECK(status.error().code == Code::usage);
  }
  Report report = sample_report();
  report.comparison->metric = Metric::sqnr;
  CHECK_FALSE(apply_gates(report, {.max_drop = 1}));
}

TEST_CASE("write_report chooses the form by the name") {
  const testing::TempDir folder;
  for (const auto& [name, text] :
       {std::pair{"r.json", report_json(sample_report())}, std::pair{"r.md", report_markdown(sample_report())},
        std::pair{"r.txt", report_text(sample_report(), {.color = false, .max_rows = 0})}}) {
    REQUIRE(write_report(sample_report(), folder.path(name)));
    CHECK(*read_text_file(folder.path(name), 1 << 20) == text);
  }
  const auto refused = write_report(sample_report(), folder.path("r.html"));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::usage);
  CHECK_FALSE(write_report(sample_report(), folder.path("missing/r.json")));
}

TEST_CASE("Data is described with its stamp") {
  const testing::MemorySource source({Batch{.inputs = {}, .labels = {}, .expected = {}, .samples = 3}}, true);
  const DataReport data = describe_data("calibration", source);
  CHECK(data.synthetic);
  CHECK(data.samples == 3);
  Report report = inspect_report();
  report.provenance.data = {data};
  for (const std::string& text : {report_text(report), report_markdown(report)})
    CHECK(text.contains("calibration: synthetic data"));
}
