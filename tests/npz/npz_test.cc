#include "npz/npz.h"

#include <catch2/catch_test_macros.hpp>

#include "data/files.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  REQUIRE(from.size() == to.size());
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size(), ++count)
    text.replace(at, from.size(), to);
  REQUIRE(count > 0);
}

// Little-endian, as in the zip headers.
std::string u32(std::uint32_t value) { return raw(std::vector{value}); }

}  // namespace

TEST_CASE("npz: stored and deflated arrays, read at the same time") {
  TempDir dir;
  for (const zip_int32_t method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    const std::string path = dir.path("a.npz");
    write_zip(path,
              {{"x.npy", counting_npy<std::int32_t>("<i4", "(5000, 2)", 10000)},
               {"y.npy", counting_npy<std::int16_t>("<i2", "(5000,)", 5000)}},
              method);
    const auto npz = NpzFile::open(path);
    REQUIRE(npz);
    CHECK(npz->keys() == std::vector<std::string>{"x", "y"});
    auto x = npz->array("x"), y = npz->array("y");
    REQUIRE(x);
    REQUIRE(y);
    for (int round = 0; round < 2; ++round) {
      for (std::int32_t i = 0; i < 5000; ++i) {
        std::vector<std::int32_t> pair(2);
        std::vector<std::int16_t> one(1);
        REQUIRE(x->read(std::as_writable_bytes(std::span(pair))));
        REQUIRE(y->read(std::as_writable_bytes(std::span(one))));
        REQUIRE(pair == std::vector{2 * i, 2 * i + 1});
        REQUIRE(one[0] == i);
      }
      REQUIRE(x->rewind());
      REQUIRE(y->rewind());
    }
  }
}

TEST_CASE("npz: an array outlives the archive object it came from") {
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"x.npy", npy("|u1", "(2,)", "ab")}});
  auto reader = NpzFile::open(dir.path("a.npz")).value().array("x");
  REQUIRE(reader);
  std::array<std::byte, 2> out;
  CHECK(reader->read(out));
}

TEST_CASE("npz: names with folders are keys like any other") {
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"model/in:0.npy", npy("|u1", "(1,)", "a")}, {"../x.npy", npy("|u1", "(1,)", "b")}});
  const auto npz = NpzFile::open(dir.path("a.npz"));
  REQUIRE(npz);
  CHECK(npz->has("model/in:0"));
  CHECK(npz->array("../x"));
  require_error(npz->array("model/in:1"), Code::bad_input, "did you mean 'model/in:0'");
}

TEST_CASE("npz: what is not an archive of arrays") {
  TempDir dir;
  require_error(NpzFile::open(dir.path("none.npz")), Code::io, "none.npz");
  write_file(dir.path("bad.npz"), "PK but no more");
  require_error(NpzFile::open(dir.path("bad.npz")), Code::bad_input, "not a readable .npz");
  write_zip(dir.path("text.npz"), {{"readme.txt", "hello"}});
  require_error(NpzFile::open(dir.path("text.npz")), Code::bad_input, "'readme.txt' is not a .npy array");
  write_zip(dir.path("twice.npz"), {{"a1.npy", npy("|u1", "(1,)", "a")}, {"a2.npy", npy("|u1", "(1,)", "b")}});
  std::string content = read_file(dir.path("twice.npz"));
  replace_all(content, "a2.npy", "a1.npy");
  write_file(dir.path("twice.npz"), content);
  require_error(NpzFile::open(dir.path("twice.npz")), Code::bad_input, "key 'a1' twice");
}

TEST_CASE("npz: a header that asks for more than the entry holds allocates nothing") {
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"x.npy", npy("<f4", "(1152921504606846976,)", "abcd")}}, ZIP_CM_DEFLATE);
  require_error(NpzFile::open(dir.path("a.npz")).value().array("x"), Code::bad_input, "4 are there");
}

TEST_CASE("npz: sizes no deflate stream of that length can have are refused") {
  TempDir dir;
  const std::string array = npy("|u1", "(4294901760,)", std::string(100000, 'a'));
  write_zip(dir.path("a.npz"), {{"x.npy", array}}, ZIP_CM_DEFLATE);
  std::string content = read_file(dir.path("a.npz"));
  const auto declared = static_cast<std::uint32_t>(array.size());
  replace_all(content, u32(declared), u32(4294901760U + (declared - 100000)));
  write_file(dir.path("a.npz"), content);
  require_error(NpzFile::open(dir.path("a.npz")).value().array("x"), Code::bad_input, "cannot hold");
}

TEST_CASE("npz: a lie within what deflate could hold ends with an error, not with made-up values") {
  TempDir dir;
  const std::string payload(50000, 'a');
  const std::string array = npy("|u1", "(50001,)", payload);
  write_zip(dir.path("a.npz"), {{"x.npy", array}}, ZIP_CM_DEFLATE);
  std::string content = read_file(dir.path("a.npz"));
  const auto declared = static_cast<std::uint32_t>(array.size());
  replace_all(content, u32(declared), u32(declared + 1));
  write_file(dir.path("a.npz"), content);
  auto reader = NpzFile::open(dir.path("a.npz")).value().array("x");
  REQUIRE(reader);
  std::vector<std::byte> out(50001);
  CHECK_FALSE(reader->read(out));
}

TEST_CASE("npz: a damaged payload does not pass") {
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"x.npy", npy("|u1", "(8,)", "payload!")}});
  std::string content = read_file(dir.path("a.npz"));
  replace_all(content, "payload!", "payload?");
  write_file(dir.path("a.npz"), content);
  auto reader = NpzFile::open(dir.path("a.npz")).value().array("x");
  REQUIRE(reader);
  std::vector<std::byte> out(8);
  require_error(reader->read(out), Code::bad_input, "cannot unpack");
}

TEST_CASE("npz: other compression methods are named") {
  if (!zip_compression_method_supported(ZIP_CM_BZIP2, 1)) SKIP("this libzip cannot write bzip2");
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"x.npy", npy("|u1", "(8,)", "payload!")}}, ZIP_CM_BZIP2);
  require_error(NpzFile::open(dir.path("a.npz")).value().array("x"), Code::bad_input, "savez");
}

TEST_CASE("npz: no cut of an archive crashes") {
  TempDir dir;
  write_zip(dir.path("a.npz"), {{"x.npy", counting_npy<float>("<f4", "(20,)", 20)}}, ZIP_CM_DEFLATE);
  const std::string content = read_file(dir.path("a.npz"));
  for (std::size_t cut = 0; cut < content.size(); ++cut) {
    write_file(dir.path("cut.npz"), content.substr(0, cut));
    CHECK_FALSE(NpzFile::open(dir.path("cut.npz")));
  }
}
