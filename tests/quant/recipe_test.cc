#include "quant/recipe.h"

#include <catch2/catch_test_macros.hpp>

#include "engine/activations.h"
#include "support/memory_source.h"
#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

const Dims kInput = {1, 4, 6, 6};

std::string chain() {
  const auto layer = [](const std::string& index, unsigned seed) {
    return float_tensor("w" + index, {4, 4, 3, 3}, seed, 0.4F) + ", " + float_tensor("b" + index, {4}, seed + 9, 0.2F);
  };
  return HEAD "g (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) <" + layer("1", 1) + ", " + layer("2", 2) + ", " +
         layer("3", 3) +
         "> { c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) r1 = Relu(c1) "
         "c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2) r2 = Relu(c2) "
         "y = Conv <pads = [1, 1, 1, 1]> (r2, w3, b3) }";
}

}  // namespace

TEST_CASE("a recipe may mix formats in any way: the runtime takes the model, and float neighbours stay float") {
  std::vector<Batch> samples;
  for (unsigned seed = 1; seed < 5; ++seed) samples.push_back(random_batch("x", kInput, seed));
  const Model before = parse(chain());
  std::vector<NodeFormat> formats = {NodeFormat::float32};
  formats.insert(formats.end(), recipe_formats().begin(), recipe_formats().end());
  for (const NodeFormat a : formats) {
    for (const NodeFormat b : formats) {
      for (const NodeFormat c : formats) {
        INFO(node_format_name(a) << " " << node_format_name(b) << " " << node_format_name(c));
        Model model = parse(chain());
        MemorySource source(samples);
        EngineActivations activations(source, 1, 0);
        PassContext context;
        context.activations = &activations;
        Recipe recipe;
        recipe.formats = {{"Conv->c1", a}, {"Conv->c2", b}, {"Conv->y", c}};
        const auto changed = quantize_recipe(model, context, {}, recipe);
        INFO((changed ? "" : changed.error().text()));
        REQUIRE(changed);
        const bool all_float = a == NodeFormat::float32 && b == a && c == a;
        CHECK(*changed == !all_float);
        const bool coarse = a == NodeFormat::int4 || b == NodeFormat::int4 || c == NodeFormat::int4;
        for (const Batch& batch : samples)
          CHECK(sqnr_db(run_on(before, batch), run_on(model, batch)) > (coarse ? 12 : 30));
      }
    }
  }
}

}  // namespace onnxpress::testing
