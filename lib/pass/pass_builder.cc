// Options of one pass: names, duplicates, values, ranges, only= and skip=.
#include <algorithm>
#include <charconv>

#include "base/text.h"
#include "pass/pipeline_item.h"

namespace onnxpress {
namespace {

std::vector<std::string> option_keys(const PassInfo& info) {
  std::vector<std::string> keys;
  for (const Field& field : info.options) keys.push_back(field.key);
  keys.insert(keys.end(), {"only", "skip"});
  return keys;
}

// The words parsed as the field's type already, so they are numbers.
Status check_range(const Field& field, const OptionText& text) {
  if (!field.min && !field.max) return {};
  for (const std::string& item : text.items) {
    double value = 0;
    std::from_chars(item.data(), item.data() + item.size(), value);
    if ((field.min && value < *field.min) || (field.max && value > *field.max))
      return fail(Code::usage, "{}: {} is out of range, must be {}", field.key, item, range_text(field));
  }
  return {};
}

// A lone text may hold several patterns; in a list each item is one pattern, spaces included.
Result<std::vector<Selector>> parse_patterns(const OptionText& text) {
  std::vector<Selector> selectors;
  for (const std::string& item : text.items) {
    for (const std::string& word : text.is_list ? std::vector{item} : split(item, ' ')) {
      if (word.empty() && !text.is_list) continue;
      OP_LET(Selector selector, Selector::parse(word));
      selectors.push_back(std::move(selector));
    }
  }
  if (selectors.empty()) return fail(Code::usage, "no pattern given");
  return selectors;
}

Status set_field(const Field& field, void* options, const OptionText& text) {
  if (Status status = field.parse(options, text); !status) {
    if (field.choices.empty()) return fail(status.error().code, "{}: {}", field.key, status.error().what);
    const std::string word = join(text.items, ",");
    return fail(Code::usage, "{}: '{}' is not one of {}{}", field.key, word, field.type,
                did_you_mean(word, field.choices));
  }
  return check_range(field, text);
}

}  // namespace

Result<PassBuilder> PassBuilder::start(std::string_view pass, Registry registry) {
  const auto info = std::ranges::find(registry, pass, &PassInfo::name);
  if (info == registry.end()) {
    std::vector<std::string> names;
    for (const PassInfo& known : registry) names.push_back(known.name);
    const std::string hint = did_you_mean(pass, names);
    return fail(Code::usage, "unknown pass '{}'{}", pass, hint.empty() ? "; 'onnxpress passes' lists them" : hint);
  }
  PassBuilder builder;
  builder.item_->info = &*info;
  builder.item_->options = info->make_options();
  return builder;
}

Status PassBuilder::check_key(std::string_view key) {
  const PassInfo& info = *item_->info;
  const std::vector<std::string> keys = option_keys(info);
  if (std::ranges::find(keys, key) == keys.end()) {
    const std::string hint = did_you_mean(key, keys);
    return fail(Code::usage, "pass '{}' has no option '{}'{}", info.name, key,
                hint.empty() ? "; it has " + join(keys, ", ") : hint);
  }
  if (std::ranges::find(seen_, key) != seen_.end()) return fail(Code::usage, "option '{}' is given twice", key);
  seen_.emplace_back(key);
  return {};
}

Status PassBuilder::set(std::string_view key, const OptionText& text) {
  if (key == "only" || key == "skip") {
    auto selectors = parse_patterns(text);
    if (!selectors) return fail(Code::usage, "{}: {}", key, selectors.error().what);
    (key == "only" ? item_->selection.only : item_->selection.skip) = std::move(*selectors);
    return {};
  }
  const auto field = std::ranges::find(item_->info->options, key, &Field::key);
  return set_field(*field, item_->options.get(), text);
}

std::shared_ptr<const Pipeline::Item> PassBuilder::finish() {
  item_->pass = item_->info->make_pass(item_->options);
  return std::move(item_);
}

}  // namespace onnxpress
