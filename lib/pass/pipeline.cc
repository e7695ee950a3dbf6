#include "pass/pipeline.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <chrono>
#include <fstream>

#include "base/interrupt.h"
#include "base/text.h"
#include "pass/lexer.h"
#include "pass/pipeline_item.h"
#include "pass/weights.h"

namespace onnxpress {
namespace {

using Items = std::vector<std::shared_ptr<const Pipeline::Item>>;
using Kind = Pipeline::Item::Kind;

std::string print_items(const Items& items) {
  std::vector<std::string> texts;
  for (const auto& item : items) texts.push_back(item->print());
  return join(texts, ",");
}

// A pattern with a space must be in a list, where it is not split.
std::string print_patterns(const std::vector<Selector>& selectors) {
  std::vector<std::string> words;
  for (const Selector& selector : selectors) words.push_back(quote_if_needed(selector.text()));
  if (words.size() == 1 && selectors.front().text().find(' ') == std::string::npos) return words.front();
  return "[" + join(words, ",") + "]";
}

template <class Predicate>
bool any_pass(const Items& items, const Predicate& predicate) {
  return std::ranges::any_of(items, [&](const auto& item) {
    return item->kind == Kind::pass ? predicate(*item) : any_pass(item->children, predicate);
  });
}

bool hungers(const Pipeline::Item& item) {
  const PassInfo& info = *item.info;
  return info.needs_data && !(info.spares_data && info.spares_data(item.options.get()));
}

// VmHWM of /proc/self/status, in bytes; 0 where there is none.
std::uint64_t peak_memory() {
  std::ifstream status("/proc/self/status");
  constexpr std::string_view key = "VmHWM:";
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(key)) continue;
    const std::string_view number = trim(std::string_view(line).substr(key.size()));
    std::uint64_t kilobytes = 0;
    std::from_chars(number.data(), number.data() + number.size(), kilobytes);
    return kilobytes * 1024;
  }
  return 0;
}

// Adds the records of one more round of a fixpoint: one row per pass, however many rounds. Bytes add up as
// differences, so that the savings of the rows sum to the savings of the pipeline.
void merge_rounds(std::vector<PassRecord>& total, std::vector<PassRecord> round) {
  if (total.empty()) {
    total = std::move(round);
    return;
  }
  assert(total.size() == round.size());
  for (std::size_t i = 0; i < total.size(); ++i) {
    total[i].changed |= round[i].changed;
    total[i].nodes_done += round[i].nodes_done;
    total[i].nodes_skipped = round[i].nodes_skipped;
    total[i].bytes_after += round[i].bytes_after - round[i].bytes_before;  // may wrap in between, as unsigned does
    total[i].seconds += round[i].seconds;
    total[i].peak_memory = round[i].peak_memory;
  }
}

class Execution {
 public:
  Execution(Model& model, PassContext& context, const Pipeline::Checks& checks)
      : model_(model), context_(context), checks_(checks) {}

  Result<bool> run_items(const Items& items, std::vector<PassRecord>& records) {
    bool changed = false;
    for (const auto& item : items) {
      OP_LET(const bool one, run_item(*item, records));
      changed |= one;
    }
    return changed;
  }

 private:
  Result<bool> run_item(const Pipeline::Item& item, std::vector<PassRecord>& records) {
    if (item.kind == Kind::fixpoint) return run_fixpoint(item, records);
    const bool selecting = !item.selection.empty();
    if (selecting) context_.selections.push_back(&item.selection);
    Result<bool> changed = item.kind == Kind::on ? run_items(item.children, records) : run_pass(item, records);
    if (selecting) context_.selections.pop_back();
    return changed;
  }

  Result<bool> run_fixpoint(const Pipeline::Item& item, std::vector<PassRecord>& records) {
    const std::size_t first_entry = context_.journal.entries().size();
    std::vector<PassRecord> total;
    bool ever = false, settled = false;
    for (std::int64_t round = 0; round < item.max_rounds && !settled; ++round) {
      std::vector<PassRecord> one;
      OP_LET(const bool changed, run_items(item.children, one));
      merge_rounds(total, std::move(one));
      ever |= changed;
      settled = !changed;
    }
    context_.journal.drop_repeats(first_entry);
    context_.journal.begin_pass("fixpoint");
    if (!settled) context_.journal.note(fmt::format("still changing after {} rounds", item.max_rounds));
    records.insert(records.end(), std::make_move_iterator(total.begin()), std::make_move_iterator(total.end()));
    return ever;
  }

