// Random pipelines on small models: the result is a valid model, and when every pass keeps the outputs, so does the
// pipeline, by two judges: the engine and a slow evaluator that shares nothing with it.
//
// ONNXPRESS_RANDOM_SEEDS is the number of pipelines (20), ONNXPRESS_RANDOM_FIRST the first seed: a failure names its
// seed and pipeline, and ONNXPRESS_RANDOM_FIRST=<seed> ONNXPRESS_RANDOM_SEEDS=1 repeats it.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <random>

#include "base/text.h"
#include "contract/option_values.h"
#include "contract/ref_eval.h"
#include "contract/subject.h"
#include "engine/session.h"
#include "io/check.h"
#include "pass/registry.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

std::uint64_t setting(const char* name, std::uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

// std distributions differ between libraries; a seed must not.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : generator_(seed) {}
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(generator_() % limit); }
  bool chance(std::size_t one_in) { return below(one_in) == 0; }
  template <class T>
  const T& pick(const std::vector<T>& items) {
    return items.at(below(items.size()));
  }

 private:
  std::mt19937_64 generator_;
};

class PipelineMaker {
 public:
  PipelineMaker(Dice& dice, bool lossless) : dice_(dice) {
    for (const PassInfo& info : all_passes())
      if (!lossless || !info.lossy) passes_.push_back(&info);
  }

  std::string items(std::size_t most, int depth) {
    std::vector<std::string> texts(1 + dice_.below(most));
    for (std::string& text : texts) text = item(depth);
    return join(texts, ",");
  }

 private:
  std::string item(int depth) {
    if (depth < 2 && dice_.chance(6)) return "fixpoint{max=3}(" + items(3, depth + 1) + ")";
    if (depth < 2 && dice_.chance(6)) return "on{" + selector() + "}(" + items(2, depth + 1) + ")";
    const PassInfo& info = *dice_.pick(passes_);
    std::vector<std::string> options;
    for (const Field& field : info.options)
      if (dice_.chance(3) && !names_a_file(field))
        options.push_back(field.key + "=" + other_value(field, dice_.below(2)));
    if (dice_.chance(5)) options.push_back((dice_.chance(2) ? "only=" : "skip=") + selector());
    return info.name + (options.empty() ? "" : "{" + join(options, " ") + "}");
  }
  std::string selector() {
    return dice_.pick<std::string>(
        {"op:Conv", "op:MatMul", "op:Identity", "op:*", "op:BatchNormalization", "op:Gemm", "\"re:.*[a-m]\"", "*->y"});
  }

  Dice& dice_;
  std::vector<const PassInfo*> passes_;
};

void check_against_reference(const Subject& subject, const Model& model) {
  for (const auto& feed : subject.feeds) {
    const auto expected = ref_eval(subject.test.model, feed);
    const auto actual = ref_eval(model, feed);
    INFO((expected ? "" : expected.error().text()) << (actual ? "" : actual.error().text()));
    REQUIRE(expected);
    REQUIRE(actual);
    CHECK(difference(as_floats(*expected), as_floats(*actual)) == "");
  }
}

void check_pipeline(const Subject& subject, const std::string& text, bool lossless) {
  INFO("model " << subject.test.name);
  auto pipeline = Pipeline::parse(text, all_passes());
  INFO((pipeline ? "" : pipeline.error().text()));
  REQUIRE(pipeline);
  const Attempt result = attempt(subject, *pipeline, 2);
  if (!result.status) {
    // Options that exclude each other are drawn as well; any other failure is a bug.
    INFO(result.status.error().text());
    CHECK(result.status.error().code == Code::usage);
    return;
  }
  CHECK(check_model(result.model));
  check_interface(subject.test.model, result.model);
  if (!result.changed) {
    CHECK((result.bytes == subject.bytes));
  } else if (lossless) {
    require_same_outputs(subject, result.model);
    check_against_reference(subject, result.model);
  } else {
    const auto session = Session::open(result.model);
    INFO((session ? "" : session.error().text()));
    CHECK(session);
  }
}

}  // namespace

TEST_CASE("random pipelines give valid models, and the same outputs when every pass is lossless") {
  const TempDir folder;
  std::vector<Subject> subjects;
  for (TestModel& test : contract_models(folder.path()))
    if (test.in_reference) subjects.push_back(prepare(std::move(test)));
  const std::uint64_t first = setting("ONNXPRESS_RANDOM_FIRST", 1), count = setting("ONNXPRESS_RANDOM_SEEDS", 20);
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const bool lossless = seed % 2 == 1;
    Dice dice(seed);
    const std::string text = PipelineMaker(dice, lossless).items(5, 0);
    INFO("repeat with ONNXPRESS_RANDOM_FIRST=" << seed << " ONNXPRESS_RANDOM_SEEDS=1; pipeline " << text);
    for (const Subject& subject : subjects) check_pipeline(subject, text, lossless);
  }
}

}  // namespace onnxpress::testing
