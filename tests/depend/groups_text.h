// Dependency groups as text, for tests.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "depend/dependency.h"
#include "support/models.h"

namespace onnxpress::testing {

// Text of a model whose initializers may lack values: "<float[2,3] w>" holds zeros.
std::string with_zeros(std::string_view text);

struct Analyzed {
  Model model;
  DependencyGraph graph;
};
Analyzed analyze(std::string_view text, const DependencyOptions& options = {});

// One line per group: "conv: 8 channels | w1.0 b1.0 w2.1*9", constants only, in the order of the members; "*n" when a
// unit owns n indices of the axis. What is only approximate ends in "~".
std::vector<std::string> groups_of(const DependencyGraph& graph);
std::vector<std::string> groups_of(std::string_view text, const DependencyOptions& options = {});
// The same with values.
std::vector<std::string> whole_groups_of(std::string_view text, const DependencyOptions& options = {});
// One line per blocked axis: "w1.0 4/4 Softmax 'y': softmax over this axis".
std::vector<std::string> blocked_of(std::string_view text, const DependencyOptions& options = {});

using Lines = std::vector<std::string>;

}  // namespace onnxpress::testing
