// The content of the text and Markdown reports: the same tables, drawn in two ways. Cells are raw: the renderers make
// them safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/report.h"

namespace onnxpress {

struct Column {
  std::string head;
  bool right_aligned = false;
};

struct Section {
  std::string title;
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;  // may be cut by the renderer
  std::vector<std::string> notes = {};         // lines below the table; may be cut too
};

// "compress model.onnx -> small.onnx".
std::string report_title(const Report& report);
// Stamps that no form may lack: dry run, synthetic data, failed gates. May be empty.
std::vector<std::string> report_stamps(const Report& report);
// In reading order; sections without content are left out.
std::vector<Section> report_sections(const Report& report);

}  // namespace onnxpress
