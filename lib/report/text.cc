#include <algorithm>

#include "report/cells.h"
#include "report/sections.h"

namespace onnxpress {
namespace {

constexpr std::size_t kWidestCell = 72;

struct Style {
  const char* on;
  const char* off;
};

class TextWriter {
 public:
  explicit TextWriter(const TextOptions& options) : options_(options) {}

  void line(std::string_view text, Style style = {"", ""}) {
    if (options_.color) out_ += style.on;
    out_ += text;
    if (options_.color) out_ += style.off;
    out_ += '\n';
  }

  void section(const Section& section) {
    line("");
    line(section.title, bold());
    if (!section.rows.empty()) table(section);
    const std::size_t shown = limited(section.notes.size());
    for (std::size_t i = 0; i < shown; ++i) line("  " + one_line(section.notes[i]));
    more(section.notes.size() - shown);
  }

  std::string take() { return std::move(out_); }
  Style bold() const { return {"\x1b[1m", "\x1b[0m"}; }
  Style alarm() const { return {"\x1b[1;31m", "\x1b[0m"}; }

 private:
  std::size_t limited(std::size_t count) const {
    return options_.max_rows == 0 ? count : std::min(count, options_.max_rows);
  }
  void more(std::size_t hidden) {
    if (hidden > 0) line(fmt::format("  {} more in the JSON report", hidden));
  }

  void table(const Section& section) {
    const std::size_t shown = limited(section.rows.size());
    std::vector<std::vector<std::string>> rows(1);
    for (const Column& column : section.columns) rows[0].push_back(column.head);
    for (std::size_t i = 0; i < shown; ++i) {
      rows.emplace_back();
      for (std::size_t c = 0; c < section.rows[i].size(); ++c) {
        // The last column may run on: nothing has to line up behind it.
        const bool last = c + 1 == section.rows[i].size();
        const std::string cell = one_line(section.rows[i][c]);
        rows.back().push_back(last ? cell : cut_to_width(cell, kWidestCell));
      }
    }
    std::vector<std::size_t> widths(section.columns.size(), 0);
    for (const auto& row : rows)
      for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
    if (std::ranges::all_of(rows[0], &std::string::empty)) rows.erase(rows.begin());
    for (const auto& row : rows) {
      std::string text = " ";
      for (std::size_t c = 0; c < row.size(); ++c)
        text += " " + pad_to_width(row[c], widths[c], section.columns[c].right_aligned) + " ";
      text.erase(text.find_last_not_of(' ') + 1);
      line(text);
    }
    more(section.rows.size() - shown);
  }

  TextOptions options_;
  std::string out_;
};

}  // namespace

std::string report_text(const Report& report, const TextOptions& options) {
  TextWriter writer(options);
  writer.line(one_line(report_title(report)), writer.bold());
  writer.line(summary_line(report));
  for (const std::string& stamp : report_stamps(report)) writer.line(one_line(stamp), writer.alarm());
  for (const Section& section : report_sections(report)) writer.section(section);
  return writer.take();
}

}  // namespace onnxpress
