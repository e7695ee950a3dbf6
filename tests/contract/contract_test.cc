// What every pass owes its caller, checked for every pass there is on every test model.
#include <algorithm>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "contract/option_values.h"
#include "contract/subject.h"
#include "engine/session.h"
#include "io/check.h"
#include "io/load.h"
#include "io/save.h"
#include "pass/docs.h"
#include "pass/registry.h"
#include "support/models.h"
#include "support/scratch_dir.h"

namespace onnxpress::testing {
namespace {

namespace fs = std::filesystem;

Pipeline parse_pipeline(const std::string& text) {
  auto pipeline = Pipeline::parse(text, all_passes());
  INFO(text << (pipeline ? "" : ": " + pipeline.error().text()));
  REQUIRE(pipeline);
  return std::move(*pipeline);
}

// The pass with its defaults, and as its example shows it.
std::vector<std::string> common_variants(const PassInfo& info) {
  std::vector<std::string> texts = {info.name};
  if (info.example != info.name) texts.push_back(info.example);
  return texts;
}

// With each option at another value: for tiny models, as trained ones take their time. With every weight worth the
// effort more happens there.
std::vector<std::string> tiny_variants(const PassInfo& info) {
  std::vector<std::string> texts;
  for (const Field& field : info.options)
    if (!names_a_file(field)) texts.push_back(info.name + "{" + field.key + "=" + other_value(field) + "}");
  if (std::ranges::contains(info.options, "min_elements", &Field::key))
    for (const Field& field : info.options)
      if (field.key != "min_elements" && !names_a_file(field))
        texts.push_back(info.name + "{min_elements=0 " + field.key + "=" + other_value(field, 1) + "}");
  return texts;
}

bool is_idempotent(const Pipeline& pipeline) {
  return std::ranges::none_of(all_passes(), [&](const PassInfo& info) {
    return !info.idempotent && pipeline.print().find(info.name) != std::string::npos;
  });
}

void check_journal(const Journal& journal, bool changed) {
  for (const JournalEntry& entry : journal.entries()) {
    INFO(entry.pass << " " << entry.node);
    CHECK_FALSE(trim(entry.text).empty());
    CHECK_FALSE(entry.pass.empty());
    CHECK((entry.node.empty() || !entry.op.empty()));
  }
  if (changed)
    CHECK(std::ranges::any_of(journal.entries(), [](const JournalEntry& e) { return e.done || e.node.empty(); }));
}

void check_result(const Subject& subject, const Pipeline& pipeline, const Attempt& result) {
  CHECK(result.changed == (result.bytes != subject.bytes));
  check_interface(subject.test.model, result.model);
  check_journal(result.journal, result.changed);
  for (const std::string& marker : subject.test.markers) {
    INFO(marker);
    CHECK(result.bytes.find(marker) != std::string::npos);
  }
  if (subject.valid) CHECK(check_model(result.model));
  if (subject.runs && result.changed) {
    if (!pipeline.lossy()) {
      require_same_outputs(subject, result.model);
    } else {
      const auto session = Session::open(result.model);
      INFO((session ? "" : session.error().text()));
      CHECK(session);
    }
  }
}

void check_pass(const Subject& subject, const std::string& text) {
  INFO(subject.test.name << ": " << text);
  const Pipeline pipeline = parse_pipeline(text);
  const Attempt result = attempt(subject, pipeline, 1);
  if (!result.status) {
    // A pass that has to run the model cannot when the runtime does not know its operators.
    INFO(result.status.error().text());
    CHECK((pipeline.needs_data() && !subject.runs));
    CHECK(result.status.error().code == Code::engine);
    return;
  }
  check_result(subject, pipeline, result);
  for (const unsigned jobs : {2U, 8U}) {
    const Attempt parallel = attempt(subject, pipeline, jobs);
    CHECK((parallel.bytes == result.bytes));
    CHECK(parallel.journal.entries() == result.journal.entries());
  }
  if (is_idempotent(pipeline) && (subject.runs || !pipeline.needs_data())) {
    const Attempt again = attempt(subject, pipeline, 1, &result.model);
    INFO((again.status ? "" : again.status.error().text()));
    CHECK(again.status);
    CHECK_FALSE(again.changed);
    CHECK((again.bytes == result.bytes));
  }
  auto untouched = serialize_model(subject.test.model);
  REQUIRE(untouched);
  CHECK((*untouched == subject.bytes));
}

}  // namespace

// In parts, which run side by side; every n-th pass belongs to one.
TEMPLATE_TEST_CASE_SIG("every pass keeps the contract on every test model", "", ((std::size_t Part), Part), 0, 1, 2, 3,
                       4, 5, 6, 7) {
  constexpr std::size_t kParts = 8;
  const TempDir folder;
  const std::vector<Subject> subjects = prepare_all(folder.path());
  for (std::size_t i = Part; i < all_passes().size(); i += kParts) {
    const PassInfo& info = all_passes()[i];
    for (const std::string& text : common_variants(info))
      for (const Subject& subject : subjects) check_pass(subject, text);
    for (const std::string& text : tiny_variants(info))
      for (const Subject& subject : subjects)
        if (!subject.test.trained) check_pass(subject, text);
  }
}

TEST_CASE("the test models are what they are meant to be") {
  const TempDir folder;
  std::set<std::string> names;
  for (const Subject& subject : prepare_all(folder.path())) {
    INFO(subject.test.name);
    CHECK(names.insert(subject.test.name).second);
    CHECK(subject.valid);
    CHECK(subject.runs == (subject.test.name != "custom_ops"));
  }
}

TEST_CASE("a file that no pass touches is saved byte for byte") {
  const TempDir folder;
  const Pipeline nothing = parse_pipeline("on{no-such-node}(clean-identity)");
  for (const Subject& subject : prepare_all(folder.path())) {
    INFO(subject.test.name);
    const bool external = subject.test.model.store().any_external();
    const SaveOptions options{.overwrite = false,
                              .data = external ? SaveOptions::Data::external : SaveOptions::Data::automatic};
    const std::string first = folder.path(subject.test.name + ".first.onnx"),
                      second = folder.path(subject.test.name + ".second.onnx");
    const auto saved = save_model(subject.test.model, first, options);
    REQUIRE(saved);
    auto loaded = load_model(first);
    REQUIRE(loaded);
    Attempt result = attempt(subject, nothing, 1, &*loaded);
    REQUIRE(result.status);
    CHECK_FALSE(result.changed);
    const auto again = save_model(result.model, second, options);
    REQUIRE(again);
    CHECK(again->data_bytes == saved->data_bytes);
    if (external) {
      // The model names its data file, and that has the name of the model in it.
      CHECK((read_bytes(again->data_path) == read_bytes(saved->data_path)));
      CHECK((result.bytes == subject.bytes));
    } else {
      CHECK((read_bytes(first) == read_bytes(second)));
    }
  }
}

TEST_CASE("trained models are saved as they were loaded") {
  for (const auto& entry : fs::directory_iterator(fs::path(ONNXPRESS_SOURCE_DIR) / "testdata/models")) {
    if (entry.path().extension() != ".onnx") continue;
    INFO(entry.path());
    const auto model = load_model(entry.path().string());
    REQUIRE(model);
    const auto bytes = serialize_model(*model);
    REQUIRE(bytes);
    CHECK((*bytes == read_bytes(entry.path())));
  }
}

TEST_CASE("every option of every pass goes through text and back") {
  for (const PassInfo& info : all_passes()) {
    for (const Field& field : info.options) {
      for (const std::size_t k : {0UZ, 1UZ}) {
        const std::string value = other_value(field, k);
        INFO(info.name << "{" << field.key << "=" << value << "}");
        CHECK(value != field.fallback);
        const Pipeline pipeline = parse_pipeline(info.name + "{" + field.key + "=" + value + "}");
        const std::string printed = pipeline.print();
        CHECK(printed.find(field.key + "=") != std::string::npos);
        CHECK(parse_pipeline(printed).print() == printed);
        const auto text = parse_value(value);
        REQUIRE(text);
        const auto options = info.make_options();
        CHECK(field.print(options.get()) == field.fallback);
        REQUIRE(field.parse(options.get(), *text));
        const auto reparsed = parse_value(field.print(options.get()));
        REQUIRE(reparsed);
        const auto copy = info.make_options();
        REQUIRE(field.parse(copy.get(), *reparsed));
        CHECK(field.print(copy.get()) == field.print(options.get()));
      }
      if (field.fallback.empty()) continue;
      CHECK(parse_pipeline(info.name + "{" + field.key + "=" + field.fallback + "}").print() == info.name);
    }
  }
}

TEST_CASE("no pass takes an option it does not have or a value out of range") {
  for (const PassInfo& info : all_passes()) {
    const auto refused = [&](const std::string& option) {
      INFO(info.name << "{" << option << "}");
      const auto pipeline = Pipeline::parse(info.name + "{" + option + "}", all_passes());
      REQUIRE_FALSE(pipeline);
      CHECK(pipeline.error().code == Code::usage);
    };
    refused("no_such_option=1");
    for (const Field& field : info.options) {
      if (field.min) refused(field.key + "=" + number_text(*field.min - 1));
      if (field.max) refused(field.key + "=" + number_text(*field.max + 1));
      if (!field.choices.empty()) refused(field.key + "=no_such_choice");
      if (field.type == "bool" || field.type == "int" || field.type == "float") refused(field.key + "=word");
    }
  }
}

TEST_CASE("every pass explains itself") {
  for (const PassInfo& info : all_passes()) {
    INFO(info.name);
    CHECK_FALSE(info.summary.empty());
    CHECK(info.summary.find('\n') == std::string::npos);
    CHECK(info.description.size() > info.summary.size());
    CHECK(info.example.find(info.name) != std::string::npos);
    const std::string printed = parse_pipeline(info.example).print();
    CHECK(parse_pipeline(printed).print() == printed);
    CHECK(describe_pass_text(info).find(info.summary) != std::string::npos);
    for (const Field& field : info.options) {
      INFO(field.key);
      CHECK_FALSE(field.help.empty());
      CHECK(field.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos);
    }
  }
}

TEST_CASE("a pass that needs data says so without") {
  for (const PassInfo& info : all_passes()) {
    INFO(info.name);
    Model model = parse(HEAD
                        "g (float[1,4] x) => (float[1,2] y) <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}> "
                        "{ y = MatMul (x, w) }");
    PassContext context;
    const auto outcome = parse_pipeline(info.name).run(model, context, {}, nullptr);
    CHECK(outcome.has_value() == !info.needs_data);
  }
}

TEST_CASE("passes, their files and their tests belong together one to one") {
  const fs::path root = ONNXPRESS_SOURCE_DIR;
  std::set<std::string> registered, files, tests;
  for (const PassInfo& info : all_passes()) {
    std::string name = info.name;
    std::ranges::replace(name, '-', '_');
    CHECK(registered.insert(name).second);
  }
  for (const auto& family : fs::directory_iterator(root / "passes"))
    for (const auto& entry : fs::directory_iterator(family))
      if (entry.path().extension() == ".cc")
        files.insert(family.path().filename().string() + "_" + entry.path().stem().string());
  for (const auto& entry : fs::directory_iterator(root / "tests/passes"))
    if (entry.path().filename().string().ends_with("_test.cc")) {
      const std::string stem = entry.path().stem().string();
      tests.insert(stem.substr(0, stem.size() - std::string_view("_test").size()));
    }
  CHECK(registered == files);
  CHECK(registered == tests);
}

}  // namespace onnxpress::testing
