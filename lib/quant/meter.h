// Tries recipes on a model: what each costs in accuracy and saves in bytes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "quant/output_error.h"
#include "quant/recipe.h"

namespace onnxpress {

// Of a recipe, against the float model.
struct Effect {
  OutputError error;
  std::int64_t bytes = 0;  // what the weights grow by: as a rule negative
  bool operator==(const Effect&) const = default;
};

// A node with what must be in the same format: the other nodes that read its weight or carry its name.
struct Unit {
  std::vector<Node> nodes;
  const Node& first() const { return nodes.front(); }
};

class Meter {
 public:
  // Ranges are measured through context.activations, once for every value; models are compared through `compare_on`,
  // or context.activations when it is null. The model must not change while the meter lives.
  Meter(const Model& model, PassContext& context, const StaticSettings& settings, Activations* compare_on = nullptr);

  // The nodes that become integer when all may, in graph order: kernels, and what runs between them.
  Result<std::vector<Unit>> units();
  // Measures the ranges these recipes need, in one run over the samples. The methods below do it for one.
  Status prepare(std::span<const Recipe> recipes);
  // The values whose ranges the recipe uses, as keys of ranges(); empty when it quantizes nothing.
  Result<std::vector<std::string>> values_of(const Recipe& recipe);
  // Ranges may be replaced by better ones.
  RangeTable& ranges() { return ranges_; }

  // Empty when the recipe quantizes nothing. Errors: those of quantize_static() and compare_outputs(); interrupted.
  Result<std::optional<Effect>> measure(const Recipe& recipe);
  // The bytes alone: no model is run.
  Result<std::int64_t> bytes(const Recipe& recipe);
  // A quantized copy of the model; what happened is in `context`.
  Result<Model> apply(const Recipe& recipe, PassContext& context);
  // A context for trying: like the one given, with a journal of its own.
  PassContext scratch() const;

 private:
  Result<std::vector<ValueRef>> values(const Recipe& recipe);
  std::int64_t growth(const Model& variant) const;

  const Model& model_;
  const PassContext& context_;
  StaticSettings settings_;
  Activations* compare_on_;
  RangeTable ranges_;
};

// A recipe with all of the unit in one format.
void assign(Recipe& recipe, const Unit& unit, NodeFormat format);

}  // namespace onnxpress
