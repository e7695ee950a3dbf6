#include "calib/stats_file.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"
#include "base/hash.h"

namespace onnxpress {
namespace {

using nlohmann::json;

constexpr std::string_view kMagic = "OPXSTAT\x01";
constexpr std::size_t kStart = 16;
constexpr std::uint64_t kMaxHeader = std::uint64_t{256} << 20;
constexpr std::uint64_t kMaxCounts = std::uint64_t{16} << 30;
constexpr std::uint32_t kMaxTop = 254;
constexpr const char* kFormat = "onnxpress-statistics";
constexpr std::array<const char*, 2> kSides = {"positive", "negative"};

void put_number(std::string& out, std::uint64_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<char>(value | 128));
  out.push_back(static_cast<char>(value));
}

std::optional<std::uint64_t> get_number(std::string_view bytes, std::size_t& at) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; at < bytes.size() && shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes[at++]);
    if (shift == 63 && byte > 1) return std::nullopt;
    value |= std::uint64_t{byte & 127U} << shift;
    if (byte < 128) return value;
  }
  return std::nullopt;
}

// Appends the counts from the first to the last bin that has any; their place.
json write_side(const std::vector<std::uint64_t>& counts, std::string& payload) {
  const auto used = [](std::uint64_t count) { return count != 0; };
  const auto first = std::ranges::find_if(counts, used);
  const auto last = std::find_if(counts.rbegin(), counts.rend(), used).base();
  for (auto at = first; at < last; ++at) put_number(payload, *at);
  return {{"first", first < last ? first - counts.begin() : 0}, {"bins", first < last ? last - first : 0}};
}

json write_value(const ValueStatistics& value, std::string& payload) {
  const Histogram& histogram = value.histogram;
  json out = {{"min", value.range.min},
              {"max", value.range.max},
              {"finite", value.range.finite},
              {"nan", value.range.nan},
              {"infinite", value.range.infinite},
              {"samples", value.samples},
              {"sum_of_min", value.sum_of_min.digits()},
              {"sum_of_max", value.sum_of_max.digits()}};
  if (histogram.empty()) return out;
  json& counts = out["histogram"] = {{"top", histogram.top()}, {"zeros", histogram.zeros()}};
  for (const auto side : {Histogram::positive, Histogram::negative})
    counts[kSides[side]] = write_side(histogram.side(side), payload);
  return out;
}

// Reads the header; the first thing that is wrong is remembered, and later ones are not looked at.
class Reader {
 public:
  Reader(const json& header, std::string_view payload) : header_(header), payload_(payload) {}

  Result<StatisticsFile> read() {
    StatisticsFile file;
    OP_LET(file.model.structure, text("/model/structure"));
    OP_LET(file.model.content, text("/model/content"));
    OP_LET(const std::string hash, text("/payload/hash"));
    if (hash != hash_hex(std::as_bytes(std::span(payload_)))) return fail(Code::bad_input, "its counts are damaged");
    const auto values = header_.find("values");
    if (values == header_.end() || !values->is_object()) return fail(Code::bad_input, "its header has no values");
    std::uint64_t memory = 0;
    for (const auto& [name, entry] : values->items()) {
      if (entry.is_object() && entry.contains("histogram")) memory += 2 * Histogram::kBins * sizeof(std::uint64_t);
      if (memory > kMaxCounts) return fail(Code::resource, "it holds too many values");
    }
    for (const auto& [name, entry] : values->items()) {
      auto value = read_value(entry);
      if (!value) return rethrow(std::move(value).error(), "value '" + name + "'");
      file.values.emplace(name, std::move(*value));
    }
    if (at_ != payload_.size()) return fail(Code::bad_input, "it has bytes that belong to no value");
    return file;
  }

 private:
  Result<std::string> text(const char* pointer) const {
    const json::json_pointer where(pointer);
    if (!header_.contains(where) || !header_.at(where).is_string())
      return fail(Code::bad_input, "its header has no {}", pointer);
    return header_.at(where).get<std::string>();
  }

  static Result<std::uint64_t> number(const json& from, const char* key, std::uint64_t most) {
    const auto found = from.find(key);
    if (found == from.end() || !found->is_number_unsigned() || found->get<std::uint64_t>() > most)
      return fail(Code::bad_input, "'{}' is missing or out of range", key);
    return found->get<std::uint64_t>();
  }

