#include "calib/ort_tables.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/text.h"
#include "num/quantize.h"

namespace onnxpress {
namespace {

using nlohmann::json;
using Entry = std::optional<ValueRange>;  // nothing: no range is said

constexpr std::pair<const char*, DType> kQuantTypes[] = {{"QUInt8", DType::u8},   {"QInt8", DType::i8},
                                                         {"QUInt16", DType::u16}, {"QInt16", DType::i16},
                                                         {"QUInt4", DType::u4},   {"QInt4", DType::i4}};

std::optional<DType> quant_type(std::string_view text) {
  constexpr std::string_view prefix = "QuantType.";
  if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
  for (const auto& [name, dtype] : kQuantTypes)
    if (text == name) return dtype;
  return std::nullopt;
}

// A number, the text of one, a list of one, or an array {"data": …} of one.
std::optional<double> number_of(const json& from) {
  if (from.is_number()) return from.get<double>();
  if (from.is_array() && from.size() == 1) return number_of(from.front());
  if (from.is_object() && from.contains("data")) return number_of(from.at("data"));
  if (!from.is_string()) return std::nullopt;
  std::string_view text = trim(from.get_ref<const std::string&>());
  if (text.starts_with('[') && text.ends_with(']')) text = trim(text.substr(1, text.size() - 2));
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<Entry> range_between(const json& low, const json& high) {
  const auto min = number_of(low), max = number_of(high);
  constexpr double most = std::numeric_limits<float>::max();
  if (!min || !max || !(std::abs(*min) <= most) || !(std::abs(*max) <= most) || *min > *max)
    return fail(Code::bad_input, "its ends are not two finite numbers, the lower first");
  return ValueRange{std::min(static_cast<float>(*min), 0.0F), std::max(static_cast<float>(*max), 0.0F), 1, 0, 0};
}

// The range whose codes have these parameters. Rounding its ends to float can move the scale by its last bit, so the
// longer end gives way by a few of its own.
Result<Entry> range_of_codes(AffineParams params, DType dtype) {
  const CodeRange codes = code_range(dtype, false);
  const double scale = params.scale;
  const auto low = static_cast<float>((codes.min - params.zero_point) * scale);
  const auto high = static_cast<float>((codes.max - params.zero_point) * scale);
  OP_LET(Entry range, range_between(low, high));
  for (const float toward : {HUGE_VALF, -HUGE_VALF}) {
    Entry moved = range;
    float& end = high > -low ? moved->max : moved->min;
    for (int i = 0; i < 4 && std::isfinite(end); ++i, end = std::nextafter(end, toward))
      if (choose_affine(moved->min, moved->max, dtype, false) == params) return moved;
  }
  return range;
}

Result<Entry> read_override(const json& from) {
  if (from.contains("axis")) return Entry();
  if (from.contains("scale") != from.contains("zero_point"))
    return fail(Code::bad_input, "'scale' and 'zero_point' go together");
  if (from.contains("rmin") != from.contains("rmax")) return fail(Code::bad_input, "'rmin' and 'rmax' go together");
  if (from.contains("scale")) {
    DType dtype = DType::u8;
    if (const auto type = from.find("quant_type"); type != from.end()) {
      const auto known = type->is_string() ? quant_type(type->get<std::string>()) : std::nullopt;
      if (!known) return fail(Code::bad_input, "its quant_type {} is not an integer type", type->dump());
      dtype = *known;
    }
    const auto scale = number_of(from.at("scale")), zero_point = number_of(from.at("zero_point"));
    const CodeRange codes = code_range(dtype, false);
    if (!scale || !(*scale > 0) || !zero_point || !(*zero_point >= codes.min) || !(*zero_point <= codes.max))
      return fail(Code::bad_input, "its scale or zero point is not possible");
    return range_of_codes({static_cast<float>(*scale), static_cast<std::int32_t>(*zero_point)}, dtype);
  }
  if (from.contains("rmin")) {
    OP_LET(Entry range, range_between(from.at("rmin"), from.at("rmax")));
    if (from.value("symmetric", json(false)) == true) {
      range->max = std::max(-range->min, range->max);
      range->min = -range->max;
    }
    return range;
  }
  return Entry();
}

Result<Entry> read_entry(const json& from) {
  if (from.is_object() && from.contains("lowest") && from.contains("highest"))
    return range_between(from.at("lowest"), from.at("highest"));
  if (from.is_array() && !from.empty() && from.front().is_object()) return read_override(from.front());
  if (from.is_array() && from.size() >= 2 && number_of(from[0]) && number_of(from[1]))
    return range_between(from[0], from[1]);
  if (from.is_array() && from.empty()) return Entry();
  return fail(Code::bad_input, "neither a range nor a list of overrides");
}

// As the runtime writes a number of numpy.
json array_of(float value) { return {{"data", value}, {"dtype", "float32"}, {"CLS", "numpy.array"}}; }

}  // namespace

Result<RangeTable> parse_ort_ranges(std::string_view text, const std::string& name) {
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail(Code::bad_input, "{}: neither statistics nor a JSON object of ranges", name);
  const bool wrapped = parsed.value("CLS", json()) == "TensorsData";
  if (wrapped && !(parsed.contains("data") && parsed.at("data").is_object()))
    return fail(Code::bad_input, "{}: TensorsData without data", name);
  RangeTable ranges;
  for (const auto& [value, entry] : (wrapped ? parsed.at("data") : parsed).items()) {
    auto range = read_entry(entry);
    if (!range) return rethrow(std::move(range).error().in("'" + value + "'"), name);
    if (*range) ranges.emplace(value, **range);
  }
  return ranges;
}

std::string ort_ranges_text(const RangeTable& ranges, OrtForm form, DType dtype, bool symmetric) {
  json values = json::object();
  for (const auto& [name, range] : ranges) {
    if (range.empty()) continue;
    if (form == OrtForm::calibration) {
      values[name] = {{"lowest", array_of(range.min)}, {"highest", array_of(range.max)}, {"CLS", "TensorData"}};
      continue;
    }
    const AffineParams params = choose_affine(range.min, range.max, dtype, symmetric);
    json entry = {{"scale", params.scale}, {"zero_point", params.zero_point}};
    for (const auto& [type, code] : kQuantTypes)
      if (code == dtype && dtype != DType::u8) entry["quant_type"] = type;
    values[name] = json::array({std::move(entry)});
  }
  if (form == OrtForm::calibration)
    values = {{"CLS", "TensorsData"},
              {"data", std::move(values)},
              {"calibration_method", {{"CLS", "CalibrationMethod"}, {"value", "CalibrationMethod.MinMax"}}}};
  return values.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace onnxpress
