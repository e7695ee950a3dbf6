#include "calib/stats_file.h"

#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "base/file.h"
#include "base/hash.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

ValueStatistics of(std::size_t samples, unsigned seed, float offset = 0) {
  StatisticsAccumulator accumulator(true);
  for (std::size_t i = 0; i < samples; ++i) {
    auto values = random_floats(500, seed + static_cast<unsigned>(i));
    for (float& value : values) value += offset;
    accumulator.merge(accumulator.reduce(Tensor::of_floats({500}, values).view()));
  }
  return accumulator.take();
}

StatisticsFile example(unsigned seed = 0, std::size_t samples = 3) {
  StatisticsFile file;
  file.model = {"structure", "content"};
  file.values = {{"a", of(samples, seed)}, {"b \"quoted\"", of(samples, seed + 50, 10)}, {"never", {}}};
  return file;
}

Error error_of(std::string_view bytes) {
  const auto file = parse_statistics(bytes, "f");
  REQUIRE_FALSE(file);
  INFO(file.error().text());
  CHECK(file.error().text().starts_with("f: "));
  return file.error();
}

// The bytes with `from` in the header replaced, its length adjusted, and the counts' hash left as it is.
std::string with_header(const std::string& bytes, std::string_view from, std::string_view to) {
  std::string out = bytes;
  const auto at = out.find(from);
  REQUIRE(at != std::string::npos);
  out.replace(at, from.size(), to);
  std::uint64_t length = 0;
  for (unsigned i = 0; i < 8; ++i) length |= std::uint64_t{static_cast<unsigned char>(bytes[8 + i])} << (8 * i);
  length += to.size() - from.size();
  for (unsigned i = 0; i < 8; ++i) out[8 + i] = static_cast<char>(length >> (8 * i));
  return out;
}

}  // namespace

TEST_CASE("statistics survive a file") {
  const TempDir folder;
  const StatisticsFile file = example();
  REQUIRE(write_statistics(folder.path("a"), file));
  const auto back = read_statistics(folder.path("a"));
  REQUIRE(back);
  CHECK(*back == file);
  CHECK(statistics_bytes(*back) == statistics_bytes(file));
  CHECK(looks_like_statistics(statistics_bytes(file)));
  CHECK_FALSE(looks_like_statistics("{}"));
  CHECK(read_statistics(folder.path("b")).error().code == Code::io);
}

TEST_CASE("shards merge to the bytes of one run") {
  StatisticsFile merged = example(0, 2);
  StatisticsFile whole = example(0, 5);
  StatisticsFile rest = whole;
  rest.values = {{"a", of(3, 2)}, {"b \"quoted\"", of(3, 52, 10)}, {"never", {}}};
  REQUIRE(merge_statistics(merged, rest, "rest"));
  CHECK(statistics_bytes(merged) == statistics_bytes(whole));
}

TEST_CASE("shards of something else are refused") {
  StatisticsFile file = example();
  StatisticsFile other = example();
  other.model.content = "trained on";
  CHECK(merge_statistics(file, other, "o").error().code == Code::bad_input);
  other = example();
  other.values.erase("a");
  CHECK(merge_statistics(file, other, "o").error().text().contains("'a'"));
  other = example();
  other.values["c"] = {};
  CHECK(merge_statistics(file, other, "o").error().text().contains("'c'"));
}

TEST_CASE("what is no statistics file is refused with a reason") {
  const std::string good = statistics_bytes(example());
  CHECK(error_of("").code == Code::bad_input);
  CHECK(error_of("{}").code == Code::bad_input);
  CHECK(error_of(good.substr(0, 12)).code == Code::bad_input);
  CHECK(error_of(good.substr(0, 200)).text().contains("cut short"));
  CHECK(error_of(good.substr(0, good.size() - 1)).text().contains("damaged"));
  CHECK(error_of(good + "x").text().contains("damaged"));
  std::string newer = good;
  newer[7] = 2;
  CHECK(error_of(newer).text().contains("version 2"));
  std::string flipped = good;
  flipped.back() = static_cast<char>(flipped.back() ^ 1);
  CHECK(error_of(flipped).text().contains("damaged"));
  for (std::size_t i = 8; i < 16; ++i) {
    std::string length = good;
    length[i] = static_cast<char>(0xff);
    error_of(length);
  }
}

TEST_CASE("a header that lies is refused") {
  const std::string good = statistics_bytes(example());
  const auto lie = [&](std::string_view from, std::string_view to) {
    INFO(from << " -> " << to);
    return error_of(with_header(good, from, to));
  };
  lie("\"format\":\"onnxpress-statistics\"", "\"format\":\"other\"");
  lie("\"values\":{", "\"values\":[1],\"more\":{");
  lie("\"structure\":\"structure\"", "\"structure\":7");
  lie("\"finite\":1500", "\"finite\":1499");
  lie("\"finite\":1500", "\"finite\":-1");
  lie("\"finite\":1500", "\"finite\":1e300");
  lie("\"samples\":3", "\"samples\":\"3\"");
  lie("\"zeros\":", "\"zeros\":9223372036854775807,\"z\":");
  lie("\"top\":", "\"top\":255,\"t\":");
  lie("\"top\":", "\"top\":1,\"t\":");
  lie("\"bins\":", "\"bins\":99999999999,\"b\":");
  lie("\"first\":", "\"first\":12289,\"f\":");
  lie("\"max\":", "\"max\":1e999,\"m\":");
  lie("\"max\":", "\"max\":-1000,\"m\":");
  lie("\"sum_of_min\":[", "\"sum_of_min\":[1,");
  lie("\"positive\":{", "\"positive\":3,\"p\":{");
}

TEST_CASE("no byte of the file can do harm") {
  const std::string good = statistics_bytes({.model = {"s", "c"}, .values = {{"a", of(1, 7)}}});
  for (std::size_t i = 0; i < good.size(); i += 3) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x11);
    const auto file = parse_statistics(bad, "f");  // often still a file: a name or a digit of a sum has changed
    if (!file) CHECK(file.error().code == Code::bad_input);
  }
}

TEST_CASE("a model's print tells structure and weights apart") {
  const auto print = [](std::string_view text) { return *model_print(parse(text)); };
  const ModelPrint one = print(HEAD "g (float[1] x) => (float[1] y) <float[1] w = {1}> { y = Add(x, w) }");
  const ModelPrint weights = print(HEAD "g (float[1] x) => (float[1] y) <float[1] w = {2}> { y = Add(x, w) }");
  const ModelPrint nodes = print(HEAD "g (float[1] x) => (float[1] y) <float[1] w = {1}> { y = Mul(x, w) }");
  CHECK(one.structure == weights.structure);
  CHECK(one.content != weights.content);
  CHECK(one.structure != nodes.structure);
}

}  // namespace onnxpress::testing