  static Result<float> real(const json& from, const char* key) {
    const auto found = from.find(key);
    const double value = found != from.end() && found->is_number() ? found->get<double>() : HUGE_VAL;
    if (!(std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max())))
      return fail(Code::bad_input, "'{}' is missing or no finite float", key);
    return static_cast<float>(value);
  }

  static Result<ExactSum> sum(const json& from, const char* key) {
    const auto found = from.find(key);
    ExactSum::Digits digits{};
    if (found == from.end() || !found->is_array() || found->size() != digits.size())
      return fail(Code::bad_input, "'{}' is not {} digits", key, digits.size());
    for (std::size_t i = 0; i < digits.size(); ++i) {
      const json& digit = (*found)[i];
      if (!digit.is_number_unsigned() || digit.get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max())
        return fail(Code::bad_input, "'{}' has a digit out of range", key);
      digits[i] = digit.get<std::uint32_t>();
    }
    return ExactSum::from_digits(digits);
  }

  Result<ValueStatistics> read_value(const json& from) {
    if (!from.is_object()) return fail(Code::bad_input, "not an object");
    constexpr std::uint64_t most = std::uint64_t{1} << 62;
    ValueStatistics value;
    OP_LET(value.range.min, real(from, "min"));
    OP_LET(value.range.max, real(from, "max"));
    OP_LET(value.range.finite, number(from, "finite", most));
    OP_LET(value.range.nan, number(from, "nan", most));
    OP_LET(value.range.infinite, number(from, "infinite", most));
    OP_LET(value.samples, number(from, "samples", most));
    OP_LET(value.sum_of_min, sum(from, "sum_of_min"));
    OP_LET(value.sum_of_max, sum(from, "sum_of_max"));
    if (value.range.min > value.range.max) return fail(Code::bad_input, "min is above max");
    const auto counts = from.find("histogram");
    if (counts == from.end()) return value;
    if (!counts->is_object()) return fail(Code::bad_input, "'histogram' is not an object");
    OP_LET(value.histogram, read_histogram(*counts));
    OP_TRY(check_histogram(value));
    return value;
  }

  Result<Histogram> read_histogram(const json& from) {
    OP_LET(const std::uint64_t top, number(from, "top", kMaxTop));
    OP_LET(const std::uint64_t zeros, number(from, "zeros", std::uint64_t{1} << 62));
    std::array<std::vector<std::uint64_t>, 2> sides;
    for (const std::size_t side : {0UZ, 1UZ}) {
      const auto found = from.find(kSides[side]);
      if (found == from.end() || !found->is_object()) return fail(Code::bad_input, "no counts '{}'", kSides[side]);
      OP_LET(const std::uint64_t first, number(*found, "first", Histogram::kBins));
      OP_LET(const std::uint64_t bins, number(*found, "bins", Histogram::kBins - first));
      if (bins == 0) continue;
      if (bins > payload_.size() - at_) return fail(Code::bad_input, "its counts are cut short");
      sides[side].resize(Histogram::kBins);
      for (std::uint64_t i = first; i < first + bins; ++i) {
        const auto count = get_number(payload_, at_);
        if (!count || *count > std::uint64_t{1} << 48) return fail(Code::bad_input, "a count is not a number");
        sides[side][i] = *count;
      }
    }
    return Histogram::from_parts(static_cast<std::uint32_t>(top), zeros, std::move(sides));
  }

  // The counts must be those of the range: ranges are chosen by both.
  static Status check_histogram(const ValueStatistics& value) {
    const Histogram& histogram = value.histogram;
    if (histogram.count() != value.range.finite) return fail(Code::bad_input, "its counts do not add up");
    for (const auto side : {Histogram::positive, Histogram::negative}) {
      const auto& counts = histogram.side(side);
      const auto last = std::find_if(counts.rbegin(), counts.rend(), [](std::uint64_t n) { return n != 0; }).base();
      if (last == counts.begin()) continue;
      const float extreme = side == Histogram::positive ? value.range.max : -value.range.min;
      const auto bin = static_cast<std::size_t>(last - counts.begin()) - 1;
      if (!(extreme >= histogram.edge(bin)) || !(extreme < histogram.edge(bin + 1)))
        return fail(Code::bad_input, "its counts do not end where its range does");
    }
    return {};
  }

  const json& header_;
  std::string_view payload_;
  std::size_t at_ = 0;
};

