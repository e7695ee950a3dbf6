#include "pass/docs.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "pass/pipeline.h"

namespace onnxpress {
namespace {

constexpr std::size_t kWidth = 100;  // of terminal text
constexpr std::string_view kOnlyHelp =
    "touch only the nodes that match one of these patterns: a name, a glob, re:REGEX or op:TYPE";
constexpr std::string_view kSkipHelp = "never touch the nodes that match one of these patterns; wins over only";

// Lines broken at spaces where they are too long; what a line is indented by stays, for its continuations too.
std::string wrapped(std::string_view text, std::size_t indent) {
  std::string out;
  for (const std::string& line : split(text, '\n')) {
    const std::size_t inner = std::min(line.find_first_not_of(' '), line.size());
    const std::string margin(indent + inner, ' ');
    std::string current;
    for (const std::string& word : split(std::string_view(line).substr(inner), ' ')) {
      const bool full = !current.empty() && margin.size() + current.size() + 1 + word.size() > kWidth;
      if (full) out += margin + current + "\n";
      current = full || current.empty() ? word : current + " " + word;
    }
    out += current.empty() ? "\n" : margin + current + "\n";
  }
  return out;
}

std::vector<std::string> traits(const PassInfo& info) {
  std::vector<std::string> list = {info.lossy ? "lossy" : "lossless"};
  if (info.needs_data) list.emplace_back("needs --data");
  return list;
}

// "0.5; from 0 to 1"
std::string default_and_range(const Field& field) {
  std::vector<std::string> parts;
  if (!field.fallback.empty()) parts.push_back("default " + field.fallback);
  if (const std::string range = range_text(field); !range.empty()) parts.push_back(range);
  return join(parts, "; ");
}

std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::string code_cell(std::string_view text) { return text.empty() ? "" : "`" + cell(text) + "`"; }

nlohmann::ordered_json json_number(const std::string& text, bool whole) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  if (whole) return static_cast<std::int64_t>(value);
  return value;
}

nlohmann::ordered_json item_schema(std::string_view type) {
  return {{"type", type == "bool" ? "boolean" : type == "int" ? "integer" : type == "float" ? "number" : "string"}};
}

nlohmann::ordered_json json_default(const Field& field) {
  if (field.type == "bool") return field.fallback == "true";
  const auto value = parse_value(field.fallback);
  if (!value) return nullptr;
  const bool whole = field.type.ends_with("int"), number = whole || field.type == "float";
  if (!value->is_list && !number) return value->items.front();
  if (!value->is_list) return json_number(value->items.front(), whole);
  auto list = nlohmann::ordered_json::array();
  for (const std::string& item : value->items)
    list.push_back(number ? json_number(item, whole) : nlohmann::ordered_json(item));
  return list;
}

nlohmann::ordered_json field_schema(const Field& field) {
  constexpr std::string_view list_prefix = "list of ";
  const bool is_list = field.type.starts_with(list_prefix);
  nlohmann::ordered_json item =
      item_schema(is_list ? std::string_view(field.type).substr(list_prefix.size()) : std::string_view(field.type));
  if (!field.choices.empty()) item["enum"] = field.choices;
  if (field.min) item["minimum"] = *field.min;
  if (field.max) item["maximum"] = *field.max;
  nlohmann::ordered_json schema = is_list ? nlohmann::ordered_json{{"type", "array"}, {"items", item}} : item;
  schema["description"] = field.help;
  if (!field.fallback.empty()) schema["default"] = json_default(field);
  return schema;
}

nlohmann::ordered_json patterns_schema(std::string_view help) {
  return {{"type", "array"}, {"items", {{"type", "string"}}}, {"description", help}};
}

nlohmann::ordered_json pass_schema(const PassInfo& info) {
  nlohmann::ordered_json options = nlohmann::ordered_json::object();
  for (const Field& field : info.options) options[field.key] = field_schema(field);
  options["only"] = patterns_schema(kOnlyHelp);
  options["skip"] = patterns_schema(kSkipHelp);
  return {{"type", "object"},        {"title", info.summary},         {"description", info.description},
          {"example", info.example}, {"references", info.references}, {"idempotent", info.idempotent},
          {"lossy", info.lossy},     {"needs_data", info.needs_data}, {"additionalProperties", false},
          {"properties", options}};
}

}  // namespace

