#include <catch2/catch_test_macros.hpp>

#include "data/sources.h"
#include "files.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

const std::vector<ValueInfo> kInput = {input("x", DType::f32, {-1, 2})};

auto open_at(const std::string& path, const std::string& labels = "", const std::string& preprocess = "") {
  DataOptions options;
  options.path = path;
  options.labels = labels;
  options.preprocess = preprocess;
  return open_source(options, kInput);
}

}  // namespace

TEST_CASE("open_source: the content decides, not the name") {
  TempDir dir;
  write_zip(dir.path("a.dat"), {{"x.npy", counting_npy<float>("<f4", "(1, 2)", 2)}});
  CHECK(open_at(dir.path("a.dat")).value()->description() == "a.dat (npz, 1 sample)");
  write_file(dir.path("b.dat"), counting_npy<float>("<f4", "(1, 2)", 2));
  CHECK(open_at(dir.path("b.dat")).value()->description() == "b.dat (npy, 1 sample)");
}

TEST_CASE("open_source: what is no data") {
  TempDir dir;
  require_error(open_at(dir.path("none")), Code::io, "none");
  write_file(dir.path("a.csv"), "1,2,3\n");
  require_error(open_at(dir.path("a.csv")), Code::bad_input, "none of the data formats");
  write_file(dir.path("empty.npz"), "");
  CHECK_FALSE(open_at(dir.path("empty.npz")));
}

TEST_CASE("open_source: options of image folders are refused elsewhere, not ignored") {
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"x.npy", counting_npy<float>("<f4", "(1, 2)", 2)}});
  write_file(dir.path("a.npy"), counting_npy<float>("<f4", "(1, 2)", 2));
  require_error(open_at(dir.path("a.npz"), "labels.txt"), Code::usage, "under the key 'labels'");
  require_error(open_at(dir.path("a.npy"), "", "scale=2"), Code::usage, "--preprocess is for folders of images");
  require_error(open_at("random:seed=1", "labels.txt"), Code::usage, "--labels");
}

TEST_CASE("digest_of_files: the bytes one after the other, in pieces") {
  TempDir dir;
  const std::string large((1 << 20) + 5, 'x');
  write_file(dir.path("a"), large);
  write_file(dir.path("b"), "tail");
  write_file(dir.path("both"), large + "tail");
  const std::vector<std::filesystem::path> parts = {dir.path("a"), dir.path("b")}, whole = {dir.path("both")};
  CHECK(digest_of_files(parts).value() == digest_of_files(whole).value());
  CHECK(digest_of_files(whole).value() != digest_of_files(std::span(parts).first(1)).value());
}
