// The operator rules: one function per operator or family, found by domain and name. A new family is a file with rules
// and one line in kFamilies (rules.cc).
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "depend/ties.h"
#include "ir/model.h"

namespace onnxpress {

// Speaks about the node that `ties` has entered. Errors only for literals that cannot be read.
using Rule = Status (*)(Ties& ties);

struct OpRule {
  std::string_view domain, op;
  Rule rule;
};

// Null when there is none: then every axis around the node is fixed.
Rule find_rule(const Node& node);

// Families; each in the file of its name.
std::span<const OpRule> linear_rules();
std::span<const OpRule> elementwise_rules();
std::span<const OpRule> shape_rules();
std::span<const OpRule> select_rules();
std::span<const OpRule> spatial_rules();
std::span<const OpRule> reduce_rules();
std::span<const OpRule> norm_rules();
std::span<const OpRule> recurrent_rules();
std::span<const OpRule> attention_rules();

// Whether the first output has the shape of the first input, or of all inputs broadcast.
bool is_unary(const Node& node);
bool is_broadcast(const Node& node);

inline constexpr std::string_view kMicrosoft = "com.microsoft";

}  // namespace onnxpress
