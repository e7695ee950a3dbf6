// Static quantization with a format for each node: the one place where sensitivity and quant-mixed meet
// quantize_static().
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/node_format.h"
#include "quant/static.h"

namespace onnxpress {

struct Recipe {
  std::map<std::string, NodeFormat> formats = {};  // by node label
  NodeFormat others = NodeFormat::int8;            // of the nodes not named: int8 or float32

  NodeFormat of(const std::string& label) const;
  bool operator==(const Recipe&) const = default;
};

// What quantize_recipe() can give a node besides float32, the finest first.
std::span<const NodeFormat> recipe_formats();

// quantize_static() on the nodes that both the recipe and context.selected() let it touch.
Result<bool> quantize_recipe(Model& model, PassContext& context, const StaticSettings& settings, const Recipe& recipe);

// A selector pattern (only=, skip=) for the nodes with this label and no others.
std::string pattern_of(std::string_view label);

}  // namespace onnxpress
