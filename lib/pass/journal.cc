#include "pass/journal.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace onnxpress {

void Journal::done(const Node& node, std::string what) {
  entries_.push_back({pass_, node.label(), std::string(node.op()), true, std::move(what)});
}

void Journal::skipped(const Node& node, std::string why) {
  entries_.push_back({pass_, node.label(), std::string(node.op()), false, std::move(why)});
}

void Journal::note(std::string text) { entries_.push_back({pass_, "", "", false, std::move(text)}); }

void Journal::warning(std::string text) {
  warnings_.push_back(pass_.empty() ? text : pass_ + ": " + text);
  note(std::move(text));
}

std::size_t Journal::done_count() const {
  return static_cast<std::size_t>(std::ranges::count_if(entries_, &JournalEntry::done));
}

void Journal::drop_repeats(std::size_t first) {
  std::set<std::tuple<std::string, std::string, std::string, bool, std::string>> seen;
  const auto from = entries_.begin() + static_cast<std::ptrdiff_t>(first);
  const auto repeated = [&](const JournalEntry& entry) {
    return !seen.emplace(entry.pass, entry.node, entry.op, entry.done, entry.text).second;
  };
  entries_.erase(std::remove_if(from, entries_.end(), repeated), entries_.end());
}

}  // namespace onnxpress
