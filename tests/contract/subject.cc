#include "contract/subject.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "engine/activations.h"
#include "engine/session.h"
#include "io/check.h"
#include "io/save.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

// Declared inputs of the main graph that are not initializers.
std::vector<ValueInfo> wanted_inputs(const Model& model) {
  std::vector<ValueInfo> wanted;
  for (const std::string& name : model.main().inputs())
    if (!model.main().initializer(name)) wanted.push_back({name, model.main().type(name)});
  return wanted;
}

bool same_type(const ValueType& a, const ValueType& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.is_tensor == b.is_tensor;
}

std::vector<ValueInfo> public_inputs(const Model& model) {
  if (model.ir_version() < 4) return wanted_inputs(model);
  std::vector<ValueInfo> inputs;
  for (const std::string& name : model.main().inputs()) inputs.push_back({name, model.main().type(name)});
  return inputs;
}

std::string element_difference(const Tensor& expected, const Tensor& actual) {
  if (!is_float(expected.dtype()))
    return std::ranges::equal(expected.bytes(), actual.bytes()) ? "" : "other values";
  const auto a = to_floats(expected.view()), b = to_floats(actual.view());
  REQUIRE((a && b));
  const double tolerance = bit_width(expected.dtype()) >= 32 ? 1e-4 : 1e-2;
  for (std::size_t i = 0; i < a->size(); ++i) {
    const double x = (*a)[i], y = (*b)[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    if (!(std::abs(x - y) <= tolerance * std::max(1.0, std::abs(x))))
      return fmt::format("element {} is {}, not {}", i, y, x);
  }
  return "";
}

}  // namespace

void check_interface(const Model& before, const Model& after) {
  CHECK(after.main().outputs() == before.main().outputs());
  for (const std::string& name : before.main().outputs()) {
    INFO(name);
    CHECK(same_type(before.main().type(name), after.main().type(name)));
  }
  const std::vector<ValueInfo> expected = public_inputs(before), actual = public_inputs(after);
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO(expected[i].name);
    CHECK(actual[i].name == expected[i].name);
    CHECK(same_type(expected[i].type, actual[i].type));
  }
}

std::string difference(const std::vector<Tensor>& expected, const std::vector<Tensor>& actual) {
  if (expected.size() != actual.size()) return "another number of outputs";
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i].dtype() != actual[i].dtype()) return fmt::format("output {}: another type", i);
    if (expected[i].dims() != actual[i].dims())
      return fmt::format("output {}: {}, not {}", i, dims_text(actual[i].dims()), dims_text(expected[i].dims()));
    const std::string what = element_difference(expected[i], actual[i]);
    if (!what.empty()) return fmt::format("output {}: {}", i, what);
  }
  return "";
}

Subject prepare(TestModel test) {
  INFO(test.name);
  auto bytes = serialize_model(test.model);
  REQUIRE(bytes);
  Subject subject{.test = std::move(test), .bytes = std::move(*bytes), .inputs = {}};
  const Model& model = subject.test.model;
  for (const std::string& marker : subject.test.markers) CHECK(subject.bytes.find(marker) != std::string::npos);
  subject.valid = check_model(model).has_value();
  const auto session = Session::open(model);
  subject.runs = session.has_value();
  subject.inputs = wanted_inputs(model);
  if (!subject.runs) return subject;
  const auto source = open_source({.path = "random:seed=7", .samples = 2, .labels = "", .preprocess = ""}, subject.inputs);
  INFO((source ? "" : source.error().text()));
  REQUIRE(source);
  for (auto batch = (*source)->next(); batch && *batch; batch = (*source)->next()) {
    auto outputs = (*session)->run((*batch)->inputs);
    INFO((outputs ? "" : outputs.error().text()));
    REQUIRE(outputs);
    subject.feeds.push_back(std::move((*batch)->inputs));
    subject.outputs.push_back(std::move(*outputs));
  }
  return subject;
}

std::vector<Subject> prepare_all(const std::string& folder) {
  std::vector<Subject> subjects;
  for (TestModel& test : contract_models(folder)) subjects.push_back(prepare(std::move(test)));
  return subjects;
}

Attempt attempt(const Subject& subject, const Pipeline& pipeline, unsigned jobs, const Model* from) {
  Attempt result{.model = (from != nullptr ? *from : subject.test.model).clone(), .status = {}, .bytes = "", .journal = {}};
  EngineRunner runner;
  PassContext context;
  context.jobs = jobs;
  context.runner = &runner;
  auto source = open_source({.path = subject.test.data, .samples = 8, .labels = "", .preprocess = ""}, subject.inputs);
  INFO((source ? "" : source.error().text()));
  REQUIRE(source);
  EngineActivations activations(**source, jobs, 0);
  context.activations = &activations;
  Pipeline::Checks checks;
  checks.honesty = true;
  checks.verify_each = subject.valid;
  checks.checker = [](const Model& m) { return check_model(m); };
  const auto outcome = pipeline.run(result.model, context, checks, nullptr);
  result.journal = context.journal;
  if (!outcome) {
    result.status = rethrow(outcome.error());
    return result;
  }
  result.changed = outcome->changed;
  auto bytes = serialize_model(result.model);
  REQUIRE(bytes);
  result.bytes = std::move(*bytes);
  return result;
}

void require_same_outputs(const Subject& subject, const Model& model) {
  const auto session = Session::open(model);
  INFO((session ? "" : session.error().text()));
  REQUIRE(session);
  for (std::size_t i = 0; i < subject.feeds.size(); ++i) {
    const auto outputs = (*session)->run(subject.feeds[i]);
    INFO((outputs ? "" : outputs.error().text()));
    REQUIRE(outputs);
    CHECK(difference(subject.outputs[i], *outputs) == "");
  }
}

}  // namespace onnxpress::testing
