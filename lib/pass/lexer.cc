#include "pass/lexer.h"

#include <algorithm>

#include "base/text.h"

namespace onnxpress {
namespace {

constexpr std::string_view kMarks = ",={}[]()";
constexpr std::string_view kSpace = " \t\r\n";
constexpr std::size_t kShownColumns = 96;  // of a long line, around the caret

bool is_bare(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte > 0x20 && byte != 0x7f && kMarks.find(c) == std::string_view::npos && c != '"' && c != '\'' && c != '#';
}

// Characters, not bytes: UTF-8 continuation bytes take no column.
std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::size_t skip_space(std::string_view source, std::size_t at) {
  while (at < source.size()) {
    if (source[at] == '#') {
      at = std::min(source.find('\n', at), source.size());
    } else if (kSpace.find(source[at]) != std::string_view::npos) {
      ++at;
    } else {
      break;
    }
  }
  return at;
}

// Reads the quoted text that starts at `at`; moves `at` behind it. False when it is not closed.
bool read_quoted(std::string_view source, std::size_t& at, std::string& out) {
  const char quote = source[at++];
  for (; at < source.size(); ++at) {
    char c = source[at];
    if (c == quote) {
      ++at;
      return true;
    }
    if (c == '\\' && at + 1 < source.size() && (source[at + 1] == quote || source[at + 1] == '\\')) c = source[++at];
    out += c;
  }
  return false;
}

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) {
  std::vector<Token> tokens;
  for (std::size_t at = 0;;) {
    const std::size_t begin = skip_space(source, at);
    Token token{.text = {}, .offset = begin, .after_space = begin > at};
    at = begin;
    if (at == source.size()) {
      tokens.push_back(std::move(token));
      return tokens;
    }
    if (kMarks.find(source[at]) != std::string_view::npos) {
      token.kind = Token::Kind::punctuation;
      token.text = source[at++];
    } else if (source[at] == '"' || source[at] == '\'') {
      token.kind = Token::Kind::quoted;
      if (!read_quoted(source, at, token.text))
        return std::unexpected(located_error(source, begin, "this quote is not closed"));
    } else if (is_bare(source[at])) {
      token.kind = Token::Kind::word;
      while (at < source.size() && is_bare(source[at])) token.text += source[at++];
    } else {
      return std::unexpected(located_error(source, begin, "control character; quote it"));
    }
    tokens.push_back(std::move(token));
  }
}

Error located_error(std::string_view source, std::size_t offset, std::string_view message) {
  const std::string_view before = source.substr(0, offset);
  const std::size_t newline = before.rfind('\n');
  const std::size_t start = newline == std::string_view::npos ? 0 : newline + 1;
  std::string_view line = source.substr(start, source.find('\n', start) - start);
  std::size_t column = offset - start;
  const auto number = std::ranges::count(before, '\n') + 1;
  const std::size_t shown_column = columns(line.substr(0, column)) + 1;

  std::string prefix;
  if (line.size() > kShownColumns && column > kShownColumns / 2) {
    std::size_t cut = column - kShownColumns / 2;
    while (cut < column && (static_cast<unsigned char>(line[cut]) & 0xC0U) == 0x80U) ++cut;
    line.remove_prefix(cut);
    column -= cut;
    prefix = "...";
  }
  std::string pointer(prefix.size(), ' ');
  for (const char c : line.substr(0, column))
    if (columns({&c, 1}) == 1) pointer += c == '\t' ? '\t' : ' ';
  // Cut only behind the caret, between two characters.
  std::size_t keep = std::min(line.size(), std::max(kShownColumns, column));
  while (keep < line.size() && (static_cast<unsigned char>(line[keep]) & 0xC0U) == 0x80U) ++keep;
  const char* const suffix = keep < line.size() ? "..." : "";
  return {.code = Code::usage,
          .what = fmt::format("pipeline {}:{}: {}\n  {}{}{}\n  {}^", number, shown_column, message, prefix,
                              line.substr(0, keep), suffix, pointer),
          .frames = {}};
}

std::string quote_if_needed(std::string_view text) {
  if (!text.empty() && std::ranges::all_of(text, is_bare)) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

}  // namespace onnxpress
