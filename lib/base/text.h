// Small text helpers: quoting, sizes, name patterns, "did you mean".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace onnxpress {

// Control characters (but newline and tab) as \xNN, so that a name from a file cannot drive a terminal.
std::string escape_control(std::string_view text);

// "1.09 MB", decimal units.
std::string human_bytes(std::uint64_t bytes);
// "268.3 k", "40.5 M": counts of parameters and MACs.
std::string human_count(std::uint64_t count);

// Shortest text that reads back as the same number; locale-independent.
std::string number_text(double value);
std::string number_text(float value);

// Shell-style pattern: * and ? match any text and any one character.
bool glob_match(std::string_view pattern, std::string_view text);

// The candidate with the smallest edit distance, or "" when none is near.
std::string nearest(std::string_view word, std::span<const std::string> candidates);
// ", did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);

std::vector<std::string> split(std::string_view text, char separator);
std::string_view trim(std::string_view text);
std::string join(std::span<const std::string> parts, std::string_view separator);

}  // namespace onnxpress
