#include "pass/journal.h"

#include <catch2/catch_test_macros.hpp>

#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

TEST_CASE("the journal keeps what happened, by pass") {
  const Model model = parse(HEAD "g (float[2] x) => (float[2] y) { y = Relu(x) }");
  const Node node = model.main().nodes().front();
  Journal journal;
  journal.begin_pass("one");
  journal.done(node, "folded");
  journal.skipped(node, "too small");
  journal.note("about the model");
  journal.begin_pass("two");
  journal.warning("careful");
  const std::vector<JournalEntry> expected = {{"one", "Relu->y", "Relu", true, "folded"},
                                              {"one", "Relu->y", "Relu", false, "too small"},
                                              {"one", "", "", false, "about the model"},
                                              {"two", "", "", false, "careful"}};
  CHECK(journal.entries() == expected);
  CHECK(journal.warnings() == std::vector<std::string>{"two: careful"});
  CHECK(journal.done_count() == 1);
}

TEST_CASE("repeated entries are dropped from an index on, the first one stays") {
  Journal journal;
  journal.begin_pass("p");
  for (const char* text : {"a", "a", "b", "a", "b", "c"}) journal.note(text);
  journal.drop_repeats(1);
  std::string texts;
  for (const JournalEntry& entry : journal.entries()) texts += entry.text;
  CHECK(texts == "aabc");
}
