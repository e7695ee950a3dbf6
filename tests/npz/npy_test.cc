#include "npz/npy.h"

#include <catch2/catch_test_macros.hpp>

#include "data/files.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

Result<NpyReader> open_text(std::string content) {
  return NpyReader::open(std::make_unique<MemoryStream>(std::move(content)), "x.npy");
}

std::string dict(std::string_view descr, std::string_view order, std::string_view shape) {
  return fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}", descr, order, shape);
}

}  // namespace

TEST_CASE("npy header: every supported type") {
  const std::vector<std::pair<std::string, DType>> known = {
      {"<f2", DType::f16}, {"<f4", DType::f32}, {"<f8", DType::f64}, {"|i1", DType::i8},
      {"<i2", DType::i16}, {"<i4", DType::i32}, {"<i8", DType::i64}, {"|u1", DType::u8},
      {"<u2", DType::u16}, {"<u4", DType::u32}, {"<u8", DType::u64}, {"|b1", DType::boolean}};
  for (const auto& [descr, dtype] : known) {
    const auto header = parse_npy_header(dict("'" + descr + "'", "False", "(3, 4)"));
    REQUIRE(header);
    CHECK(header->dtype == dtype);
    CHECK(header->dims == Dims{3, 4});
    CHECK_FALSE(header->fortran_order);
  }
}

TEST_CASE("npy header: order of keys, quotes, spacing and tuples are free as in Python") {
  const auto header = parse_npy_header("{ \"shape\":( 7, ) ,\"fortran_order\" : True,'descr':'<f4'}   \n");
  REQUIRE(header);
  CHECK(header->dims == Dims{7});
  CHECK(header->fortran_order);
  CHECK(parse_npy_header(dict("'<f4'", "False", "()"))->dims.empty());
}

TEST_CASE("npy header: what is refused, and why") {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {dict("'|O'", "False", "(1,)"), "Python objects"},
      {dict("'>f4'", "False", "(1,)"), "big-endian"},
      {dict("'<c8'", "False", "(1,)"), "not supported"},
      {dict("'<U3'", "False", "(1,)"), "not supported"},
      {dict("'<f16'", "False", "(1,)"), "not supported"},
      {dict("'|f4'", "False", "(1,)"), "not supported"},
      {dict("'f'", "False", "(1,)"), "not a numpy number type"},
      {dict("[('a', '<f4')]", "False", "(1,)"), "structured"},
      {dict("'<f4'", "0", "(1,)"), "fortran_order"},
      {dict("'<f4'", "False", "[1]"), "not a tuple"},
      {dict("'<f4'", "False", "(5)"), "not a tuple"},
      {dict("'<f4'", "False", "(1 2)"), "',' or ')'"},
      {dict("'<f4'", "False", "(-1,)"), "bad size"},
      {dict("'<f4'", "False", "(,)"), "bad size"},
      {dict("'<f4'", "False", "(99999999999999999999,)"), "bad size"},
      {dict("'<f4'", "False", "(1"), "bad size"},
      {dict("'<f4'", "False", "(1,)") + "x", "after the .npy header"},
      {"{'descr': '<f4', 'fortran_order': False, }", "lacks 'shape'"},
      {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "twice"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", "unknown key"},
      {"{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", "',' or '}'"},
      {"{'descr': '<f4", "structured"},
      {"[1]", "not a dictionary"},
      {"", "not a dictionary"}};
  for (const auto& [text, reason] : refused) {
    INFO(text);
    require_error(parse_npy_header(text), Code::bad_input, reason);
  }
  std::string many = "(";
  for (int i = 0; i < 65; ++i) many += "1,";
  require_error(parse_npy_header(dict("'<f4'", "False", many + ")")), Code::bad_input, "dimensions");
}

