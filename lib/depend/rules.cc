#include "depend/rules.h"

#include <array>
#include <map>
#include <utility>

namespace onnxpress {
namespace {

constexpr std::array kFamilies = {
    linear_rules, elementwise_rules, shape_rules,     select_rules,    spatial_rules,
    reduce_rules, norm_rules,        recurrent_rules, attention_rules,
};

}  // namespace

Rule find_rule(const Node& node) {
  static const auto table = [] {
    std::map<std::pair<std::string_view, std::string_view>, Rule> all;
    for (const auto family : kFamilies)
      for (const OpRule& rule : family()) all.emplace(std::pair(rule.domain, rule.op), rule.rule);
    return all;
  }();
  const auto found = table.find({node.domain(), node.op()});
  return found == table.end() ? nullptr : found->second;
}

}  // namespace onnxpress
