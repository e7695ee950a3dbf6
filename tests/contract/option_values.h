// Valid values of pass options that are not the default, for any pass there is.
#pragma once

#include <charconv>
#include <cmath>
#include <string>

#include "base/text.h"
#include "pass/options.h"

namespace onnxpress::testing {

// A file to read: there is none to name here.
inline bool names_a_file(const Field& field) { return field.type == "text" && field.help.starts_with("file "); }

// Canonical text of the k-th such value; enums and numbers have several.
inline std::string other_value(const Field& field, std::size_t k = 0) {
  if (field.type == "bool") return field.fallback == "true" ? "false" : "true";
  if (!field.choices.empty()) {
    std::vector<std::string> others;
    for (const std::string& choice : field.choices)
      if (choice != field.fallback) others.push_back(choice);
    return others[k % others.size()];
  }
  double fallback = NAN;
  std::from_chars(field.fallback.data(), field.fallback.data() + field.fallback.size(), fallback);
  if (field.type == "int") {
    const double low = field.min.value_or(1);
    const double first = fallback == low ? low + 1 : low;
    const double value = first + (fallback == first + static_cast<double>(k) ? 1 : 0) + static_cast<double>(k);
    return number_text(field.max ? std::min(value, *field.max) : value);
  }
  if (field.type == "float") {
    const double low = field.min.value_or(0), high = field.max.value_or(low + 1);
    const double value = low + (high - low) * (k % 2 == 0 ? 0.75 : 0.25);
    return number_text(value == fallback ? low + (high - low) * 0.625 : value);
  }
  if (field.type == "list of text") return "[Conv]";
  if (field.type == "list of int") return "[1]";
  if (field.type == "N:M") return k == 0 ? "2:4" : "1:3";
  if (field.type == "list of SELECTOR=SHARE") return "[\"op:Conv=0.75\"]";
  return "other";
}

}  // namespace onnxpress::testing
