// Text from a model made fit for one cell of a table on a terminal or in a CI log.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "num/value_type.h"

namespace onnxpress {

// One line of valid UTF-8: control characters (C0, DEL, C1, newline and tab too), bytes that are not UTF-8, and
// line or paragraph separators and direction overrides as \xNN; the starts of CI commands ("::error", "##[") broken.
std::string one_line(std::string_view text);

// Columns a terminal uses for valid UTF-8: 2 for East Asian wide characters and emoji, 0 for combining marks.
std::size_t display_width(std::string_view text);
// At most `columns` columns, "…" at the end when something was cut.
std::string cut_to_width(std::string_view text, std::size_t columns);
std::string pad_to_width(std::string_view text, std::size_t columns, bool right_aligned);

// Numbers as the tables show them. NaN is "nan", infinity "inf".
std::string fixed_text(double value, int decimals);
std::string decibel_text(double value);                             // "31.2"
std::string signed_text(double value, int decimals);                // "+0.05", "-0.05", "0.00"
std::string short_text(double value);                               // four significant digits: "0.0312", "1.2e-07"
std::string count_text(std::uint64_t value);                        // "268346" -> "268,346"
std::string ratio_text(std::uint64_t after, std::uint64_t before);  // "0.28x"; "-" when before is 0
std::string seconds_text(double seconds);                           // "0.18 ms", "1.20 s", "12.3 us"
std::string value_type_text(const ValueType& type);                 // "float[N, 3, 32, 32]"; unknown dims "?"

}  // namespace onnxpress
