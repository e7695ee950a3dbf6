// The ONNX text form, both ways.
#pragma once

#include <string>
#include <string_view>

#include "ir/model.h"

namespace onnxpress {

// Parses the text syntax of onnx 1.17. Error bad_input with the parser's line and column.
Result<Model> parse_model_text(std::string_view text);

struct DumpOptions {
  std::size_t max_elements = 64;  // larger tensors are shown as their hash
  bool node_names = false;        // as a comment behind each node (the syntax of onnx 1.17 has no place for them)
};

// A stable dump in the same syntax: one node a line, attributes sorted by name, numbers in shortest form. The parser
// reads it back when no tensor was elided and every name is an identifier.
Result<std::string> dump_model_text(const Model& model, const DumpOptions& options = {});

}  // namespace onnxpress
