#include "flow/text_table.h"

#include <algorithm>

#include "report/cells.h"

namespace onnxpress {

std::string text_table(const std::vector<std::vector<std::string>>& rows, std::size_t left_columns, bool markdown) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line = markdown ? "|" : " ";
    for (std::size_t c = 0; c < rows[r].size(); ++c)
      line += " " + pad_to_width(rows[r][c], widths[c], c >= left_columns) + (markdown ? " |" : " ");
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    if (markdown && r == 0) {
      out += "|";
      for (std::size_t c = 0; c < rows[r].size(); ++c) out += c < left_columns ? "---|" : "--:|";
      out += "\n";
    }
  }
  return out;
}

}  // namespace onnxpress
