#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"
#include "quant/sensitivity.h"

namespace onnxpress {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kKind = "onnxpress-sensitivity";
constexpr int kVersion = 1;

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// sqnr_db is for readers; noise is what is read back.
Json effect_json(const Effect& effect) {
  Json json = {{"noise", finite(effect.error.noise)}, {"sqnr_db", finite(effect.error.sqnr_db())}};
  if (effect.error.kl) json["kl"] = finite(*effect.error.kl);
  if (effect.error.agreement) json["agreement"] = finite(*effect.error.agreement);
  json["bytes"] = effect.bytes;
  return json;
}

Json formats_json(const std::map<NodeFormat, Effect>& formats) {
  Json json = Json::object();
  for (const auto& [format, effect] : formats) json[std::string(node_format_name(format))] = effect_json(effect);
  return json;
}

// Reads what may come from anywhere. The first thing that is wrong stops it; `where` names the place.
class Reader {
 public:
  Result<SensitivityTable> table(const Json& json) {
    if (!json.is_object() || json.value("kind", Json()) != Json(kKind))
      return fail(Code::bad_input, "this is no sensitivity table of onnxpress");
    if (json.value("version", Json()) != Json(kVersion))
      return fail(Code::bad_input, "a sensitivity table of version {}, this program reads version {}",
                  json.value("version", Json()).dump().substr(0, 20), kVersion);
    SensitivityTable table;
    OP_LET(table.key.model, text(json, "model"));
    OP_LET(table.key.data, text(json, "data"));
    OP_LET(table.key.settings, text(json, "settings"));
    OP_LET(table.samples, text(json, "samples"));
    OP_LET(const Json bytes, member(json, "float_bytes"));
    if (!bytes.is_number_unsigned()) return wrong("float_bytes");
    table.float_bytes = bytes.get<std::uint64_t>();
    OP_LET(const Json complete, member(json, "complete"));
    if (!complete.is_boolean()) return wrong("complete");
    table.complete = complete.get<bool>();
    OP_LET(table.all, formats(json, "all"));
    OP_LET(const Json nodes, list(json, "nodes"));
    std::set<std::string> seen;
    for (const Json& each : nodes) {
      OP_LET(NodeSensitivity row, node(each));
      for (const std::string& label : row.labels())
        if (!seen.insert(label).second)
          return fail(Code::bad_input, "sensitivity table: node '{}' is there twice", escape_control(label));
      table.nodes.push_back(std::move(row));
    }
    OP_LET(const Json skips, list(json, "skips"));
    for (const Json& each : skips) {
      SkipSet set;
      OP_LET(set.nodes, texts(each, "nodes"));
      OP_LET(const Json result, member(each, "effect"));
      OP_LET(set.effect, effect(result));
      table.skips.push_back(std::move(set));
    }
    return table;
  }

 private:
  static std::unexpected<Error> wrong(std::string_view key) {
    return fail(Code::bad_input, "sensitivity table: '{}' is missing or not what it should be", key);
  }
  static Result<Json> member(const Json& json, const char* key) {
    if (!json.is_object() || !json.contains(key)) return wrong(key);
    return json[key];
  }
  static Result<std::string> text(const Json& json, const char* key) {
    OP_LET(const Json value, member(json, key));
    if (!value.is_string()) return wrong(key);
    return value.get<std::string>();
  }
  static Result<Json> list(const Json& json, const char* key) {
    OP_LET(Json value, member(json, key));
    if (!value.is_array()) return wrong(key);
    return value;
  }
  static Result<std::vector<std::string>> texts(const Json& json, const char* key) {
    OP_LET(const Json values, list(json, key));
    std::vector<std::string> out;
    for (const Json& value : values) {
      if (!value.is_string()) return wrong(key);
      out.push_back(value.get<std::string>());
    }
    return out;
  }
  // At least 0; null is infinite.
  static Result<double> amount(const Json& json, const char* key) {
    OP_LET(const Json value, member(json, key));
    if (value.is_null()) return std::numeric_limits<double>::infinity();
    if (!value.is_number()) return wrong(key);
    const double number = value.get<double>();
    if (!std::isfinite(number) || number < 0) return wrong(key);
    return number;
  }
  static Result<Effect> effect(const Json& json) {
    Effect out;
    OP_LET(out.error.noise, amount(json, "noise"));
    if (json.contains("kl")) {
      OP_LET(out.error.kl, amount(json, "kl"));
    }
    if (json.contains("agreement")) {
      OP_LET(out.error.agreement, amount(json, "agreement"));
      if (*out.error.agreement > 100) return wrong("agreement");
    }
    OP_LET(const Json bytes, member(json, "bytes"));
    if (!bytes.is_number_integer()) return wrong("bytes");
    out.bytes = bytes.get<std::int64_t>();
    constexpr std::int64_t kMost = std::int64_t{1} << 48;  // sums of them stay far from overflow
    if (out.bytes > kMost || out.bytes < -kMost) return wrong("bytes");
    return out;
  }
  static Result<std::map<NodeFormat, Effect>> formats(const Json& json, const char* key) {
    OP_LET(const Json values, member(json, key));
    if (!values.is_object()) return wrong(key);
    std::map<NodeFormat, Effect> out;
    for (const auto& [name, value] : values.items()) {
      const auto format = node_format_from(name);
      if (!format || *format == NodeFormat::float32) return wrong(key);
      OP_LET(out[*format], effect(value));
    }
    return out;
  }
  static Result<NodeSensitivity> node(const Json& json) {
    NodeSensitivity row;
    OP_LET(row.node, text(json, "node"));
    OP_LET(row.op, text(json, "op"));
    OP_LET(row.with, texts(json, "with"));
    OP_LET(const Json kernel, member(json, "kernel"));
    if (!kernel.is_boolean()) return wrong("kernel");
    row.kernel = kernel.get<bool>();
    OP_LET(row.alone, formats(json, "alone"));
    OP_LET(const Json rest, member(json, "rest"));
    if (!rest.is_null()) {
      OP_LET(row.rest, effect(rest));
    }
    return row;
  }
};

}  // namespace

std::string sensitivity_json(const SensitivityTable& table) {
  Json json = {{"kind", kKind},
               {"version", kVersion},
               {"model", table.key.model},
               {"data", table.key.data},
               {"settings", table.key.settings},
               {"samples", table.samples},
               {"float_bytes", table.float_bytes},
               {"complete", table.complete},
               {"all", formats_json(table.all)},
               {"nodes", Json::array()},
               {"skips", Json::array()}};
  for (const NodeSensitivity& row : table.nodes)
    json["nodes"].push_back({{"node", row.node},
                             {"op", row.op},
                             {"with", row.with},
                             {"kernel", row.kernel},
                             {"alone", formats_json(row.alone)},
                             {"rest", row.rest ? effect_json(*row.rest) : Json(nullptr)}});
  for (const SkipSet& set : table.skips)
    json["skips"].push_back({{"nodes", set.nodes}, {"effect", effect_json(set.effect)}});
  // Names from a file need not be UTF-8, JSON has to be.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<SensitivityTable> parse_sensitivity(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return fail(Code::bad_input, "this is no JSON");
  return Reader().table(json);
}

}  // namespace onnxpress
