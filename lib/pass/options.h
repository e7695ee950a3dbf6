// A pass option is spelled once: key, member, help. From it come the pipeline parser, the subcommand's flag, help,
// docs/passes.md, the JSON schema and the canonical printing.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace onnxpress {

// The text of one option as written: `key=bare`, `key="quoted"` or `key=[a,b]`.
struct OptionText {
  std::vector<std::string> items;
  bool is_list = false;
};

// One option of a pass, type-erased over the pass's Options struct.
struct Field {
  std::string key;       // snake_case; the command-line flag is --kebab-case
  std::string type;      // "bool", "int", "float", "text", "list of text", "list of int" or "a|b|c"
  std::string help;
  std::string fallback;  // the default as canonical text; "" when there is none
  std::vector<std::string> choices;  // of an enum
  std::optional<double> min, max;    // inclusive
  std::function<Status(void* options, const OptionText& text)> parse;
  std::function<std::string(const void* options)> print;  // canonical text
};

std::string range_text(const Field& field);  // "from 0 to 1", "at least 1", "at most 8" or ""

// Bounds of a numeric option, inclusive.
struct Range {
  std::optional<double> min, max;
};

Status parse_option(const OptionText& text, bool& out);
Status parse_option(const OptionText& text, std::int64_t& out);
Status parse_option(const OptionText& text, double& out);
Status parse_option(const OptionText& text, std::string& out);
Status parse_option(const OptionText& text, std::vector<std::string>& out);
Status parse_option(const OptionText& text, std::vector<std::int64_t>& out);
Status parse_option(const OptionText& text, std::optional<std::int64_t>& out);
Status parse_option(const OptionText& text, std::optional<double>& out);
std::string print_option(bool value);
std::string print_option(std::int64_t value);
std::string print_option(double value);
std::string print_option(const std::string& value);
std::string print_option(const std::vector<std::string>& value);
std::string print_option(const std::vector<std::int64_t>& value);
std::string print_option(const std::optional<std::int64_t>& value);  // "" when unset
std::string print_option(const std::optional<double>& value);
template <class T>
std::string option_type();  // what Field::type says
template <>
std::string option_type<bool>();
template <>
std::string option_type<std::int64_t>();
template <>
std::string option_type<double>();
template <>
std::string option_type<std::string>();
template <>
std::string option_type<std::vector<std::string>>();
template <>
std::string option_type<std::vector<std::int64_t>>();
template <>
std::string option_type<std::optional<std::int64_t>>();
template <>
std::string option_type<std::optional<double>>();

// Collects the fields of Options, a struct whose member initializers are the defaults.
template <class Options>
class Schema {
 public:
  template <class T>
  Schema& add(std::string key, T Options::* member, std::string help, Range range = {}) {
    Field field = start(std::move(key), option_type<T>(), std::move(help));
    field.min = range.min;
    field.max = range.max;
    field.print = [member](const void* options) { return print_option(static_cast<const Options*>(options)->*member); };
    field.parse = [member](void* options, const OptionText& text) {
      return parse_option(text, static_cast<Options*>(options)->*member);
    };
    return finish(std::move(field));
  }

  // An enum, spelled by its choices.
  template <class E>
    requires std::is_enum_v<E>
  Schema& add(std::string key, E Options::* member, std::vector<std::pair<std::string, E>> choices, std::string help) {
    Field field = start(std::move(key), "", std::move(help));
    for (const auto& [name, value] : choices) {
      field.type += (field.type.empty() ? "" : "|") + name;
      field.choices.push_back(name);
    }
    field.print = [member, choices](const void* options) {
      for (const auto& [name, value] : choices)
        if (value == static_cast<const Options*>(options)->*member) return name;
      return std::string();
    };
    field.parse = [member, choices](void* options, const OptionText& text) -> Status {
      for (const auto& [name, value] : choices) {
        if (text.is_list || text.items.front() != name) continue;
        static_cast<Options*>(options)->*member = value;
        return {};
      }
      return fail(Code::usage, "not one of its choices");
    };
    return finish(std::move(field));
  }

  // The options of a struct that several passes hold as a member: Part::describe(Schema<Part>&) spells them.
  template <class Part>
  Schema& add_part(Part Options::* part) {
    Schema<Part> schema;
    Part::describe(schema);
    for (Field& field : schema.take()) {
      field.print = [part, print = field.print](const void* options) {
        return print(&(static_cast<const Options*>(options)->*part));
      };
      field.parse = [part, parse = field.parse](void* options, const OptionText& text) {
        return parse(&(static_cast<Options*>(options)->*part), text);
      };
      fields_.push_back(std::move(field));
    }
    return *this;
  }

  std::vector<Field> take() { return std::move(fields_); }

 private:
  static Field start(std::string key, std::string type, std::string help) {
    Field field;
    field.key = std::move(key);
    field.type = std::move(type);
    field.help = std::move(help);
    return field;
  }
  Schema& finish(Field field) {
    const Options defaults{};
    field.fallback = field.print(&defaults);
    fields_.push_back(std::move(field));
    return *this;
  }
  std::vector<Field> fields_;
};

}  // namespace onnxpress
