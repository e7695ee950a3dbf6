#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "base/hash.h"
#include "files.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

namespace fs = std::filesystem;

// A serialized TensorProto of a short vector: dims (field 1), data_type (2), name (8), raw_data (9).
std::string tensor_pb(const std::string& name, const std::vector<float>& values) {
  const std::string bytes = raw(values);
  std::string text = {'\x08', static_cast<char>(values.size()), '\x10', '\x01'};
  if (!name.empty()) text += std::string{'\x42', static_cast<char>(name.size())} + name;
  return text + std::string{'\x4a', static_cast<char>(bytes.size())} + bytes;
}

struct Case {
  TempDir dir;
  std::string set(int number) const { return dir.path(fmt::format("test_data_set_{}", number)); }
  void write(int number, const std::string& file, const std::string& content) const {
    fs::create_directories(set(number));
    write_file(set(number) + "/" + file, content);
  }
};

DataOptions at(const std::string& path) {
  DataOptions options;
  options.path = path;
  return options;
}

const std::vector<ValueInfo> kTwo = {input("a", DType::f32, {2}), input("b", DType::f32, {-1})};

}  // namespace

TEST_CASE("pb source: sets by number, inputs by name or by number, outputs as expected") {
  const Case data;
  for (const int number : {10, 2}) {
    const auto value = static_cast<float>(number);
    data.write(number, "input_0.pb", tensor_pb("b", {value, 0, 0}));
    data.write(number, "input_1.pb", tensor_pb("a", {value, 1}));
    data.write(number, "output_0.pb", tensor_pb("y", {value}));
    data.write(number, "output_1.pb", tensor_pb("", {1}));
  }
  auto source = require_source(at(data.dir.path()), kTwo);
  CHECK(source->size() == 2);
  CHECK(source->description().ends_with("(pb, 2 samples)"));
  for (int round = 0; round < 2; ++round) {
    const auto batches = read_all(*source);
    REQUIRE(batches.size() == 2);
    CHECK(batches[0].inputs[0].name == "a");
    CHECK(values_of<float>(batches[0].inputs[0].tensor) == std::vector<float>{2, 1});
    CHECK(values_of<float>(batches[1].inputs[1].tensor) == std::vector<float>{10, 0, 0});
    REQUIRE(batches[0].expected.size() == 2);
    CHECK(batches[0].expected[0].name == "y");
    CHECK(batches[0].expected[1].name.empty());
    REQUIRE(source->rewind());
  }
  auto one = require_source(at(data.set(10) + "/"), kTwo);
  CHECK(one->size() == 1);
  CHECK(one->description() == "test_data_set_10 (pb, 1 sample)");
  Hasher hasher;
  for (const char* file : {"/input_0.pb", "/input_1.pb", "/output_0.pb", "/output_1.pb"})
    hasher.add(read_file(data.set(10) + file));
  CHECK(one->digest() == hasher.hex());
  DataOptions capped = at(data.dir.path());
  capped.samples = 1;
  CHECK(read_all(*require_source(capped, kTwo)).size() == 1);
}

TEST_CASE("pb source: unknown and missing names go by number") {
  const Case data;
  data.write(0, "input_0.pb", tensor_pb("", {1, 2}));
  data.write(0, "input_1.pb", tensor_pb("other", {3}));
  auto source = require_source(at(data.set(0)), kTwo);
  CHECK(values_of<float>(source->next().value()->inputs[1].tensor) == std::vector<float>{3});
}

TEST_CASE("pb source: a model without inputs has outputs to expect") {
  const Case data;
  data.write(0, "output_0.pb", tensor_pb("y", {1}));
  auto source = require_source(at(data.set(0)), {});
  const auto batches = read_all(*source);
  REQUIRE(batches.size() == 1);
  CHECK(batches[0].inputs.empty());
  CHECK(batches[0].expected.size() == 1);
}

TEST_CASE("pb source: what does not fit is found when it is opened") {
  const Case data;
  data.write(0, "input_0.pb", tensor_pb("a", {1, 2}));
  require_error(open_source(at(data.set(0)), kTwo), Code::bad_input, "no input_1.pb for input 'b'");
  data.write(0, "input_1.pb", tensor_pb("a", {1, 2}));
  require_error(open_source(at(data.set(0)), kTwo), Code::bad_input, "a second tensor for input 'a'");
  data.write(0, "input_1.pb", tensor_pb("b", {1}));
  data.write(0, "input_2.pb", tensor_pb("c", {1}));
  require_error(open_source(at(data.set(0)), kTwo), Code::bad_input, "none of them called 'c'");
  fs::remove(data.set(0) + "/input_2.pb");
  data.write(0, "input_0.pb", tensor_pb("a", {1, 2, 3}));
  require_error(open_source(at(data.set(0)), kTwo), Code::bad_input, "test_data_set_0/input_0.pb: [3] does not fit");
  data.write(0, "input_0.pb", "\x4a\x7f");
  require_error(open_source(at(data.set(0)), kTwo), Code::bad_input, "input_0.pb");
}
