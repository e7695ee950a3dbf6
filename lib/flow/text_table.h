// Columns of text, aligned for a terminal or as a Markdown table.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace onnxpress {

// The first row is the head. The first `left_columns` columns are left-aligned, the others right-aligned. Not empty.
std::string text_table(const std::vector<std::vector<std::string>>& rows, std::size_t left_columns, bool markdown);

// For names of nodes and reasons: cells are made one line, and cut to 60 columns except in the last one, which may be
// as long as it likes. The columns of `numbers` are right-aligned. Not empty.
std::string column_table(const std::vector<std::vector<std::string>>& rows, const std::vector<std::size_t>& numbers);

}  // namespace onnxpress
