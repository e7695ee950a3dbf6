// The ONNX text form, both ways.
#pragma once

#include <string>
#include <string_view>

#include "ir/model.h"

namespace onnxpress {

// Parses the text syntax of onnx 1.17. Error bad_input with the parser's line and column.
Result<Model> parse_model_text(std::string_view text);

// A stable dump: the same syntax, one node a line, attributes sorted by name, numbers in shortest form, tensors of
// more than `max_elements` elements as their hash. The parser reads it back when no tensor was elided.
Result<std::string> dump_model_text(const Model& model, std::size_t max_elements = 64);

}  // namespace onnxpress