void add_text(Hasher& hasher, std::string_view text) {
  hasher.add(text);
  hasher.add(std::string_view("\0", 1));
}

}  // namespace

Result<ModelPrint> model_print(const Model& model) {
  Hasher hasher;
  for (const Graph* graph : model.graphs()) {
    add_text(hasher, "graph");
    for (const auto& names : {graph->inputs(), graph->outputs()})
      for (const std::string& name : names) add_text(hasher, name);
    for (const Node& node : graph->nodes()) {
      add_text(hasher, node.domain());
      add_text(hasher, node.op());
      for (const std::string& name : node.inputs()) add_text(hasher, name);
      add_text(hasher, "=>");
      for (const std::string& name : node.outputs()) add_text(hasher, name);
    }
  }
  ModelPrint print{.structure = hasher.hex(), .content = ""};
  OP_LET(print.content, model.fingerprint());
  return print;
}

std::string statistics_bytes(const StatisticsFile& file) {
  std::string payload;
  json values = json::object();
  for (const auto& [name, value] : file.values) values[name] = write_value(value, payload);
  const json header = {{"format", kFormat},
                       {"model", {{"structure", file.model.structure}, {"content", file.model.content}}},
                       {"payload", {{"bytes", payload.size()}, {"hash", hash_hex(std::as_bytes(std::span(payload)))}}},
                       {"values", std::move(values)}};
  const std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string out(kMagic);
  for (unsigned i = 0; i < 8; ++i) out.push_back(static_cast<char>(std::uint64_t{text.size()} >> (8 * i)));
  return out + text + payload;
}

bool looks_like_statistics(std::string_view bytes) { return bytes.starts_with(kMagic.substr(0, 7)); }

Result<StatisticsFile> parse_statistics(std::string_view bytes, const std::string& name) {
  if (!looks_like_statistics(bytes) || bytes.size() < kStart)
    return fail(Code::bad_input, "{}: not a statistics file", name);
  if (bytes[7] != kMagic[7])
    return fail(Code::bad_input, "{}: statistics of version {}, this onnxpress reads version {}", name,
                static_cast<int>(bytes[7]), static_cast<int>(kMagic[7]));
  std::uint64_t length = 0;
  for (unsigned i = 0; i < 8; ++i) length |= std::uint64_t{static_cast<unsigned char>(bytes[8 + i])} << (8 * i);
  if (length > bytes.size() - kStart || length > kMaxHeader)
    return fail(Code::bad_input, "{}: its header is cut short", name);
  const std::string_view payload = bytes.substr(kStart + length);
  const json header = json::parse(bytes.substr(kStart, length), nullptr, false);
  if (!header.is_object() || header.value("format", json()) != kFormat)
    return fail(Code::bad_input, "{}: its header is not that of statistics", name);
  auto file = Reader(header, payload).read();
  if (!file) return rethrow(std::move(file).error(), name);
  return file;
}

Status write_statistics(const std::filesystem::path& path, const StatisticsFile& file) {
  OP_LET(AtomicFile out, AtomicFile::create(path));
  const std::string bytes = statistics_bytes(file);
  OP_TRY(out.write(std::as_bytes(std::span(bytes))));
  return out.commit();
}

Result<StatisticsFile> read_statistics(const std::filesystem::path& path) {
  OP_LET(const auto file, FileReader::open(path));
  OP_LET(const Bytes bytes, file->read(0, file->size()));
  return parse_statistics({reinterpret_cast<const char*>(bytes.data.data()), bytes.data.size()}, path.string());
}

Status merge_statistics(StatisticsFile& into, const StatisticsFile& shard, const std::string& name) {
  if (into.model != shard.model) return fail(Code::bad_input, "{}: statistics of another model", name);
  for (const auto& [value, statistics] : shard.values)
    if (!into.values.contains(value)) return fail(Code::bad_input, "{}: only it has the value '{}'", name, value);
  for (auto& [value, statistics] : into.values) {
    const auto found = shard.values.find(value);
    if (found == shard.values.end()) return fail(Code::bad_input, "{}: it lacks the value '{}'", name, value);
    if (statistics.histogram.empty() != found->second.histogram.empty() && statistics.range.finite > 0 &&
        found->second.range.finite > 0)
      return fail(Code::bad_input, "{}: no histogram of '{}' in one of the files", name, value);
    statistics.merge(found->second);
  }
  return {};
}

}  // namespace onnxpress
