#include "pass/options.h"

#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>

#include "base/text.h"
#include "pass/lexer.h"

namespace onnxpress {
namespace {

// Written form of a value, for messages.
std::string shown(const OptionText& text) {
  return text.is_list ? "[" + join(text.items, ",") + "]" : text.items.front();
}

Result<std::string_view> scalar(const OptionText& text, std::string_view wanted) {
  if (text.is_list) return fail(Code::usage, "expected {}, not the list {}", wanted, shown(text));
  return text.items.front();
}

template <class T>
Result<T> parse_number(std::string_view text, std::string_view wanted) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  bool valid = error == std::errc() && stop == end;
  if constexpr (std::is_floating_point_v<T>) valid = valid && std::isfinite(value);
  if (!valid) return fail(Code::usage, "expected {}, got '{}'", wanted, text);
  return value;
}

constexpr std::string_view kWhole = "a whole number";
constexpr std::string_view kNumber = "a number";

template <class T>
std::string print_list(const std::vector<T>& values) {
  std::vector<std::string> items;
  for (const T& value : values) items.push_back(print_option(value));
  return "[" + join(items, ",") + "]";
}

}  // namespace

std::string range_text(const Field& field) {
  if (field.min && field.max) return fmt::format("from {} to {}", number_text(*field.min), number_text(*field.max));
  if (field.min) return "at least " + number_text(*field.min);
  return field.max ? "at most " + number_text(*field.max) : "";
}

Status parse_option(const OptionText& text, bool& out) {
  OP_LET(const std::string_view word, scalar(text, "true or false"));
  if (word != "true" && word != "false") return fail(Code::usage, "expected true or false, got '{}'", word);
  out = word == "true";
  return {};
}

Status parse_option(const OptionText& text, std::int64_t& out) {
  OP_LET(const std::string_view word, scalar(text, kWhole));
  OP_LET(out, parse_number<std::int64_t>(word, kWhole));
  return {};
}

Status parse_option(const OptionText& text, double& out) {
  OP_LET(const std::string_view word, scalar(text, kNumber));
  OP_LET(out, parse_number<double>(word, kNumber));
  return {};
}

Status parse_option(const OptionText& text, std::string& out) {
  OP_LET(out, scalar(text, "one text"));
  return {};
}

Status parse_option(const OptionText& text, std::vector<std::string>& out) {
  out = text.items;
  return {};
}

Status parse_option(const OptionText& text, std::vector<std::int64_t>& out) {
  std::vector<std::int64_t> values;
  for (const std::string& item : text.items) {
    OP_LET(const std::int64_t value, parse_number<std::int64_t>(item, kWhole));
    values.push_back(value);
  }
  out = std::move(values);
  return {};
}

Status parse_option(const OptionText& text, std::optional<std::int64_t>& out) {
  return parse_option(text, out.emplace());
}

Status parse_option(const OptionText& text, std::optional<double>& out) { return parse_option(text, out.emplace()); }

std::string print_option(bool value) { return value ? "true" : "false"; }
std::string print_option(std::int64_t value) { return std::to_string(value); }
std::string print_option(double value) { return number_text(value); }
std::string print_option(const std::string& value) { return quote_if_needed(value); }
std::string print_option(const std::vector<std::string>& value) { return print_list(value); }
std::string print_option(const std::vector<std::int64_t>& value) { return print_list(value); }
std::string print_option(const std::optional<std::int64_t>& value) { return value ? print_option(*value) : ""; }
std::string print_option(const std::optional<double>& value) { return value ? print_option(*value) : ""; }

template <>
std::string option_type<bool>() {
  return "bool";
}
template <>
std::string option_type<std::int64_t>() {
  return "int";
}
template <>
std::string option_type<double>() {
  return "float";
}
template <>
std::string option_type<std::string>() {
  return "text";
}
template <>
std::string option_type<std::vector<std::string>>() {
  return "list of text";
}
template <>
std::string option_type<std::vector<std::int64_t>>() {
  return "list of int";
}
template <>
std::string option_type<std::optional<std::int64_t>>() {
  return "int";
}
template <>
std::string option_type<std::optional<double>>() {
  return "float";
}

}  // namespace onnxpress
