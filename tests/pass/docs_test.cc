#include "pass/docs.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "pass/toy_passes.h"

using namespace onnxpress;
using namespace onnxpress::testing;
using Catch::Matchers::ContainsSubstring;

namespace {

const PassInfo& toy(std::string_view name) { return *std::ranges::find(toy_passes(), name, &PassInfo::name); }

}  // namespace

TEST_CASE("terminal text of a pass") {
  CHECK(describe_pass_text(toy("toy-options")) ==
        "toy-options: has every type of option\n"
        "(lossless)\n"
        "\n"
        "First line.\n"
        "  Relu(x) => Relu(x)\n"
        "\n"
        "Second paragraph.\n"
        "\n"
        "Options\n"
        "  sparsity=<float>  (default 0.5; from 0 to 1)\n"
        "      part of the weights set to zero\n"
        "  block=<int>  (default 4; at least 1)\n"
        "      weights per block\n"
        "  exact=<bool>  (default false)\n"
        "      no rounding\n"
        "  scope=<local|global>  (default local)\n"
        "      what is ranked\n"
        "  note=<text>  (default \"\")\n"
        "      any text\n"
        "  families=<list of text>  (default [conv,dense])\n"
        "      op families\n"
        "  axes=<list of int>  (default []; from -8 to 7)\n"
        "      axes\n"
        "  rank=<int>  (at most 1024)\n"
        "      kept rank\n"
        "  ratio=<float>\n"
        "      kept part\n"
        "  only=<patterns>\n"
        "      touch only the nodes that match one of these patterns: a name, a glob, re:REGEX or op:TYPE\n"
        "  skip=<patterns>\n"
        "      never touch the nodes that match one of these patterns; wins over only\n"
        "\n"
        "Example\n"
        "  onnxpress compress in.onnx -o out.onnx -p 'toy-options{sparsity=0.7 scope=global}'\n"
        "\n"
        "References\n"
        "  A Paper (arXiv 0000.00000)\n");
}

TEST_CASE("long paragraphs are wrapped") {
  PassInfo info = toy("toy-relu");
  info.description = std::string("start");
  for (int i = 0; i < 60; ++i) info.description += " word" + std::to_string(i);
  const std::string text = describe_pass_text(info);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    CHECK(end - begin <= 100);
    begin = end + 1;
  }
  CHECK_THAT(text, ContainsSubstring("word59\n"));
}

TEST_CASE("the list names every pass and preset") {
  const std::string list = list_passes(toy_passes());
  CHECK_THAT(list, ContainsSubstring("  toy-count      counts up\n"));
  CHECK_THAT(list, ContainsSubstring("  @int8-cpu      8-bit weights"));
}

TEST_CASE("the Markdown page has a section per pass, is deterministic and escapes table cells") {
  const std::string page = passes_markdown(toy_passes());
  CHECK(page == passes_markdown(toy_passes()));
  CHECK_THAT(page, ContainsSubstring("| [toy-data](#toy-data) | wants samples | lossy, needs --data |\n"));
  CHECK_THAT(page, ContainsSubstring("\n## toy-options\n"));
  CHECK_THAT(page, ContainsSubstring("| `scope` | `local\\|global` | `local` |  | what is ranked |\n"));
  CHECK_THAT(page,
             ContainsSubstring("| `sparsity` | `float` | `0.5` | from 0 to 1 | part of the weights set to zero |\n"));
  CHECK(page.ends_with("\n"));
  CHECK_FALSE(page.ends_with("\n\n"));
}

TEST_CASE("the JSON Schema describes every option") {
  const auto schema = nlohmann::json::parse(passes_json_schema(toy_passes()));
  CHECK(schema["properties"].size() == toy_passes().size());
  CHECK(schema["properties"]["toy-data"]["needs_data"] == true);
  const auto& options = schema["properties"]["toy-options"]["properties"];
  CHECK(options["sparsity"]["type"] == "number");
  CHECK(options["sparsity"]["default"] == 0.5);
  CHECK(options["sparsity"]["maximum"] == 1.0);
  CHECK(options["block"]["default"] == 4);
  CHECK(options["exact"]["default"] == false);
  CHECK(options["scope"]["enum"] == nlohmann::json({"local", "global"}));
  CHECK(options["scope"]["default"] == "local");
  CHECK(options["note"]["default"] == "");
  CHECK(options["families"]["default"] == nlohmann::json({"conv", "dense"}));
  CHECK(options["axes"]["items"]["minimum"] == -8.0);
  CHECK(options["axes"]["default"] == nlohmann::json::array());
  CHECK_FALSE(options["rank"].contains("default"));
  CHECK(options["only"]["type"] == "array");
}
