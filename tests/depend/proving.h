// Networks to prune with: text models whose weights are random, and a removal that takes from every group.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "depend/dependency.h"
#include "depend/proof.h"
#include "support/models.h"

namespace onnxpress::testing {

// The model with random values in float initializers that have none ("<float[8,3] w>"), or only zeros; those whose name
// ends in "var" are positive.
Model with_weights(std::string_view text, unsigned seed = 1);

// Every third unit of every group, the first included; at least one stays.
Removal every_third(const DependencyGraph& dependencies);

// Analyzes, removes every third unit of every group of the main graph, and requires: proven with at most the tolerance
// of float32, nothing taken out, with an effect; the narrower model passes the checker and loads. Returns it.
Model require_narrow(const Model& model, const DependencyOptions& options = {});
Model require_narrow(std::string_view text, const DependencyOptions& options = {});

// The groups are these (as groups_of() writes them), and what they say is proven by require_narrow().
void require_groups(std::string_view text, const std::vector<std::string>& groups,
                    const DependencyOptions& options = {});

Dims dims_of(const Model& model, std::string_view initializer);

}  // namespace onnxpress::testing
