#include "flow/inputs.h"

#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "base/file.h"
#include "base/hash.h"
#include "support/models.h"
#include "support/process.h"

using namespace onnxpress;
using namespace onnxpress::testing;

TEST_CASE("an output path is checked before any work") {
  const TempDir dir;
  const std::string there = dir.path("there.onnx");
  write_file(there, "x");
  CHECK(check_output_path("-", false));
  CHECK(check_output_path(dir.path("new.onnx"), false));
  CHECK(check_output_path(there, true));
  CHECK(check_output_path(there, false).error().code == Code::usage);
  CHECK(check_output_path(dir.path(), true).error().code == Code::usage);
  CHECK(check_output_path(dir.path("none/new.onnx"), true).error().code == Code::io);

  // A link that points nowhere is still something that would be replaced.
  std::filesystem::create_symlink(dir.path("nowhere"), dir.path("link.onnx"));
  CHECK(check_output_path(dir.path("link.onnx"), false).error().code == Code::usage);
}

TEST_CASE("a loaded model comes with its file and its numbers") {
  const TempDir dir;
  const std::string path = dir.path("m.onnx");
  write_small_model(path);
  const auto loaded = load_with_stats(path, 1);
  REQUIRE(loaded);
  CHECK(loaded->file.path == path);
  CHECK(loaded->file.model_bytes == std::filesystem::file_size(path));
  CHECK(loaded->file.data_bytes == 0);
  const std::string text = read_file(path);
  CHECK(loaded->file.hash == hash_hex(std::as_bytes(std::span(text))));
  CHECK(loaded->stats.parameters == 256);
  CHECK(load_with_stats(dir.path("none"), 1).error().code == Code::io);
}

TEST_CASE("samples are opened for the inputs of the model") {
  const TempDir dir;
  write_small_model(dir.path("m.onnx"));
  write_samples(dir.path("s.npy"));
  const auto loaded = load_with_stats(dir.path("m.onnx"), 1);
  REQUIRE(loaded);
  DataOptions options;
  CHECK(*open_samples(options, loaded->stats) == nullptr);
  options.path = dir.path("s.npy");
  options.samples = 3;
  const auto source = open_samples(options, loaded->stats);
  REQUIRE(source);
  CHECK((*source)->size() == 3);
  options.path = dir.path("none.npz");
  CHECK(open_samples(options, loaded->stats).error().code == Code::io);
}
