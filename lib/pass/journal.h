// What was done to which node, and why not to the others. It becomes a section of the report.
#pragma once

#include <string>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

struct JournalEntry {
  std::string pass;
  std::string node;  // label; "" for a note on the whole model
  std::string op;
  bool done = false;  // else skipped
  std::string text;   // what was done, or the reason for skipping
  bool operator==(const JournalEntry&) const = default;
};

class Journal {
 public:
  void begin_pass(std::string pass) { pass_ = std::move(pass); }
  void done(const Node& node, std::string what);
  void skipped(const Node& node, std::string why);
  void note(std::string text);     // about the model as a whole
  void warning(std::string text);  // the same, and shown to the user
  const std::vector<JournalEntry>& entries() const { return entries_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  std::size_t done_count() const;
  // Of equal entries from index `first` on only the first stays: a fixpoint gives the same reasons every round.
  void drop_repeats(std::size_t first);

 private:
  std::string pass_;
  std::vector<JournalEntry> entries_;
  std::vector<std::string> warnings_;
};

}  // namespace onnxpress
