#include <catch2/catch_test_macros.hpp>

#include "pass/toy_passes.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

std::string canonical(std::string_view text) {
  const auto pipeline = Pipeline::parse(text, toy_passes());
  INFO((pipeline ? "" : pipeline.error().text()));
  REQUIRE(pipeline);
  const std::string printed = pipeline->print();
  const auto again = Pipeline::parse(printed, toy_passes());
  INFO((again ? "" : again.error().text()));
  REQUIRE(again);
  CHECK(again->print() == printed);
  return printed;
}

std::string refusal(std::string_view text) {
  const auto pipeline = Pipeline::parse(text, toy_passes());
  REQUIRE_FALSE(pipeline);
  CHECK(pipeline.error().code == Code::usage);
  CHECK(pipeline.error().frames.empty());
  return pipeline.error().what;
}

// The first line of a refusal: place and reason.
std::string reason(std::string_view text) {
  const std::string all = refusal(text);
  return all.substr(0, all.find('\n'));
}

}  // namespace

TEST_CASE("an empty pipeline, or one of comments, has no passes") {
  CHECK(canonical("") == "");
  CHECK(canonical("  # nothing\n\n") == "");
}

TEST_CASE("the canonical form leaves out defaults and orders options as they are declared") {
  CHECK(canonical("toy-relu") == "toy-relu");
  CHECK(canonical(" toy-relu , toy-count{} ") == "toy-relu,toy-count");
  CHECK(canonical("toy-options{block=8 sparsity=0.50}") == "toy-options{block=8}");
  CHECK(canonical("toy-options{scope=global, exact=true,sparsity=1e-1}") ==
        "toy-options{sparsity=0.1 exact=true scope=global}");
  CHECK(canonical("toy-options{rank=3 ratio=2.5 axes=[-1,2]}") == "toy-options{axes=[-1,2] rank=3 ratio=2.5}");
  CHECK(canonical("toy-options{axes=1}") == "toy-options{axes=[1]}");
  CHECK(canonical("toy-options{families=[]}") == "toy-options{families=[]}");
}

TEST_CASE("comments and white space are free") {
  CHECK(canonical("# recipe\ntoy-relu, # first\n\ttoy-options {\n  block = 2 # two\n  exact\t= true\n}\n") ==
        "toy-relu,toy-options{block=2 exact=true}");
}

TEST_CASE("values are quoted where they must be") {
  CHECK(canonical("toy-options{note=plain/text:1*?}") == "toy-options{note=plain/text:1*?}");
  CHECK(canonical("toy-options{note='a b'}") == "toy-options{note=\"a b\"}");
  CHECK(canonical("toy-options{note=\"\"}") == "toy-options");
  CHECK(canonical(R"(toy-options{note="say \"hi\" \\ \d"})") == R"(toy-options{note="say \"hi\" \\ \\d"})");
  CHECK(canonical("toy-options{note='#no comment'}") == "toy-options{note=\"#no comment\"}");
  CHECK(canonical("toy-options{families=[\"a,b\", c]}") == "toy-options{families=[\"a,b\",c]}");
  CHECK(canonical("toy-options{note=\"two\nlines\"}") == "toy-options{note=\"two\nlines\"}");
}

TEST_CASE("only and skip belong to every pass") {
  CHECK(canonical("toy-relu{skip=op:Softmax}") == "toy-relu{skip=op:Softmax}");
  CHECK(canonical("toy-relu{skip=a only='/l1/* /l2/*'}") == "toy-relu{only=[/l1/*,/l2/*] skip=a}");
  CHECK(canonical("toy-relu{only=[\"with space\"]}") == "toy-relu{only=[\"with space\"]}");
  CHECK(canonical("toy-relu{only=\"re:conv[0-9]+\"}") == "toy-relu{only=\"re:conv[0-9]+\"}");
}

TEST_CASE("fixpoint and on nest") {
  CHECK(canonical("fixpoint(toy-relu,toy-count)") == "fixpoint(toy-relu,toy-count)");
  CHECK(canonical("fixpoint{max=10}(toy-relu)") == "fixpoint(toy-relu)");
  CHECK(canonical("fixpoint{ max = 3 }( fixpoint ( toy-relu ) )") == "fixpoint{max=3}(fixpoint(toy-relu))");
  CHECK(canonical("on{op:Conv /a/* \"x y\"}(toy-relu),toy-count") == "on{op:Conv /a/* \"x y\"}(toy-relu),toy-count");
}

