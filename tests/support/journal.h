// What a pass wrote in the journal.
#pragma once

#include <string>
#include <string_view>

#include "pass/pass.h"

namespace onnxpress::testing {

// The last reason why the node with this label was skipped; "" when it was not.
inline std::string skip_reason(const PassContext& context, std::string_view label) {
  std::string reason;
  for (const JournalEntry& entry : context.journal.entries())
    if (!entry.done && entry.node == label) reason = entry.text;
  return reason;
}

inline bool has_note(const PassContext& context, std::string_view part) {
  for (const JournalEntry& entry : context.journal.entries())
    if (entry.node.empty() && entry.text.find(part) != std::string::npos) return true;
  return false;
}

}  // namespace onnxpress::testing
