#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>

#include "io/check.h"
#include "io/load.h"
#include "io/save.h"
#include "io/text.h"
#include "ir/rewriter.h"
#include "support/models.h"
#include "support/wire.h"

namespace onnxpress {
namespace {

using testing::parse;
using testing::TempDir;
namespace fs = std::filesystem;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_file(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// A model with one initializer of `count` floats.
Model model_with_weights(std::int64_t count) {
  Model model = parse(HEAD "g (float[N] x) => (float[N] y) { y = Relu(x) }");
  Rewriter rewriter(model.main());
  rewriter.add_initializer("w", Tensor::of_floats({count}, testing::random_floats(static_cast<std::size_t>(count), 7)));
  REQUIRE(rewriter.commit());
  return model;
}

TEST_CASE("an untouched model is re-saved byte for byte") {
  const TempDir folder;
  const std::string bytes = *serialize_model(model_with_weights(5000));
  write_file(folder.path("in.onnx"), bytes);
  const auto model = load_model(folder.path("in.onnx"));
  REQUIRE(model);
  REQUIRE(save_model(*model, folder.path("out.onnx")));
  CHECK(read_file(folder.path("out.onnx")) == bytes);
  CHECK(*serialized_size(*model) == bytes.size());
}

TEST_CASE("unknown fields, typed data and a spelled data_location survive") {
  const std::string bytes = testing::hand_made_model();
  const auto model = load_model_bytes(std::as_bytes(std::span(bytes)), "hand made");
  INFO((model ? "" : model.error().text()));
  REQUIRE(model);
  CHECK(*serialize_model(*model) == bytes);
  CHECK((*model->main().initializer("raw").read()).size() == 512);
}

TEST_CASE("large payloads stay on disk until read") {
  const TempDir folder;
  REQUIRE(save_model(model_with_weights(5000), folder.path("m.onnx")));
  const auto model = load_model(folder.path("m.onnx"));
  REQUIRE(model);
  const Initializer w = model->main().initializer("w");
  CHECK(w.bytes() == 20000);
  CHECK((*w.read()).as<float>()[4999] == testing::random_floats(5000, 7)[4999]);
}

TEST_CASE("external data: written aligned under a name made of its content, and read back") {
  const TempDir folder;
  const Model model = model_with_weights(5000);
  SaveOptions options;
  options.data = SaveOptions::Data::external;
  const auto saved = save_model(model, folder.path("m.onnx"), options);
  REQUIRE(saved);
  CHECK(saved->model_bytes < 1000);
  CHECK(fs::file_size(saved->data_path) == saved->data_bytes);
  CHECK(saved->data_path.filename().string().starts_with("m-"));
  const auto loaded = load_model(folder.path("m.onnx"));
  REQUIRE(loaded);
  CHECK((*loaded->main().initializer("w").read()).as<float>()[4999] == testing::random_floats(5000, 7)[4999]);

  SECTION("and stays external when saved again") {
    const auto again = save_model(*loaded, folder.path("n.onnx"));
    REQUIRE(again);
    CHECK(again->data_bytes == saved->data_bytes);
  }
  SECTION("and the data file of a replaced model goes away") {
    Model other = model_with_weights(6000);
    options.overwrite = true;
    const auto replaced = save_model(other, folder.path("m.onnx"), options);
    REQUIRE(replaced);
    CHECK_FALSE(fs::exists(saved->data_path));
    CHECK(fs::exists(replaced->data_path));
  }
  SECTION("and can be embedded") {
    options.data = SaveOptions::Data::embedded;
    REQUIRE(save_model(*loaded, folder.path("e.onnx"), options));
    CHECK(read_file(folder.path("e.onnx")) == *serialize_model(model));
  }
}

TEST_CASE("external data takes large tensors from typed fields too") {
  const TempDir folder;
  std::string values;
  for (int i = 0; i < 500; ++i) values += (i > 0 ? ", " : "") + std::to_string(i) + ".5";
  const Model model =
      parse(HEAD "g (float[500] x) => (float[500] y) <float[500] w = {" + values + "}> { y = Add(x, w) }");
  REQUIRE_FALSE(TensorStore::slot_of(*model.main().initializer("w").proto()));
  SaveOptions options;
  options.data = SaveOptions::Data::external;
  const auto saved = save_model(model, folder.path("m.onnx"), options);
  REQUIRE(saved);
  CHECK(saved->data_bytes == 2000);
  const auto loaded = load_model(folder.path("m.onnx"));
  REQUIRE(loaded);
  CHECK((*loaded->main().initializer("w").read()).as<float>()[499] == 499.5F);
}

TEST_CASE("an existing output is refused without overwrite and nothing else appears") {
  const TempDir folder;
  write_file(folder.path("out.onnx"), "precious");
  const auto saved = save_model(model_with_weights(10), folder.path("out.onnx"));
  REQUIRE_FALSE(saved);
  CHECK(saved.error().code == Code::usage);
  CHECK(read_file(folder.path("out.onnx")) == "precious");
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("bad files are refused with a reason") {
  const TempDir folder;
  const auto refuse = [&](const std::string& bytes, Code code, const std::string& reason) {
    write_file(folder.path("bad.onnx"), bytes);
    const auto model = load_model(folder.path("bad.onnx"));
    REQUIRE_FALSE(model);
    INFO(model.error().text());
    CHECK(model.error().code == code);
    CHECK(model.error().text().find(reason) != std::string::npos);
    CHECK(model.error().text().find("bad.onnx") != std::string::npos);
  };
  refuse("", Code::bad_input, "empty");
  refuse("this is not a model at all", Code::bad_input, "");
  const std::string good = *serialize_model(model_with_weights(1000));
  refuse(good + good, Code::bad_input, "twice");
  for (std::size_t cut = 1; cut < good.size(); cut += 97) refuse(good.substr(0, cut), Code::bad_input, "");
  const auto missing = load_model(folder.path("missing.onnx"));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == Code::io);
}

TEST_CASE("a declared shape is checked against the bytes present") {
  std::string bytes = testing::model_with_tensor({1 << 20}, std::string(16, 'x'));
  auto model = load_model_bytes(std::as_bytes(std::span(bytes)), "lie");
  REQUIRE_FALSE(model);
  CHECK(model.error().text().find("tensor 'w'") != std::string::npos);
  bytes = testing::model_with_tensor({1 << 20}, std::string(4096, 'x'));
  model = load_model_bytes(std::as_bytes(std::span(bytes)), "lie");
  REQUIRE_FALSE(model);
  bytes = testing::model_with_tensor({-1}, "");
  model = load_model_bytes(std::as_bytes(std::span(bytes)), "negative");
  REQUIRE_FALSE(model);
}

TEST_CASE("external references that escape, lie or overrun are refused") {
  const TempDir folder;
  fs::create_directory(folder.path("model"));
  write_file(folder.path("secret.bin"), std::string(64, 's'));
  write_file(folder.path("model/data.bin"), std::string(64, 'd'));
  const auto load = [&](const std::string& location, const std::string& offset, const std::string& length) {
    write_file(folder.path("model/m.onnx"), testing::model_with_external({16}, location, offset, length));
    return load_model(folder.path("model/m.onnx"));
  };
  CHECK(load("data.bin", "0", "64"));
  CHECK(load("data.bin", "", ""));
  for (const auto& [location, offset, length] :
       std::vector<std::array<std::string, 3>>{{"../secret.bin", "0", "64"},
                                               {"sub/../../secret.bin", "0", "64"},
                                               {folder.path("secret.bin"), "0", "64"},
                                               {"data.bin", "1", "64"},
                                               {"data.bin", "0", "32"},
                                               {"data.bin", "-1", "64"},
                                               {"data.bin", "0", "18446744073709551615"},
                                               {"*/_ORT_MEM_ADDR_/*", "4096", "64"},
                                               {"", "0", "64"}}) {
    const auto model = load(location, offset, length);
    INFO(location << " " << offset << " " << length);
    REQUIRE_FALSE(model);
    CHECK((model.error().code == Code::bad_input || model.error().code == Code::io));
  }
  fs::create_symlink(folder.path("secret.bin"), folder.path("model/link.bin"));
  CHECK_FALSE(load("link.bin", "0", "64"));
}

TEST_CASE("structure errors name the node and the value") {
  for (const char* text : {"g (float[N] x) => (float[N] y) { y = Relu(z) }",
                           "g (float[N] x) => (float[N] y) { a = Relu(b) b = Neg(x) y = Neg(a) }",
                           "g (float[N] x) => (float[N] y) { y = Relu(x) y = Neg(x) }",
                           "g (float[N] x) => (float[N] y) { z = Relu(x) }"}) {
    const auto model = parse_model_text(std::string(HEAD) + text);
    INFO(text);
    REQUIRE_FALSE(model);
    CHECK(model.error().code == Code::bad_input);
  }
}

TEST_CASE("a .onnxtxt file is text both ways") {
  const TempDir folder;
  const Model model =
      parse(HEAD "g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {1.5, -2.0, 3e-08}> { y = Mul(x, w) }");
  REQUIRE(save_model(model, folder.path("m.onnxtxt")));
  const auto loaded = load_model(folder.path("m.onnxtxt"));
  REQUIRE(loaded);
  CHECK(testing::dump(*loaded) == testing::dump(model));
  CHECK_FALSE(save_model(model, folder.path("m.onnxtxt")));  // exists
}

TEST_CASE("the dump reads back as the same model") {
  for (const char* text :
       {"g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {1.5, -2.0, 3e-08}> { t = Mul(x, w) y = Softmax <axis: int "
        "= -1> (t) }",
        "g (bool c, float[N] x) => (float[N] y) { y = If(c) <then_branch = t () => (float[N] a) { a = Relu(x) }, "
        "else_branch = e () => (float[N] b) { b = Neg(x) }> }",
        "g (int64[2] x) => (int64[2] y) { k = Constant <value: tensor = int64[2] {1, 2}> () y = Add(x, k) }"}) {
    const Model model = parse(std::string(HEAD) + text);
    const std::string dumped = testing::dump(model);
    INFO(dumped);
    CHECK(testing::dump(parse(dumped)) == dumped);
  }
}

TEST_CASE("the checker sees stored tensors and refuses bad nodes") {
  CHECK(check_model(model_with_weights(5000)));
  const auto bad = check_model(parse(HEAD "g (float[N] x) => (float[N] y) { y = Relu(x, x) }"));
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code == Code::bad_input);
}

}  // namespace
}  // namespace onnxpress
