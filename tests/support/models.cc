#include "support/models.h"

#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "engine/session.h"
#include "io/check.h"
#include "io/text.h"
#include "pass/pipeline.h"
#include "pass/registry.h"

namespace onnxpress::testing {

Model parse(std::string_view text) {
  auto model = parse_model_text(text);
  INFO((model ? "" : model.error().text()));
  REQUIRE(model);
  return std::move(*model);
}

std::string dump(const Model& model) {
  auto text = dump_model_text(model);
  INFO((text ? "" : text.error().text()));
  REQUIRE(text);
  return *text;
}

Outcome run_pipeline(Model& model, std::string_view pipeline, PassContext* context) {
  auto parsed = Pipeline::parse(pipeline, all_passes());
  INFO((parsed ? "" : parsed.error().text()));
  REQUIRE(parsed);
  EngineRunner runner;
  PassContext own;
  own.runner = &runner;
  PassContext& used = context != nullptr ? *context : own;
  Pipeline::Checks checks;
  checks.honesty = true;
  checks.verify_each = true;
  checks.checker = [](const Model& m) { return check_model(m); };
  auto outcome = parsed->run(model, used, checks, nullptr);
  INFO((outcome ? "" : outcome.error().text()));
  REQUIRE(outcome);
  return *outcome;
}

void require_rewrite(std::string_view before, std::string_view pipeline, std::string_view after) {
  Model model = parse(before);
  const Outcome outcome = run_pipeline(model, pipeline);
  CHECK(dump(model) == dump(parse(after)));
  CHECK(outcome.changed);
  bool idempotent = true;
  for (const PassInfo& info : all_passes())
    if (pipeline.find(info.name) != std::string_view::npos) idempotent = idempotent && info.idempotent;
  if (idempotent) CHECK_FALSE(run_pipeline(model, pipeline).changed);
}

void require_untouched(std::string_view before, std::string_view pipeline) {
  Model model = parse(before);
  const std::string expected = dump(model);
  const Outcome outcome = run_pipeline(model, pipeline);
  CHECK(dump(model) == expected);
  CHECK_FALSE(outcome.changed);
}

std::string filled(std::string_view type, std::string_view name, std::size_t count, std::string_view value) {
  std::string text = fmt::format("{} {} = {{", type, name);
  for (std::size_t i = 0; i < count; ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", value);
  return text + "}";
}

std::vector<float> random_floats(std::size_t count, unsigned seed) {
  std::minstd_rand generator(seed + 1);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(generator() % 65536U) / 32768.0F - 1.0F;
  return values;
}

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "onnxpress-test-XXXXXX").string();
  REQUIRE(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}
TempDir::~TempDir() { std::filesystem::remove_all(path_); }
std::string TempDir::path(std::string_view name) const {
  return name.empty() ? path_ : path_ + "/" + std::string(name);
}

}  // namespace onnxpress::testing
