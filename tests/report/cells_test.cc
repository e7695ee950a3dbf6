#include "report/cells.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

using namespace onnxpress;

TEST_CASE("one_line keeps text and takes the teeth out of everything else") {
  CHECK(one_line("/layer1/Conv_0") == "/layer1/Conv_0");
  CHECK(one_line("größe 層 🙂") == "größe 層 🙂");
  CHECK(one_line("a\x1b[31mb\n\tc\x7f") == "a\\x1b[31mb\\x0a\\x09c\\x7f");
  CHECK(one_line("\xc2\x9b"
                 "31m") == "\\xc2\\x9b31m");  // CSI as one C1 character
  CHECK(one_line("\xe2\x80\xae"
                 "txt") == "\\xe2\\x80\\xaetxt");  // right-to-left override
  CHECK(one_line("::error::x") == "\\x3a:error::x");
  CHECK(one_line("a ns::b") == "a ns::b");
  CHECK(one_line("##[group]") == "\\x23#[group]");
}

TEST_CASE("Bytes that are no UTF-8 become escapes") {
  CHECK(one_line("a\xff") == "a\\xff");
  CHECK(one_line("\xc0\xaf") == "\\xc0\\xaf");           // overlong
  CHECK(one_line("\xe2\x82") == "\\xe2\\x82");           // cut short
  CHECK(one_line("\xed\xa0\x80") == "\\xed\\xa0\\x80");  // surrogate
  CHECK(one_line("\xf4\x90\x80\x80") == "\\xf4\\x90\\x80\\x80");
}

TEST_CASE("Display width counts columns, not bytes") {
  CHECK(display_width("abc") == 3);
  CHECK(display_width("größe") == 5);
  CHECK(display_width("層") == 2);
  CHECK(display_width("e\xcc\x81") == 1);  // combining acute
  CHECK(pad_to_width("層", 4, false) == "層  ");
  CHECK(pad_to_width("é", 3, true) == "  é");
  CHECK(pad_to_width("long", 2, true) == "long");
  CHECK(cut_to_width("abcdef", 6) == "abcdef");
  CHECK(cut_to_width("abcdef", 4) == "abc…");
  CHECK(cut_to_width("層層層", 4) == "層…");
}

TEST_CASE("Numbers of the tables") {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  CHECK(fixed_text(1.005, 1) == "1.0");
  CHECK(fixed_text(-0.001, 2) == "0.00");
  CHECK(fixed_text(kInf, 1) == "inf");
  CHECK(fixed_text(-kInf, 1) == "-inf");
  CHECK(fixed_text(std::numeric_limits<double>::quiet_NaN(), 1) == "nan");
  CHECK(signed_text(0.05, 2) == "+0.05");
  CHECK(signed_text(-0.05, 2) == "-0.05");
  CHECK(signed_text(0.001, 2) == "0.00");
  CHECK(short_text(0.031234) == "0.03123");
  CHECK(count_text(0) == "0");
  CHECK(count_text(999) == "999");
  CHECK(count_text(268346) == "268,346");
  CHECK(count_text(1000000) == "1,000,000");
  CHECK(ratio_text(31, 100) == "0.31x");
  CHECK(ratio_text(31, 0) == "-");
  CHECK(seconds_text(12.34e-6) == "12.3 us");
  CHECK(seconds_text(1.5e-3) == "1.50 ms");
  CHECK(seconds_text(2) == "2.00 s");
}

TEST_CASE("Types of values") {
  ValueType type{DType::f32, std::vector<Dim>{{std::nullopt, "N"}, {3, ""}, {std::nullopt, ""}}};
  CHECK(value_type_text(type) == "float[N, 3, ?]");
  CHECK(value_type_text({DType::i8, std::nullopt}) == "int8[...]");
  CHECK(value_type_text({DType::i8, std::vector<Dim>{}}) == "int8[]");
  CHECK(value_type_text({DType::f32, std::nullopt, false}) == "not a tensor");
}
