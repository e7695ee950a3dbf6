#include <algorithm>

#include "report/cells.h"
#include "report/sections.h"

namespace onnxpress {
namespace {

constexpr std::size_t kWidestCell = 200;
constexpr std::size_t kMostRows = 50;

// Nothing in a name may become markup, a mention or a table border.
std::string markdown_text(std::string_view text, std::size_t width = kWidestCell) {
  std::string out;
  for (const char c : cut_to_width(one_line(text), width)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '@':
        out += "&#64;";
        break;
      case '|':
      case '\\':
      case '`':
      case '*':
      case '_':
      case '[':
      case ']':
      case '#':
      case '~':
      case '$':
        out += '\\';
        out += c;
        break;
      default:
        out += c;
    }
  }
  return out;
}

void add_more(std::size_t hidden, std::string& out) {
  if (hidden > 0) out += fmt::format("\n{} more in the JSON report\n", hidden);
}

void add_table(const Section& section, std::size_t max_rows, std::string& out) {
  for (const Column& column : section.columns) out += "| " + markdown_text(column.head) + " ";
  out += "|\n";
  for (const Column& column : section.columns) out += column.right_aligned ? "| ---: " : "| --- ";
  out += "|\n";
  const std::size_t shown = std::min(max_rows, section.rows.size());
  for (std::size_t i = 0; i < shown; ++i) {
    for (const std::string& cell : section.rows[i]) {
      // Leading blanks show nesting in the text form; Markdown would drop them.
      const std::size_t blanks = std::min(cell.find_first_not_of(' '), cell.size());
      out += "| ";
      for (std::size_t k = 0; k < blanks; ++k) out += "&nbsp;";
      out += markdown_text(std::string_view(cell).substr(blanks)) + " ";
    }
    out += "|\n";
  }
  add_more(section.rows.size() - shown, out);
}

std::string render(const Report& report, const std::vector<Section>& sections, std::size_t max_rows) {
  std::string out =
      "## " + markdown_text(report_title(report)) + "\n\n**" + markdown_text(summary_line(report)) + "**\n";
  for (const std::string& stamp : report_stamps(report)) out += "\n> **" + markdown_text(stamp) + "**\n";
  for (const Section& section : sections) {
    out += "\n### " + markdown_text(section.title) + "\n\n";
    if (!section.rows.empty()) add_table(section, max_rows, out);
    if (section.notes.empty()) continue;
    if (!section.rows.empty()) out += '\n';
    const std::size_t shown = std::min(max_rows, section.notes.size());
    for (std::size_t i = 0; i < shown; ++i) out += "- " + markdown_text(section.notes[i]) + "\n";
    add_more(section.notes.size() - shown, out);
  }
  return out;
}

}  // namespace

std::string report_markdown(const Report& report, std::size_t max_bytes) {
  const auto sections = report_sections(report);
  std::string out;
  for (std::size_t rows = kMostRows;; rows /= 2) {
    out = render(report, sections, rows);
    if (out.size() <= max_bytes || rows == 0) break;
  }
  if (out.size() <= max_bytes) return out;
  // Even without a row it is too long: whole lines from the top.
  static constexpr std::string_view kRest = "\nThe rest is in the JSON report\n";
  if (max_bytes <= kRest.size()) return "";
  const std::size_t end = out.rfind('\n', max_bytes - kRest.size() - 1);
  out.resize(end == std::string::npos ? 0 : end + 1);
  return out + std::string(kRest);
}

}  // namespace onnxpress
