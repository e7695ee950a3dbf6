#include "ir/upconvert.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "support/models.h"
#include "support/numeric.h"

namespace onnxpress::testing {
namespace {

std::string head(std::int64_t opset, std::int64_t ir = 8) {
  return fmt::format("<ir_version: {}, opset_import: [\"\": {}]> ", ir, opset);
}

struct Case {
  std::int64_t from;
  std::string graph;  // of input x
  Dims input;
};

// The model must give the very same outputs at `to`, and at every opset between.
void check_same(const Case& sample) {
  INFO("opset " << sample.from << ": " << sample.graph);
  const Model before = parse(head(sample.from) + sample.graph);
  const Batch batch = random_batch("x", sample.input, 5);
  const auto expected = run_on(before, batch);
  for (std::int64_t to = sample.from + 1; to <= kNewestOpset; ++to) {
    INFO("to " << to);
    Model model = parse(head(sample.from) + sample.graph);
    const auto changed = upconvert(model, to);
    INFO((changed ? "" : changed.error().text()));
    REQUIRE(changed);
    CHECK(*changed);
    CHECK(model.opset() == to);
    CHECK(model.ir_version() >= ir_version_for(to));
    CHECK(model.main().outputs() == before.main().outputs());
    const auto got = run_on(model, batch);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      CHECK(got[i].dtype() == expected[i].dtype());
      REQUIRE(got[i].dims() == expected[i].dims());
      CHECK((std::ranges::equal(got[i].bytes(), expected[i].bytes())));
    }
  }
}

void check_refused(const std::string& source, std::int64_t to, std::string_view reason) {
  INFO(source);
  Model model = parse(source);
  const std::string before = model.fingerprint().value();
  const auto changed = upconvert(model, to);
  REQUIRE_FALSE(changed);
  INFO(changed.error().text());
  CHECK(changed.error().code == Code::unsupported);
  CHECK(changed.error().text().find(reason) != std::string::npos);
  CHECK(model.fingerprint().value() == before);
}

TEST_CASE("upconvert: attributes that became inputs") {
  const std::string square = "g (float[2, 3, 4] x) => (float y) ";
  for (const std::string node :
       {"ReduceSum <axes = [1]> (x)", "ReduceSum <axes = [0, 2], keepdims = 0> (x)", "ReduceSum (x)",
        "ReduceMean <axes = [2]> (x)", "ReduceMax <axes = [0], keepdims = 0> (x)", "ReduceL2 <axes = [1]> (x)",
        "ReduceProd (x)", "Unsqueeze <axes = [0, 3]> (x)", "Clip <min = -0.25, max = 0.5> (x)", "Clip <max = 0.25> (x)",
        "Clip (x)", "Pad <pads = [0, 1, 0, 0, 2, 1]> (x)", "Pad <pads = [0, 0, 1, 0, 0, 2], value = 1.5> (x)",
        "Pad <pads = [0, 1, 0, 0, 1, 0], mode = \"reflect\"> (x)", "Slice <starts = [0, 1], ends = [2, 3]> (x)",
        "Slice <starts = [-2], ends = [1000], axes = [2]> (x)"}) {
    check_same({7, square + "{ y = " + node + " }", {2, 3, 4}});
  }
  check_same({7, "g (float[1, 3, 1] x) => (float y) { y = Squeeze <axes = [0]> (x) }", {1, 3, 1}});
  check_same({7, "g (float[1, 3, 1] x) => (float y) { y = Squeeze (x) }", {1, 3, 1}});
  check_same({11, "g (float[1, 3, 1] x) => (float y) { y = Squeeze <axes = [-1]> (x) }", {1, 3, 1}});
  check_same({7, "g (float[2, 6] x) => (float y, int64 i) { y, i = TopK <k = 3, axis = 1> (x) }", {2, 6}});
  check_same({7, "g (float[2, 6] x) => (float y, float z) { y, z = Split <axis = 1> (x) }", {2, 6}});
  check_same({7, "g (float[2, 6] x) => (float y, float z) { y, z = Split <axis = 1, split = [2, 4]> (x) }", {2, 6}});
}

TEST_CASE("upconvert: Softmax and its kin over a matrix cut at the axis") {
  for (const std::string op : {"Softmax", "LogSoftmax", "Hardmax"})
    for (const std::string axis : {"", " <axis = 0>", " <axis = 1>", " <axis = 2>"})
      check_same({7, "g (float[2, 3, 4] x) => (float y) { y = " + op + axis + " (x) }", {2, 3, 4}});
  check_same({11, "g (float[2, 3, 4] x) => (float y) { y = Softmax <axis = -2> (x) }", {2, 3, 4}});
  check_same({11, "g (float[2, 3, 1, 1] x) => (float y) { y = Softmax <axis = 1> (x) }", {2, 3, 1, 1}});
  check_same({9, "g (float[a, b, c] x) => (float y) { y = Softmax <axis = 1> (x) }", {2, 3, 4}});

  Model last = parse(head(9) + "g (float[2, 3] x) => (float[2, 3] y) { y = Softmax (x) }");
  REQUIRE(upconvert(last, 13));
  CHECK(ops_of(last) == OpCounts{{"Softmax", 1}});
  Model ones = parse(head(9) + "g (float[2, 3, 1, 1] x) => (float[2, 3, 1, 1] y) { y = Softmax (x) }");
  REQUIRE(upconvert(ones, 13));
  CHECK(ops_of(ones) == OpCounts{{"Softmax", 1}});
}

TEST_CASE("upconvert: Upsample and Resize keep their coordinates") {
  const std::string image = "g (float[1, 2, 4, 5] x) => (float y) ";
  for (const std::string mode : {"nearest", "linear"}) {
    check_same(
        {7, image + "{ y = Upsample <mode = \"" + mode + "\", scales = [1.0, 1.0, 2.0, 3.0]> (x) }", {1, 2, 4, 5}});
    check_same(
        {9, image + "<float[4] s = {1, 1, 2, 1.5}> { y = Upsample <mode = \"" + mode + "\"> (x, s) }", {1, 2, 4, 5}});
    check_same(
        {10, image + "<float[4] s = {1, 1, 2, 1.5}> { y = Resize <mode = \"" + mode + "\"> (x, s) }", {1, 2, 4, 5}});
    check_same(
        {10, image + "<float[4] s = {1, 1, 0.6, 0.5}> { y = Resize <mode = \"" + mode + "\"> (x, s) }", {1, 2, 4, 5}});
  }
  check_same({11,
              image + "<float[4] s = {1, 1, 2, 2}, float[0] roi = {}> { y = Resize <mode = \"linear\"> (x, roi, s) }",
              {1, 2, 4, 5}});
  check_same({11,
              image + "<int64[4] z = {1, 2, 8, 7}, float[0] roi = {}, float[0] s = {}> "
                      "{ y = Resize <mode = \"cubic\"> (x, roi, s, z) }",
              {1, 2, 4, 5}});
  check_refused(head(10) + image + "<float[4] s = {1, 1, 2, 0.5}> { y = Resize (x, s) }", 11, "enlarges one axis");
  check_refused(head(11) + image +
                    "<float[4] s = {1, 1, 2, 2}, float[0] roi = {}> { y = Resize "
                    "<coordinate_transformation_mode = \"tf_half_pixel_for_nn\"> (x, roi, s) }",
                13, "tf_half_pixel_for_nn");
}

TEST_CASE("upconvert: BatchNormalization and Dropout") {
  const std::string norm =
      "g (float[2, 3, 4] x) => (float y) <float[3] s = {1, 2, 3}, float[3] b = {0, 1, 2}, float[3] m = {0.5, 0, 1}, "
      "float[3] v = {1, 2, 4}> ";
  check_same({7, norm + "{ y = BatchNormalization (x, s, b, m, v) }", {2, 3, 4}});
  check_same({7, norm + "{ y = BatchNormalization <spatial = 1, epsilon = 0.01> (x, s, b, m, v) }", {2, 3, 4}});
  check_refused(head(7) + norm + "{ y = BatchNormalization <spatial = 0> (x, s, b, m, v) }", 9, "spatial=0");
  check_refused(head(9) + norm + "{ y, p, q = BatchNormalization (x, s, b, m, v) }", 14, "training");
  const std::string flat = "g (float[2, 3] x) => (float y) ";
  check_same({7, flat + "{ y = Dropout <ratio = 0.25> (x) }", {2, 3}});
  check_same({10, flat + "{ y = Dropout (x) }", {2, 3}});
}

TEST_CASE("upconvert: Scatter, GridSample, RoiAlign, DFT, GroupNormalization") {
  check_same({9,
              "g (float[3, 3] x) => (float y) <int64[1, 2] i = {1, 2}, float[1, 2] u = {7, 8}> "
              "{ y = Scatter <axis = 1> (x, i, u) }",
              {3, 3}});
  check_same({16,
              "g (float[1, 2, 4, 4] x) => (float y) <" + float_tensor("grid", {1, 3, 3, 2}, 3) +
                  "> { y = GridSample <mode = \"bilinear\"> (x, grid) }",
              {1, 2, 4, 4}});
  check_same({10,
              "g (float[1, 2, 8, 8] x) => (float y) <float[1, 4] r = {0, 0, 6, 5}, int64[1] i = {0}> "
              "{ y = RoiAlign <output_height = 2, output_width = 2> (x, r, i) }",
              {1, 2, 8, 8}});
  check_same({17, "g (float[1, 8, 1] x) => (float y) { y = DFT <axis = 1> (x) }", {1, 8, 1}});
  check_refused(head(18) +
                    "g (float[n, c, 4] x) => (float y) <float[2] s = {1, 2}, float[2] b = {0, 1}> "
                    "{ y = GroupNormalization <num_groups = 2> (x, s, b) }",
                21, "how many channels");
}

TEST_CASE("upconvert: GroupNormalization scales channels as it scaled groups") {
  Model model = parse(head(18) +
                      "g (float[1, 4, 2] x) => (float[1, 4, 2] y) <float[2] s = {1, 2}, float[2] b = {0, 1}> "
                      "{ y = GroupNormalization <num_groups = 2> (x, s, b) }");
  REQUIRE(upconvert(model, 21));
  const Batch batch = random_batch("x", {1, 4, 2}, 5);
  const auto got = run_on(model, batch);
  const auto x = batch.inputs[0].tensor.as<float>(), y = got[0].as<float>();
  for (std::size_t g = 0; g < 2; ++g) {
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < 4; ++i) mean += x[g * 4 + i] / 4.0;
    for (std::size_t i = 0; i < 4; ++i) variance += (x[g * 4 + i] - mean) * (x[g * 4 + i] - mean) / 4.0;
    for (std::size_t i = 0; i < 4; ++i) {
      const double expected =
          (x[g * 4 + i] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(g + 1) + static_cast<double>(g);
      CHECK(std::abs(y[g * 4 + i] - expected) < 1e-4);
    }
  }
}

TEST_CASE("upconvert: bodies of If and Loop, with captured values") {
  const std::string body =
      "g (float[2, 3] x) => (float[2, 3] y) <bool c = {1}> { "
      "y = If (c) <then_branch = t () => (float[2, 3] a) { s = Softmax <axis = 0> (x) a = Clip <min = 0.1> (s) }, "
      "else_branch = e () => (float[2, 3] b) { b = Identity (x) }> }";
  check_same({9, body, {2, 3}});
  check_same({11,
              "g (float[2, 3] x) => (float[2, 3] y) <int64 n = {3}, bool go = {1}> { y = Loop (n, go, x) "
              "<body = b (int64 i, bool c, float[2, 3] v) => (bool d, float[2, 3] w) "
              "{ d = Identity (c) r = ReduceSum <axes = [1]> (v) w = Sub (v, r) }> }",
              {2, 3}});
}

TEST_CASE("upconvert: other domains, names and untouched nodes stay") {
  Model model = parse(
      "<ir_version: 3, opset_import: [\"\": 9, \"my.own\": 2]> g (float[1, 3] x, float[3] w) => (float[3] y) <float[3] "
      "w = "
      "{1, 2, 3}> { a = my.own.Mystery <axes = [1]> (x) b = Add (a, w) y = Squeeze <axes = [0]> (b) }");
  UpconvertLog log;
  const auto changed = upconvert(model, 13, &log);
  REQUIRE(changed);
  CHECK(model.opset("my.own") == 2);
  CHECK(model.ir_version() == 7);
  CHECK(model.main().inputs() == std::vector<std::string>{"x"});  // from IR 4 on initializers are no inputs
  REQUIRE(log.converted.size() == 1);
  CHECK(log.converted[0].first.is("Squeeze"));
  CHECK(nodes_of(model, "Mystery")[0].has_attr("axes"));
}

TEST_CASE("upconvert refuses as a whole, and names what is in the way") {
  check_refused(head(6, 3) + "g (float[2] x) => (float[2] y) { y = Relu (x) }", 13, "only 7 to 21");
  check_refused(head(9) + "g (float[2] x) => (float[2] y) { y = Relu (x) }", 22, "only 7 to 21");
  check_refused(head(9) + "g (float[2] x) => (float[2] y) { a = Squeeze <axes = [0]> (x) y = NoSuchOp (a) }", 13,
                "NoSuchOp");
  check_refused(
      "<ir_version: 8, opset_import: [\"\": 17, \"f\": 1]> g (float[2] x) => (float[2] y) { y = f.twice (x) } "
      "<domain: \"f\", opset_import: [\"\": 17]> twice (a) => (b) { b = Add (a, a) }",
      18, "functions");
  Model same = parse(head(13) + "g (float[2] x) => (float[2] y) { y = Relu (x) }");
  CHECK(upconvert(same, 13) == false);
  CHECK(upconvert(same, 11) == false);
}

TEST_CASE("upconvert: the IR version rises as far as the opset needs") {
  CHECK(ir_version_for(7) == 3);
  CHECK(ir_version_for(9) == 4);
  CHECK(ir_version_for(13) == 7);
  CHECK(ir_version_for(17) == 8);
  CHECK(ir_version_for(19) == 9);
  CHECK(ir_version_for(21) == 10);
  Model model = parse(head(13, 8) + "g (float[2] x) => (float[2] y) { y = Relu (x) }");
  REQUIRE(upconvert(model, 15));
  CHECK(model.ir_version() == 8);
}

}  // namespace
}  // namespace onnxpress::testing
