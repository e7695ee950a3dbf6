#include "pass/selector.h"

#include <catch2/catch_test_macros.hpp>

#include "ir/rewriter.h"
#include "support/models.h"

using namespace onnxpress;
using namespace onnxpress::testing;

namespace {

bool matches(std::string_view pattern, const Node& node) {
  const auto selector = Selector::parse(pattern);
  REQUIRE(selector);
  CHECK(selector->text() == pattern);
  return selector->matches(node);
}

}  // namespace

TEST_CASE("selectors match names, globs, regular expressions and op types") {
  Model model = parse(HEAD "g (float[2] x) => (float[2] y) { a = Relu(x) y = com.example.Foo(a) }");
  Rewriter rewriter(model.main());
  const Node named = rewriter.insert_after(model.main().nodes().front(),
                                           {.op = "Neg", .inputs = {"x"}, .outputs = {"n"}, .name = "/layer1/neg"});
  REQUIRE(rewriter.commit());
  const Node relu = model.main().nodes().front(), foo = model.main().nodes().back();

  CHECK(matches("/layer1/neg", named));
  CHECK(matches("/layer1/*", named));
  CHECK(matches("/layer?/neg", named));
  CHECK_FALSE(matches("/layer1", named));
  CHECK_FALSE(matches("Neg->n", named));
  CHECK(matches("Relu->a", relu));
  CHECK(matches("*", relu));

  CHECK(matches("re:/layer\\d+/.*", named));
  CHECK_FALSE(matches("re:layer", named));  // the whole name
  CHECK(matches("re:Relu->a", relu));

  CHECK(matches("op:Relu", relu));
  CHECK(matches("op:R*", relu));
  CHECK_FALSE(matches("op:Relu", named));
  CHECK(matches("op:Foo", foo));
  CHECK(matches("op:com.example.*", foo));
}

TEST_CASE("malformed selectors are refused") {
  for (const std::string_view pattern : {"", "op:", "re:", "re:[", "re:(?=look)"}) {
    INFO(pattern);
    const auto selector = Selector::parse(pattern);
    REQUIRE_FALSE(selector);
    CHECK(selector.error().code == Code::usage);
  }
}

TEST_CASE("skip wins over only") {
  Model model = parse(HEAD "g (float[2] x) => (float[2] y) { y = Relu(x) }");
  const Node node = model.main().nodes().front();
  const Selector relu = *Selector::parse("op:Relu"), add = *Selector::parse("op:Add");
  CHECK(Selection{}.refusal(node).empty());
  CHECK(Selection{.only = {add, relu}, .skip = {}}.refusal(node).empty());
  CHECK(Selection{.only = {add}, .skip = {}}.refusal(node) == "not in only=");
  CHECK(Selection{.only = {relu}, .skip = {add, relu}}.refusal(node) == "matches skip=op:Relu");
  CHECK(Selection{.only = {}, .skip = {add}}.refusal(node).empty());
  CHECK(Selection{}.empty());
}
