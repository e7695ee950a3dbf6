#include "proving.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "depend/remove.h"
#include "engine/session.h"
#include "groups_text.h"
#include "io/check.h"
#include "ir/rewriter.h"

namespace onnxpress::testing {

Model with_weights(std::string_view text, unsigned seed) {
  Model model = parse(with_zeros(text));
  Rewriter rewriter(model.main());
  for (const Initializer& initializer : model.main().initializers()) {
    if (initializer.dtype() != DType::f32) continue;
    const auto old = initializer.read();
    REQUIRE(old);
    if (std::ranges::any_of(old->as<float>(), [](float value) { return value != 0; })) continue;
    std::vector<float> values = random_floats(static_cast<std::size_t>(initializer.size()), seed++);
    for (float& value : values)
      if (initializer.name().ends_with("var")) value = value * value + 0.5F;
    rewriter.set_initializer(initializer, Tensor::of_floats(initializer.dims(), values));
  }
  REQUIRE(rewriter.commit());
  return model;
}

Removal every_third(const DependencyGraph& dependencies) {
  Removal removal;
  for (const UnitGroup& group : dependencies.groups()) {
    Indices& units = removal.emplace_back();
    for (std::size_t unit = 0; unit < group.units && units.size() + 1 < group.units; unit += 3)
      units.push_back(static_cast<std::uint32_t>(unit));
  }
  return removal;
}

Model require_narrow(const Model& model, const DependencyOptions& options) {
  auto dependencies = DependencyGraph::analyze(model.main(), options);
  REQUIRE(dependencies);
  REQUIRE_FALSE(dependencies->groups().empty());
  EngineRunner runner;
  PassContext context;
  context.runner = &runner;
  const Removal removal = every_third(*dependencies);
  auto proof = prove_removal(model, model.main(), *dependencies, removal, context);
  INFO((proof ? "" : proof.error().text()));
  REQUIRE(proof);
  for (const Proof::Failure& failure : proof->failures)
    UNSCOPED_INFO(dependencies->groups()[failure.group].name << ": " << failure.reason);
  CHECK(proof->failures.empty());
  CHECK(proof->unproven == "");
  CHECK(proof->error <= kProofTolerance);
  CHECK(proof->effect > 1e-3);
  Model narrow = model.clone();
  const auto removed = remove_units(narrow, narrow.main(), kept_axes(*dependencies, removal), 1);
  INFO((removed ? "" : removed.error().text()));
  REQUIRE(removed);
  CHECK(*removed);
  const Status checked = check_model(narrow);
  INFO((checked ? "" : checked.error().text()));
  CHECK(checked);
  const auto session = Session::open(narrow);
  INFO((session ? "" : session.error().text()));
  CHECK(session);
  return narrow;
}

Model require_narrow(std::string_view text, const DependencyOptions& options) {
  return require_narrow(with_weights(text), options);
}

void require_groups(std::string_view text, const std::vector<std::string>& groups, const DependencyOptions& options) {
  INFO(text);
  CHECK(groups_of(text, options) == groups);
  require_narrow(text, options);
}

Dims dims_of(const Model& model, std::string_view initializer) { return model.main().initializer(initializer).dims(); }

}  // namespace onnxpress::testing