std::string list_passes(Registry registry) {
  std::size_t width = 0;
  for (const PassInfo& info : registry) width = std::max(width, info.name.size());
  for (const Preset& preset : all_presets()) width = std::max(width, preset.name.size() + 1);
  std::string out = "Passes\n";
  for (const PassInfo& info : registry) out += fmt::format("  {:<{}}  {}\n", info.name, width, info.summary);
  out += "\nPresets\n";
  for (const Preset& preset : all_presets())
    out += fmt::format("  {:<{}}  {}\n", "@" + preset.name, width, preset.summary);
  return out;
}

std::string describe_pass_text(const PassInfo& info) {
  std::string out = fmt::format("{}: {}\n({})\n\n", info.name, info.summary, join(traits(info), ", "));
  out += wrapped(info.description, 0);
  out += "\nOptions\n";
  const auto option = [&](std::string_view key, std::string_view type, const std::string& limits,
                          std::string_view help) {
    out += fmt::format("  {}=<{}>{}\n", key, type, limits.empty() ? "" : "  (" + limits + ")");
    out += wrapped(help, 6);
  };
  for (const Field& field : info.options) option(field.key, field.type, default_and_range(field), field.help);
  option("only", "patterns", "", kOnlyHelp);
  option("skip", "patterns", "", kSkipHelp);
  if (!info.example.empty()) out += "\nExample\n  onnxpress compress in.onnx -o out.onnx -p '" + info.example + "'\n";
  if (!info.references.empty()) out += "\nReferences\n";
  for (const std::string& reference : info.references) out += wrapped(reference, 2);
  return out;
}

std::string describe_pass_markdown(const PassInfo& info) {
  std::string out = fmt::format("## {}\n\n{}. *{}*\n\n", info.name, info.summary, join(traits(info), ", "));
  if (!info.description.empty()) out += std::string(trim(info.description)) + "\n\n";
  if (!info.options.empty()) {
    out += "| option | type | default | range | meaning |\n|---|---|---|---|---|\n";
    for (const Field& field : info.options)
      out += fmt::format("| `{}` | {} | {} | {} | {} |\n", field.key, code_cell(field.type), code_cell(field.fallback),
                         range_text(field), cell(field.help));
    out += "\n";
  }
  if (!info.example.empty()) out += "```sh\nonnxpress compress in.onnx -o out.onnx -p '" + info.example + "'\n```\n\n";
  for (const std::string& reference : info.references) out += "- " + reference + "\n";
  if (!info.references.empty()) out += "\n";
  return out;
}

std::string passes_markdown(Registry registry) {
  std::string out =
      "# Passes\n\n"
      "<!-- Generated by `onnxpress passes --format md` from the registry; a test compares them. -->\n\n"
      "A pipeline is a list of passes: `name{key=value key=value},name,...`. Each pass is also a subcommand, with "
      "`--key value` for `key=value`.\n\n"
      "Every pass takes\n\n";
  out += fmt::format("- `only=`: {}\n- `skip=`: {}\n\n", kOnlyHelp, kSkipHelp);
  out +=
      "`fixpoint(...)` repeats a pipeline until nothing changes (at most `fixpoint{max=N}(...)` times, 10 by default), "
      "and `on{op:Conv /layer1/*}(...)` confines one to the nodes that match.\n\n"
      "| pass | what it does | |\n|---|---|---|\n";
  for (const PassInfo& info : registry)
    out += fmt::format("| [{0}](#{0}) | {1} | {2} |\n", info.name, cell(info.summary), join(traits(info), ", "));
  out += "\n| preset | what it does | pipeline |\n|---|---|---|\n";
  for (const Preset& preset : all_presets())
    out += fmt::format("| `@{}` | {} | `{}` |\n", preset.name, cell(preset.summary), preset.pipeline);
  out += "\n";
  for (const PassInfo& info : registry) out += describe_pass_markdown(info);
  while (out.ends_with("\n\n")) out.pop_back();
  return out;
}

std::string passes_json_schema(Registry registry) {
  nlohmann::ordered_json passes = nlohmann::ordered_json::object();
  for (const PassInfo& info : registry) passes[info.name] = pass_schema(info);
  const nlohmann::ordered_json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                                         {"title", "onnxpress passes and their options"},
                                         {"type", "object"},
                                         {"additionalProperties", false},
                                         {"properties", passes}};
  return schema.dump(2) + "\n";
}

}  // namespace onnxpress
