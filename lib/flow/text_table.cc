#include "flow/text_table.h"

#include <algorithm>

#include "base/text.h"
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

std::string column_table(const std::vector<std::vector<std::string>>& rows, const std::vector<std::size_t>& numbers) {
  constexpr std::size_t kWidest = 60;
  std::vector<std::size_t> widths(rows[0].size(), 0);
  const auto cell = [&](const std::vector<std::string>& row, std::size_t c) {
    const std::string text = one_line(row[c]);
    return c + 1 == row.size() ? text : cut_to_width(text, kWidest);
  };
  for (const std::vector<std::string>& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(cell(row, c)));
  std::string out;
  for (const std::vector<std::string>& row : rows) {
    std::string line = " ";
    for (std::size_t c = 0; c < row.size(); ++c)
      line += " " + pad_to_width(cell(row, c), widths[c], std::ranges::contains(numbers, c)) + " ";
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

}  // namespace onnxpress