TEST_CASE("an error shows the place with a caret") {
  CHECK(refusal("toy-rellu") == "pipeline 1:1: unknown pass 'toy-rellu', did you mean 'toy-relu'?\n  toy-rellu\n  ^");
  CHECK(refusal("toy-relu,\ntoy-options{block=0}") ==
        "pipeline 2:19: block: 0 is out of range, must be at least 1\n"
        "  toy-options{block=0}\n"
        "                    ^");
  CHECK(refusal("\ttoy-relu toy-count") ==
        "pipeline 1:11: expected ',' between passes, got 'toy-count'\n"
        "  \ttoy-relu toy-count\n"
        "  \t         ^");
  CHECK(refusal("toy-options{note=\xC3\xA9 blok=1}") ==
        "pipeline 1:20: pass 'toy-options' has no option 'blok', did you mean 'block'?\n"
        "  toy-options{note=\xC3\xA9 blok=1}\n"
        "                     ^");
}

TEST_CASE("a long line is cut around the caret") {
  const std::string text = std::string(150, ' ') + "nope" + std::string(200, ' ');
  const std::string message = refusal(text);
  const std::size_t first = message.find('\n') + 1, second = message.find('\n', first) + 1;
  const std::string line = message.substr(first, second - first - 1), pointer = message.substr(second);
  CHECK(line.size() < 110);
  CHECK(line.substr(pointer.size() - 1, 4) == "nope");
}

TEST_CASE("wrong names get a suggestion") {
  CHECK(reason("zzzzzz") == "pipeline 1:1: unknown pass 'zzzzzz'; 'onnxpress passes' lists them");
  CHECK(reason("toy-options{sparsty=1}") ==
        "pipeline 1:13: pass 'toy-options' has no option 'sparsty', did you mean 'sparsity'?");
  CHECK(reason("toy-relu{qqqqqq=1}") == "pipeline 1:10: pass 'toy-relu' has no option 'qqqqqq'; it has only, skip");
  CHECK(reason("toy-options{scope=globl}") ==
        "pipeline 1:19: scope: 'globl' is not one of local|global, did you mean 'global'?");
  CHECK(reason("@clen") == "pipeline 1:1: unknown preset '@clen', did you mean '@clean'?");
}

TEST_CASE("values of the wrong type or outside their range are refused") {
  CHECK(reason("toy-options{sparsity=1.5}") == "pipeline 1:22: sparsity: 1.5 is out of range, must be from 0 to 1");
  CHECK(reason("toy-options{axes=[1,9]}") == "pipeline 1:18: axes: 9 is out of range, must be from -8 to 7");
  CHECK(reason("toy-options{rank=2000}") == "pipeline 1:18: rank: 2000 is out of range, must be at most 1024");
  CHECK(reason("toy-options{sparsity=abc}") == "pipeline 1:22: sparsity: expected a number, got 'abc'");
  CHECK(reason("toy-options{sparsity=nan}") == "pipeline 1:22: sparsity: expected a number, got 'nan'");
  CHECK(reason("toy-options{block=1.5}") == "pipeline 1:19: block: expected a whole number, got '1.5'");
  CHECK(reason("toy-options{block=99999999999999999999}") ==
        "pipeline 1:19: block: expected a whole number, got '99999999999999999999'");
  CHECK(reason("toy-options{block=[1]}") == "pipeline 1:19: block: expected a whole number, not the list [1]");
  CHECK(reason("toy-options{exact=yes}") == "pipeline 1:19: exact: expected true or false, got 'yes'");
  CHECK(reason("toy-options{scope=[local]}").starts_with("pipeline 1:19: scope: 'local' is not one of"));
  CHECK(reason("toy-options{note=[a]}") == "pipeline 1:18: note: expected one text, not the list [a]");
  CHECK(reason("toy-options{axes=x}") == "pipeline 1:18: axes: expected a whole number, got 'x'");
}

TEST_CASE("bad node patterns are refused") {
  CHECK(reason("toy-relu{only=op:}") ==
        "pipeline 1:15: only: 'op:' is no node pattern: a name, a glob, re:REGEX or op:TYPE");
  CHECK(reason("toy-relu{skip='re:('}").starts_with("pipeline 1:15: skip: bad regular expression '(': "));
  CHECK(reason("toy-relu{skip=''}") == "pipeline 1:15: skip: no pattern given");
  CHECK(reason("on{'re:('}(toy-relu)").starts_with("pipeline 1:4: bad regular expression '(': "));
}