  Result<bool> run_pass(const Pipeline::Item& item, std::vector<PassRecord>& records) {
    const std::string& name = item.info->name;
    OP_TRY(check_interrupt());
    PassRecord record;
    record.pass = item.print();
    record.bytes_before = weight_bytes(model_);
    OP_LET(const std::string before, fingerprint());
    const std::size_t first_entry = context_.journal.entries().size();
    context_.journal.begin_pass(name);
    if (item.info->quantizes && !context_.reference) context_.reference = std::make_shared<const Model>(model_.clone());

    const auto start = std::chrono::steady_clock::now();
    auto outcome = item.pass->run(model_, context_);
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!outcome) return rethrow(std::move(outcome).error(), name);

    OP_LET(const std::string after, fingerprint());
    OP_TRY(check_result(name, outcome->changed, before != after));
    record.changed = outcome->changed;
    record.bytes_after = weight_bytes(model_);
    record.peak_memory = peak_memory();
    for (const JournalEntry& entry : std::span(context_.journal.entries()).subspan(first_entry))
      if (!entry.node.empty()) ++(entry.done ? record.nodes_done : record.nodes_skipped);
    records.push_back(std::move(record));
    return outcome->changed;
  }

  Result<std::string> fingerprint() const {
    if (!checks_.honesty) return std::string();
    return model_.fingerprint();
  }

  Status check_result(const std::string& name, bool says_changed, bool did_change) const {
    if (checks_.honesty && says_changed != did_change)
      return fail(Code::internal, "pass '{}' {}", name,
                  did_change ? "changed the model and did not say so" : "says it changed the model and did not");
    if (!checks_.verify_each || !says_changed || !checks_.checker) return {};
    if (Status valid = checks_.checker(model_); !valid)
      return fail(Code::internal, "pass '{}' made an invalid model: {}", name, valid.error().text());
    return {};
  }

  Model& model_;
  PassContext& context_;
  const Pipeline::Checks& checks_;
};

}  // namespace

std::string Pipeline::Item::print() const {
  if (kind == Kind::fixpoint) {
    const std::string rounds = max_rounds == kDefaultRounds ? "" : fmt::format("{{max={}}}", max_rounds);
    return "fixpoint" + rounds + "(" + print_items(children) + ")";
  }
  if (kind == Kind::on) {
    std::vector<std::string> words;
    for (const Selector& selector : selection.only) words.push_back(quote_if_needed(selector.text()));
    return "on{" + join(words, " ") + "}(" + print_items(children) + ")";
  }
  std::vector<std::string> texts;
  for (const Field& field : info->options) {
    const std::string value = field.print(options.get());
    if (value != field.fallback && !value.empty()) texts.push_back(field.key + "=" + value);
  }
  if (!selection.only.empty()) texts.push_back("only=" + print_patterns(selection.only));
  if (!selection.skip.empty()) texts.push_back("skip=" + print_patterns(selection.skip));
  return texts.empty() ? info->name : info->name + "{" + join(texts, " ") + "}";
}

std::string Pipeline::print() const { return print_items(items_); }

bool Pipeline::needs_data() const { return any_pass(items_, hungers); }

bool Pipeline::lossy() const {
  return any_pass(items_, [](const Item& item) { return item.info->lossy; });
}

Result<Outcome> Pipeline::run(Model& model, PassContext& context, const Checks& checks,
                              std::vector<PassRecord>* records) const {
  // Before any work, not when the pass is reached: data is never invented.
  std::string hungry;
  const auto lacks_data = [&](const Item& item) {
    if (hungers(item)) hungry = item.info->name;
    return !hungry.empty();
  };
  if (context.activations == nullptr && any_pass(items_, lacks_data))
    return fail(Code::usage, "{} needs --data", hungry);

  const std::vector<const Selection*> outer = context.selections;
  std::vector<PassRecord> rows;
  Result<bool> changed = Execution(model, context, checks).run_items(items_, rows);
  context.selections = outer;
  context.journal.begin_pass("");
  if (records != nullptr) records->insert(records->end(), rows.begin(), rows.end());
  if (!changed) return std::unexpected(std::move(changed).error());
  return Outcome{*changed};
}

}  // namespace onnxpress
