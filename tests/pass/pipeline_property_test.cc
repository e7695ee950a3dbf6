// Random valid pipelines print to a text that parses back to the same text.
#include <rapidcheck.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "base/text.h"
#include "pass/lexer.h"
#include "pass/toy_passes.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

std::string pick(std::initializer_list<const char*> words) {
  return *rc::gen::elementOf(std::vector<std::string>(words.begin(), words.end()));
}

std::string random_text() {
  return quote_if_needed(
      *rc::gen::container<std::string>(rc::gen::elementOf(std::string("ab\\\"' ,={}[]()#*\n\t.\xC3\xA9"))));
}

std::string random_list(const std::function<std::string()>& item) {
  std::vector<std::string> items(*rc::gen::inRange<std::size_t>(0, 4));
  for (std::string& text : items) text = item();
  return "[" + join(items, pick({",", " , ", ",\n"})) + "]";
}

std::string random_patterns() {
  std::vector<std::string> items(*rc::gen::inRange<std::size_t>(1, 4));
  for (std::string& text : items) text = pick({"a", "/l/*", "op:Conv", "\"re:x y\"", "'b c'", "re:c.*\\d"});
  return "[" + join(items, ",") + "]";
}

std::string random_options() {
  const auto whole = [](int low, int high) { return std::to_string(*rc::gen::inRange(low, high)); };
  std::vector<std::pair<std::string, std::string>> all = {
      {"sparsity", number_text(*rc::gen::inRange(0, 1001) / 1000.0)},
      {"block", whole(1, 100)},
      {"exact", pick({"true", "false"})},
      {"scope", pick({"local", "global", "'local'"})},
      {"note", random_text()},
      {"families", random_list(random_text)},
      {"axes", random_list([&] { return whole(-8, 8); })},
      {"rank", whole(-5, 1025)},
      {"ratio", number_text(*rc::gen::inRange(-1000, 1000) * 1e-7)},
      {"only", random_patterns()},
      {"skip", random_patterns()},
  };
  std::vector<std::string> chosen;
  for (auto& [key, value] : all)
    if (*rc::gen::arbitrary<bool>()) chosen.push_back(key + pick({"=", " = "}) + value);
  if (*rc::gen::arbitrary<bool>()) std::ranges::reverse(chosen);
  return "{" + join(chosen, pick({" ", ",", " , "})) + "}";
}

std::string random_pipeline(int depth) {
  std::vector<std::string> items(*rc::gen::inRange<std::size_t>(1, 4));
  for (std::string& item : items) {
    const int kind = *rc::gen::inRange(0, depth > 2 ? 2 : 4);
    if (kind == 0) item = pick({"toy-relu", "toy-count", "toy-data"});
    if (kind == 1) item = "toy-options" + random_options();
    if (kind == 2) item = "fixpoint" + pick({"", "{max=2}", "{max=10}"}) + "(" + random_pipeline(depth + 1) + ")";
    if (kind == 3) item = "on{" + pick({"op:Conv", "a b", "\"a b\" re:c"}) + "}(" + random_pipeline(depth + 1) + ")";
  }
  return join(items, pick({",", " ,\n", ", # comment\n"}));
}

}  // namespace

TEST_CASE("random pipelines print and parse stably") {
  CHECK(rc::check([] {
    const std::string text = random_pipeline(0);
    const auto first = Pipeline::parse(text, toy_passes());
    if (!first) RC_FAIL(first.error().text());
    const std::string printed = first->print();
    const auto second = Pipeline::parse(printed, toy_passes());
    if (!second) RC_FAIL(second.error().text());
    RC_ASSERT(second->print() == printed);
  }));
}

TEST_CASE("random bytes never crash the parser") {
  CHECK(rc::check([] {
    const auto text = *rc::gen::container<std::string>(
        rc::gen::elementOf(std::string("toy-relu@fixpoint(on{ab=1}),'\"[]#\n \\\x01\xC3")));
    const auto parsed = Pipeline::parse(text, toy_passes());
    if (!parsed) RC_ASSERT(parsed.error().code == Code::usage);
  }));
}
