// The part of JSON Schema that docs/report.schema.json uses: type, properties, required, items, additionalProperties
// and enum. Any other keyword but the descriptive ones is a violation itself, so that none goes unchecked.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace onnxpress::testing {

inline bool is_of_type(const nlohmann::json& value, const std::string& type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  return type == "object" && value.is_object();
}

// "" when `value` is valid, else what is wrong and where.
inline std::string schema_violation(const nlohmann::json& schema, const nlohmann::json& value,
                                    const std::string& where = "report") {
  static const std::set<std::string> known = {"$schema",    "title",    "description",          "type", "enum",
                                              "properties", "required", "additionalProperties", "items"};
  for (const auto& [key, ignored] : schema.items())
    if (!known.contains(key)) return where + ": the schema uses " + key;
  const auto types = schema.at("type").is_array() ? schema.at("type") : nlohmann::json::array({schema.at("type")});
  if (std::ranges::none_of(types,
                           [&](const auto& type) { return is_of_type(value, type.template get<std::string>()); }))
    return where + ": not of type " + types.dump();
  if (schema.contains("enum") && std::ranges::find(schema["enum"], value) == schema["enum"].end())
    return where + ": " + value.dump() + " is not among " + schema["enum"].dump();
  if (value.is_array())
    for (std::size_t i = 0; i < value.size(); ++i)
      if (auto wrong = schema_violation(schema.at("items"), value[i], where + "[" + std::to_string(i) + "]");
          !wrong.empty())
        return wrong;
  if (!value.is_object()) return "";
  for (const auto& key : schema.value("required", nlohmann::json::array()))
    if (!value.contains(key.get<std::string>())) return where + ": " + key.get<std::string>() + " is missing";
  const auto properties = schema.value("properties", nlohmann::json::object());
  for (const auto& [key, member] : value.items()) {
    const nlohmann::json* rule = properties.contains(key) ? &properties[key] : nullptr;
    if (rule == nullptr && schema.contains("additionalProperties")) {
      if (schema["additionalProperties"] == false) return where + ": " + key + " is not in the schema";
      rule = &schema["additionalProperties"];
    }
    if (rule == nullptr) continue;
    if (auto wrong = schema_violation(*rule, member, where + "." + key); !wrong.empty()) return wrong;
  }
  return "";
}

}  // namespace onnxpress::testing