TEST_CASE("duplicate options are refused") {
  CHECK(reason("toy-options{block=1 block=2}") == "pipeline 1:21: option 'block' is given twice");
  CHECK(reason("toy-relu{only=a only=b}") == "pipeline 1:17: option 'only' is given twice");
}

TEST_CASE("broken syntax says what was expected") {
  CHECK(reason(",") == "pipeline 1:1: expected a pass, got ','");
  CHECK(reason("toy-relu,") == "pipeline 1:10: expected a pass, got the end");
  CHECK(reason("toy-relu{") == "pipeline 1:10: expected an option or '}', got the end");
  CHECK(reason("toy-options{block}") == "pipeline 1:18: expected '=' after 'block', got '}'");
  CHECK(reason("toy-options{block=}") == "pipeline 1:19: expected a value, got '}'");
  CHECK(reason("toy-options{block=1,}") == "pipeline 1:21: expected an option after ',', got '}'");
  CHECK(reason("toy-options{note='a'block=1}") ==
        "pipeline 1:21: expected a space, ',' or '}' between options, got 'block'");
  CHECK(reason("toy-options{axes=[1}") == "pipeline 1:20: expected ',' or ']' in the list, got '}'");
  CHECK(reason("toy-options{note='open}") == "pipeline 1:18: this quote is not closed");
  CHECK(reason("fixpoint") == "pipeline 1:9: expected '(' after 'fixpoint', got the end");
  CHECK(reason("fixpoint()") == "pipeline 1:10: expected a pass, got ')'");
  CHECK(reason("fixpoint(toy-relu") == "pipeline 1:18: expected ',' or ')', got the end");
  CHECK(reason("fixpoint{min=2}(toy-relu)") ==
        "pipeline 1:10: expected 'max=', the only option of fixpoint, got 'min'");
  CHECK(reason("fixpoint{max=0}(toy-relu)") == "pipeline 1:14: max: 0 is out of range, must be from 1 to 1000");
  CHECK(reason("on(toy-relu)") == "pipeline 1:3: expected '{' after 'on', got '('");
  CHECK(reason("on{}(toy-relu)") == "pipeline 1:4: expected a node pattern, got '}'");
  CHECK(reason("toy-relu)") == "pipeline 1:9: expected ',' between passes, got ')'");
  CHECK(reason("'toy-relu'") == "pipeline 1:1: expected a pass, got 'toy-relu'");
  CHECK(reason("@clean{x=1}").starts_with("pipeline 1:7: a preset takes no options"));
  CHECK(reason(std::string_view("\x01", 1)) == "pipeline 1:1: control character; quote it");
}

TEST_CASE("nesting is limited, so that a recipe cannot exhaust the stack") {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "fixpoint(";
  CHECK(reason(text).ends_with("nested more than 32 deep"));
}

TEST_CASE("a preset that needs an unknown pass says which") {
  CHECK(reason("toy-relu,@int8-cpu") ==
        "pipeline 1:10: preset '@int8-cpu' needs the pass 'clean-constants', which this build does not have");
}

TEST_CASE("single builds one pass from options, with the same checks and no place") {
  const auto made =
      Pipeline::single("toy-options", {{"block", {{"7"}, false}}, {"skip", {{"a b"}, false}}}, toy_passes());
  REQUIRE(made);
  CHECK(made->print() == "toy-options{block=7 skip=[a,b]}");
  const auto error = [](const std::string& key, const std::string& value) {
    return Pipeline::single("toy-options", {{key, {{value}, false}}}, toy_passes()).error().what;
  };
  CHECK(error("block", "0") == "block: 0 is out of range, must be at least 1");
  CHECK(error("blok", "0") == "pass 'toy-options' has no option 'blok', did you mean 'block'?");
  CHECK_FALSE(Pipeline::single("nope", {}, toy_passes()));
}

TEST_CASE("traits of the passes, nested ones included") {
  CHECK(Pipeline::parse("fixpoint(on{a}(toy-data))", toy_passes())->needs_data());
  CHECK(Pipeline::parse("toy-relu,toy-data", toy_passes())->lossy());
  CHECK_FALSE(Pipeline::parse("toy-relu", toy_passes())->needs_data());
  CHECK_FALSE(Pipeline::parse("toy-relu", toy_passes())->lossy());
}
