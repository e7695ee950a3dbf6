// Options that live in a member of a pass's Options, and options that make samples unnecessary.
#include <catch2/catch_test_macros.hpp>

#include "pass/pipeline.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

struct Part {
  double width = 2;
  std::string file = {};
  static void describe(Schema<Part>& schema) {
    schema.add("width", &Part::width, "how wide", {.min = 0, .max = 9}).add("file", &Part::file, "read instead");
  }
};
struct WholeOptions {
  bool flag = false;
  Part part;
};

class Whole : public Pass {
 public:
  explicit Whole(WholeOptions options) : options_(std::move(options)) {}
  static void describe(Schema<WholeOptions>& schema) {
    schema.add("flag", &WholeOptions::flag, "of the pass itself").add_part(&WholeOptions::part);
  }
  Result<Outcome> run(Model& model, PassContext&) const override {
    model.set_metadata("width", options_.part.file + std::to_string(static_cast<int>(options_.part.width)));
    return Outcome{true};
  }

 private:
  WholeOptions options_;
};

const std::vector<PassInfo>& passes() {
  static const std::vector<PassInfo> list = {describe_pass<Whole, WholeOptions>(
      {.name = "toy-whole",
       .summary = "has a part",
       .description = "",
       .example = "",
       .needs_data = true,
       .spares_data = [](const void* o) { return !static_cast<const WholeOptions*>(o)->part.file.empty(); }})};
  return list;
}

}  // namespace

TEST_CASE("options of a part are parsed, checked and printed like the pass's own") {
  const auto pipeline = Pipeline::parse("toy-whole{width=3 flag=true file=a}", passes());
  REQUIRE(pipeline);
  CHECK(pipeline->print() == "toy-whole{flag=true width=3 file=a}");
  CHECK(Pipeline::parse("toy-whole{width=2}", passes())->print() == "toy-whole");
  CHECK_FALSE(Pipeline::parse("toy-whole{width=10}", passes()));
  CHECK(passes().front().options[1].fallback == "2");
  Model model = parse(HEAD "g (float[1] x) => (float[1] y) { y = Relu(x) }");
  PassContext context;
  REQUIRE(pipeline->run(model, context, {}, nullptr));
  CHECK(model.metadata("width") == "a3");
}

TEST_CASE("an option can make the samples unnecessary") {
  CHECK(Pipeline::parse("toy-whole", passes())->needs_data());
  CHECK_FALSE(Pipeline::parse("toy-whole{file=a}", passes())->needs_data());
  const auto mixed = Pipeline::parse("toy-whole{file=a},toy-whole", passes());
  CHECK(mixed->needs_data());
  Model model = parse(HEAD "g (float[1] x) => (float[1] y) { y = Relu(x) }");
  PassContext context;
  CHECK(mixed->run(model, context, {}, nullptr).error().what == "toy-whole needs --data");
}

}  // namespace onnxpress::testing
