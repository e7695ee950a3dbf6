#include "quant/recipe.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cctype>

#include "base/text.h"

namespace onnxpress {
namespace {

// RE2 takes a backslash before any ASCII punctuation.
std::string escaped(std::string_view label) {
  std::string word;
  for (const char c : label) {
    if (std::ispunct(static_cast<unsigned char>(c)) != 0 && c != '_') word += '\\';
    word += c;
  }
  return word;
}

// One pattern for many labels: matching them one by one would take the square of their number.
Result<Selector> selector_of(const std::vector<std::string>& labels) {
  std::vector<std::string> words;
  for (const std::string& label : labels) words.push_back(escaped(label));
  return Selector::parse("re:" + join(words, "|"));
}

}  // namespace

NodeFormat Recipe::of(const std::string& label) const {
  const auto found = formats.find(label);
  return found == formats.end() ? others : found->second;
}

std::span<const NodeFormat> recipe_formats() {
  static constexpr std::array kFormats = {NodeFormat::int16, NodeFormat::int8, NodeFormat::int4};
  return kFormats;
}

Result<bool> quantize_recipe(Model& model, PassContext& context, const StaticSettings& settings, const Recipe& recipe) {
  assert(recipe.others == NodeFormat::int8 || recipe.others == NodeFormat::float32);
  StaticSettings with_formats = settings;
  std::vector<std::string> named;  // those that differ from the others in being quantized
  for (const auto& [label, format] : recipe.formats) {
    assert(format == NodeFormat::float32 || std::ranges::contains(recipe_formats(), format));
    if ((format == NodeFormat::float32) != (recipe.others == NodeFormat::float32)) named.push_back(label);
    if (format == NodeFormat::int16 || format == NodeFormat::int4) with_formats.per_node[label] = format;
  }
  if (named.empty() && recipe.others == NodeFormat::float32) return false;
  Selection selection;
  if (!named.empty()) {
    OP_LET(Selector selector, selector_of(named));
    (recipe.others == NodeFormat::float32 ? selection.only : selection.skip).push_back(std::move(selector));
  }
  if (!selection.empty()) context.selections.push_back(&selection);
  Result<bool> changed = quantize_static(model, context, with_formats);
  if (!selection.empty()) context.selections.pop_back();
  return changed;
}

std::string pattern_of(std::string_view label) {
  const bool special = label.find_first_of("*?") != std::string_view::npos || label.starts_with("re:") ||
                       label.starts_with("op:") || label.empty();
  return special ? "re:" + escaped(label) : std::string(label);
}

}  // namespace onnxpress
