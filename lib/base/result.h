// Errors as values. Everything caused by input, disk or user comes back as a Result; our own bugs are asserts.
#pragma once

#include <fmt/format.h>

#include <expected>
#include <string>
#include <utility>
#include <vector>

namespace onnxpress {

// The exit code the process ends with. Published in README and --help: a stable interface.
enum class Code : unsigned char {
  ok = 0,
  gate_failed = 1,   // ran, but --max-drop, --min-sqnr or --max-size was not met
  usage = 2,         // command line, pipeline or recipe error
  bad_input = 3,     // the model or the data is malformed or unsafe
  unsupported = 4,   // nothing applicable, or an unsupported op with --strict
  io = 5,            // missing file, permission, disk full
  resource = 6,      // memory, size or time limit
  engine = 7,        // the inference engine failed
  batch = 8,         // a batch finished with failures
  internal = 70,     // a bug in onnxpress
};

struct Error {
  Code code = Code::internal;
  std::string what;
  std::vector<std::string> frames;  // context added while unwinding, innermost first

  Error& in(std::string frame) {
    frames.push_back(std::move(frame));
    return *this;
  }
  // One line: outermost context first, then the reason. "model.onnx: node Conv_3: bad pads".
  std::string text() const;
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{code, fmt::format(format, std::forward<Args>(args)...), {}});
}

// Hands an error on, with one more line of context.
[[nodiscard]] inline std::unexpected<Error> rethrow(Error error, std::string frame = {}) {
  if (!frame.empty()) error.in(std::move(frame));
  return std::unexpected(std::move(error));
}

}  // namespace onnxpress

#define ONNXPRESS_CAT_(a, b) a##b
#define ONNXPRESS_CAT(a, b) ONNXPRESS_CAT_(a, b)

// OP_TRY(expr): return the error of a Status or Result, else go on.
#define OP_TRY(...)                                                              \
  do {                                                                           \
    auto op_status_ = (__VA_ARGS__);                                             \
    if (!op_status_) return std::unexpected(std::move(op_status_).error());      \
  } while (false)

// OP_LET(auto x, expr): bind the value of a Result, or return its error.
#define OP_LET(lhs, ...) OP_LET_(ONNXPRESS_CAT(op_result_, __LINE__), lhs, __VA_ARGS__)
#define OP_LET_(tmp, lhs, ...)                                     \
  auto tmp = (__VA_ARGS__);                                        \
  if (!tmp) return std::unexpected(std::move(tmp).error());        \
  lhs = std::move(*tmp)
