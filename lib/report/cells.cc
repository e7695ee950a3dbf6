#include "report/cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace onnxpress {
namespace {

struct CodePoint {
  char32_t value = 0;
  std::size_t length = 0;  // bytes; 0 = not UTF-8
};

CodePoint decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  std::size_t length = 0;
  char32_t value = 0, smallest = 0;
  if (lead >= 0xc2 && lead < 0xe0) {
    length = 2, value = lead & 0x1fU, smallest = 0x80;
  } else if ((lead & 0xf0U) == 0xe0) {
    length = 3, value = lead & 0x0fU, smallest = 0x800;
  } else if (lead >= 0xf0 && lead < 0xf5) {
    length = 4, value = lead & 0x07U, smallest = 0x10000;
  }
  if (length == 0 || text.size() < length) return {};
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80) return {};
    value = (value << 6) | (byte(i) & 0x3fU);
  }
  if (value < smallest || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return {};
  return {value, length};
}

using Ranges = std::span<const std::pair<char32_t, char32_t>>;

bool within(char32_t value, Ranges ranges) {
  return std::ranges::any_of(ranges, [&](const auto& range) { return value >= range.first && value <= range.second; });
}

// Zero width: combining marks, joiners, variation selectors. Unicode Standard Annex 11 and 44, the common blocks.
constexpr std::array<std::pair<char32_t, char32_t>, 6> kZero = {
    {{0x300, 0x36f}, {0x483, 0x489}, {0x591, 0x5bd}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}}};
constexpr std::array<std::pair<char32_t, char32_t>, 13> kWide = {{{0x1100, 0x115f},
                                                                  {0x2e80, 0x303e},
                                                                  {0x3041, 0x33ff},
                                                                  {0x3400, 0x4dbf},
                                                                  {0x4e00, 0x9fff},
                                                                  {0xa000, 0xa4cf},
                                                                  {0xac00, 0xd7a3},
                                                                  {0xf900, 0xfaff},
                                                                  {0xfe30, 0xfe6f},
                                                                  {0xff00, 0xff60},
                                                                  {0xffe0, 0xffe6},
                                                                  {0x1f300, 0x1faff},
                                                                  {0x20000, 0x3fffd}}};
// Would move the cursor, end the line or turn the writing direction.
constexpr std::array<std::pair<char32_t, char32_t>, 6> kUnsafe = {
    {{0, 0x1f}, {0x7f, 0x9f}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}, {0xfeff, 0xfeff}}};

std::size_t width_of(char32_t value) { return within(value, kZero) ? 0 : within(value, kWide) ? 2 : 1; }

void break_up(std::string& text, std::string_view command) {
  for (std::size_t at = 0; (at = text.find(command, at)) != std::string::npos;)
    text.replace(at, 1, fmt::format("\\x{:02x}", static_cast<unsigned char>(command[0])));
}

}  // namespace

std::string one_line(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const CodePoint point = decode(text);
    const std::size_t length = std::max<std::size_t>(1, point.length);
    if (point.length == 0 || within(point.value, kUnsafe)) {
      for (const char c : text.substr(0, length)) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  break_up(out, "##[");
  if (out.starts_with("::")) out.replace(0, 1, "\\x3a");
  return out;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const CodePoint point = decode(text);
    width += point.length == 0 ? 1 : width_of(point.value);
    text.remove_prefix(std::max<std::size_t>(1, point.length));
  }
  return width;
}

std::string cut_to_width(std::string_view text, std::size_t columns) {
  if (display_width(text) <= columns) return std::string(text);
  std::size_t width = 1, bytes = 0;  // the ellipsis takes one column
  while (bytes < text.size()) {
    const CodePoint point = decode(text.substr(bytes));
    const std::size_t next = point.length == 0 ? 1 : width_of(point.value);
    if (width + next > columns) break;
    width += next;
    bytes += std::max<std::size_t>(1, point.length);
  }
  return std::string(text.substr(0, bytes)) + "…";
}

std::string pad_to_width(std::string_view text, std::size_t columns, bool right_aligned) {
  const std::size_t width = display_width(text);
  const std::string padding(columns > width ? columns - width : 0, ' ');
  return right_aligned ? padding + std::string(text) : std::string(text) + padding;
}

std::string fixed_text(double value, int decimals) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{:.{}f}", value, decimals);
  // What rounds to zero has no sign.
  if (text.starts_with('-') && text.find_first_not_of("-0.") == std::string::npos) text.erase(0, 1);
  return text;
}

std::string decibel_text(double value) { return fixed_text(value, 1); }

std::string signed_text(double value, int decimals) {
  const std::string text = fixed_text(value, decimals);
  return value > 0 && text.find_first_not_of("0.") != std::string::npos ? "+" + text : text;
}

std::string short_text(double value) {
  if (!std::isfinite(value)) return fixed_text(value, 0);
  return fmt::format("{:.4g}", value);
}

std::string count_text(std::uint64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

std::string ratio_text(std::uint64_t after, std::uint64_t before) {
  return before == 0 ? "-" : fmt::format("{:.2f}x", static_cast<double>(after) / static_cast<double>(before));
}

std::string seconds_text(double seconds) {
  if (seconds < 0.9995e-3) return fmt::format("{:.1f} us", seconds * 1e6);
  if (seconds < 0.9995) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

std::string value_type_text(const ValueType& type) {
  if (!type.is_tensor) return "not a tensor";
  std::string text(type.dtype == DType::undefined ? "?" : dtype_name(type.dtype));
  if (!type.shape) return text + "[...]";
  text += '[';
  for (std::size_t axis = 0; axis < type.shape->size(); ++axis) {
    const Dim& dim = (*type.shape)[axis];
    if (axis > 0) text += ", ";
    text += dim.value ? std::to_string(*dim.value) : dim.symbol.empty() ? "?" : dim.symbol;
  }
  return text + ']';
}

}  // namespace onnxpress
