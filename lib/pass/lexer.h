// Words of the pipeline language, and errors that point into its text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace onnxpress {

struct Token {
  enum class Kind { word, quoted, punctuation, end };
  Kind kind = Kind::end;
  std::string text;          // unquoted
  std::size_t offset = 0;    // in the source, bytes
  bool after_space = false;  // white space or a comment stands before it
};

// Splits into words, quoted texts and the marks , = { } [ ] ( ); ends with one `end` token. A '#' outside quotes
// starts a comment. In quotes ("..." or '...') a backslash escapes only the quote and itself, so that regular
// expressions read as usual. Error: usage, when a quote is not closed.
Result<std::vector<Token>> tokenize(std::string_view source);

// A usage error at a byte offset: line:column, the line, and a caret under the place.
Error located_error(std::string_view source, std::size_t offset, std::string_view message);

// The text as it is when it can stand bare, else in double quotes; tokenize() gives it back.
std::string quote_if_needed(std::string_view text);

}  // namespace onnxpress