TEST_CASE("npy: the declared size must be the bytes that are there") {
  CHECK(open_text(npy("<f4", "(2, 3)", std::string(24, '\0'))));
  require_error(open_text(npy("<f4", "(2, 3)", std::string(23, '\0'))), Code::bad_input,
                "needs 24 bytes, 23 are there");
  require_error(open_text(npy("<f4", "(2, 3)", std::string(25, '\0'))), Code::bad_input,
                "needs 24 bytes, 25 are there");
  require_error(open_text(npy("<f4", "(1152921504606846976,)", "")), Code::bad_input, "0 are there");
  require_error(open_text(npy("<f4", "(4294967296, 4294967296)", "")), Code::bad_input, "more than 2^62");
  require_error(open_text(npy("<f4", "(4294967296, 4294967296, 4294967296, 0)", "xx")), Code::bad_input, "2 are there");
}

TEST_CASE("npy: damaged starts") {
  const std::string good = npy("<f4", "(1,)", "abcd");
  for (std::size_t cut = 0; cut < good.size(); ++cut) CHECK_FALSE(open_text(good.substr(0, cut)));
  require_error(open_text("NUMPY, or is it not?"), Code::bad_input, "not a .npy array");
  std::string version = good;
  version[6] = 4;
  require_error(open_text(version), Code::bad_input, "version 4");
  std::string huge("\x93NUMPY\x02\x00\xff\xff\xff\x7f", 12);
  require_error(open_text(huge + std::string(100, ' ')), Code::bad_input, "over 65536");
}

TEST_CASE("npy: versions 2 and 3 have a longer length") {
  const std::string header = dict("'|u1'", "False", "(2,)");
  for (const char version : {'\x02', '\x03'}) {
    std::string text("\x93NUMPY", 6);
    text += version;
    text += '\0';
    text += static_cast<char>(header.size());
    text += std::string(3, '\0') + header + "ab";
    auto reader = open_text(text);
    REQUIRE(reader);
    std::array<std::byte, 2> out;
    REQUIRE(reader->read(out));
    CHECK(std::to_integer<char>(out[1]) == 'b');
  }
}

TEST_CASE("npy: Fortran order only where it makes no difference") {
  CHECK(open_text(npy_with_header(dict("'|u1'", "True", "(2,)"), "ab")));
  require_error(open_text(npy_with_header(dict("'|u1'", "True", "(2, 1)"), "ab")), Code::bad_input, "Fortran order");
  require_error(open_text(npy("|u1", "()", "a")), Code::bad_input, "no leading axis");
}

TEST_CASE("npy: items come one by one, again after rewind, never the whole array") {
  std::size_t largest = 0, total = 0;
  auto reader = NpyReader::open(
      std::make_unique<MemoryStream>(counting_npy<std::int32_t>("<i4", "(20000, 3)", 60000), &largest, &total), "x");
  REQUIRE(reader);
  CHECK(largest < 128);  // only the header so far
  CHECK(reader->items() == 20000);
  CHECK(reader->item_bytes() == 12);
  CHECK(Dims(reader->item_dims().begin(), reader->item_dims().end()) == Dims{3});
  std::vector<std::int32_t> item(3);
  for (int round = 0; round < 2; ++round) {
    for (std::int32_t i = 0; i < 20000; ++i) {
      REQUIRE(reader->read(std::as_writable_bytes(std::span(item))));
      REQUIRE(item == std::vector{3 * i, 3 * i + 1, 3 * i + 2});
    }
    REQUIRE(reader->rewind());
  }
  CHECK(largest < 128);
  CHECK(total > 2 * 240000);
}

TEST_CASE("npy: from a file") {
  TempDir dir;
  write_file(dir.path("a.npy"), counting_npy<float>("<f4", "(2, 2)", 4));
  auto reader = open_npy(dir.path("a.npy"));
  REQUIRE(reader);
  std::vector<float> all(4);
  REQUIRE(reader->read(std::as_writable_bytes(std::span(all))));
  CHECK(all == std::vector<float>{0, 1, 2, 3});
  require_error(open_npy(dir.path("none.npy")), Code::io, "none.npy");
}
