#include "base/text.h"

#include <catch2/catch_test_macros.hpp>
#include <limits>

namespace onnxpress {
namespace {

TEST_CASE("control characters are escaped, everything else stays") {
  CHECK(escape_control("Conv_1\x1b[31m") == "Conv_1\\x1b[31m");
  CHECK(escape_control(std::string("a\0b", 3)) == "a\\x00b");
  CHECK(escape_control("\x7f\r") == "\\x7f\\x0d");
  CHECK(escape_control("line\n\tgrün 層") == "line\n\tgrün 層");
}

TEST_CASE("sizes are printed in decimal units") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(999) == "999 B");
  CHECK(human_bytes(1000) == "1.00 kB");
  CHECK(human_bytes(1'090'000) == "1.09 MB");
  CHECK(human_bytes(98'700'000) == "98.7 MB");
  CHECK(human_bytes(999'999) == "1.00 MB");  // never "1000.0 kB"
  CHECK(human_bytes(std::numeric_limits<std::uint64_t>::max()).ends_with(" TB"));
}

TEST_CASE("counts are printed in thousands and millions") {
  CHECK(human_count(7) == "7");
  CHECK(human_count(268'300) == "268.3 k");
  CHECK(human_count(40'500'000) == "40.5 M");
}

TEST_CASE("numbers read back as themselves") {
  CHECK(number_text(0.1) == "0.1");
  CHECK(number_text(0.1F) == "0.1");
  CHECK(number_text(-0.0) == "-0");
  CHECK(number_text(1e300) == "1e+300");
  CHECK(std::stod(number_text(1.0 / 3)) == 1.0 / 3);
  CHECK(number_text(std::numeric_limits<double>::infinity()) == "inf");
  CHECK(number_text(-std::numeric_limits<float>::infinity()) == "-inf");
  CHECK(number_text(std::numeric_limits<double>::quiet_NaN()) == "nan");
}

TEST_CASE("glob patterns") {
  CHECK(glob_match("*", ""));
  CHECK(glob_match("layer*/conv?", "layer1/block/conv2"));
  CHECK(glob_match("a*b*c", "axxbyyc"));
  CHECK(glob_match("", ""));
  CHECK_FALSE(glob_match("", "a"));
  CHECK_FALSE(glob_match("?", ""));
  CHECK_FALSE(glob_match("conv", "conv1"));
  CHECK_FALSE(glob_match("a*b*c", "axxbyy"));
  // Patterns with many stars stay linear enough.
  CHECK_FALSE(glob_match("*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));
}

TEST_CASE("a typing error finds the word that was meant, nonsense finds none") {
  const std::vector<std::string> words = {"quant-static", "quant-dynamic", "prune-channels"};
  CHECK(nearest("quant-statik", words) == "quant-static");
  CHECK(nearest("prune", words) == "prune-channels");
  CHECK(nearest("zzzzzz", words).empty());
  CHECK(did_you_mean("prune-chanels", words) == ", did you mean 'prune-channels'?");
  CHECK(did_you_mean("zzzzzz", words).empty());
}

TEST_CASE("split, trim and join") {
  CHECK(split("a,,b", ',') == std::vector<std::string>{"a", "", "b"});
  CHECK(split("", ',') == std::vector<std::string>{""});
  CHECK(trim(" \t a b\r\n") == "a b");
  CHECK(trim("  ").empty());
  CHECK(join(std::vector<std::string>{"a", "b"}, ", ") == "a, b");
  CHECK(join(std::vector<std::string>{}, ", ").empty());
}

}  // namespace
}  // namespace onnxpress
