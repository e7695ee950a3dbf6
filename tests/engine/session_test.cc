#include "engine/session.h"

#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <fstream>

#include "base/parallel.h"
#include "engine/ort_model.h"
#include "ir/rewriter.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr const char* kMlp = HEAD
    "agraph (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {-5, 1}> "
    "{ h = MatMul(x, w) a = Add(h, b) y = Relu(a) }";

NamedTensor floats(std::string name, Dims dims, std::vector<float> values) {
  return {std::move(name), Tensor::of_floats(std::move(dims), values)};
}

std::vector<float> values(const Tensor& tensor) { return {tensor.as<float>().begin(), tensor.as<float>().end()}; }

std::unique_ptr<Session> open(const Model& model, const SessionOptions& options = {}) {
  auto session = Session::open(model, options);
  INFO((session ? "" : session.error().text()));
  REQUIRE(session);
  return std::move(*session);
}

std::vector<Tensor> run(const Session& session, std::vector<NamedTensor> inputs) {
  auto outputs = session.run(inputs);
  INFO((outputs ? "" : outputs.error().text()));
  REQUIRE(outputs);
  return std::move(*outputs);
}

Error refused(const Session& session, std::vector<NamedTensor> inputs) {
  const auto outputs = session.run(inputs);
  REQUIRE_FALSE(outputs);
  return outputs.error();
}

// Replaces a placeholder initializer by one that is too large for the proto.
void enlarge(Model& model, std::string_view name, Tensor value) {
  Rewriter rewriter(model.main());
  rewriter.set_initializer(model.main().initializer(name), std::move(value));
  REQUIRE(rewriter.commit());
}

std::size_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("a session computes what the graph says") {
  const auto session = open(parse(kMlp));
  REQUIRE(session->inputs().size() == 1);
  CHECK(session->inputs()[0].name == "x");
  CHECK(session->inputs()[0].type.dtype == DType::f32);
  CHECK(session->inputs()[0].type.shape->at(0).symbol == "N");
  CHECK(session->inputs()[0].type.dim(1) == 2);
  REQUIRE(session->outputs().size() == 1);
  CHECK(session->outputs()[0].name == "y");
  const auto y = run(*session, {floats("x", {1, 2}, {1, 1})});
  REQUIRE(y.size() == 1);
  CHECK(y[0].dims() == Dims{1, 2});
  CHECK(values(y[0]) == std::vector<float>{0, 7});
  CHECK(run(*session, {floats("x", {3, 2}, {1, 1, 2, 2, 0, 0})})[0].dims() == Dims{3, 2});
  CHECK(run(*session, {floats("x", {0, 2}, {})})[0].size() == 0);
  const std::vector<NamedTensor> x = {floats("x", {1, 2}, {1, 1})};
  CHECK(session->time(x).value() >= 0);
}

TEST_CASE("results outlive the session, the session outlives the model") {
  std::vector<Tensor> y;
  {
    auto model = std::make_unique<Model>(parse(kMlp));
    const auto session = open(*model);
    model.reset();
    y = run(*session, {floats("x", {1, 2}, {1, 1})});
  }
  CHECK(values(y[0]) == std::vector<float>{0, 7});
}

TEST_CASE("taps come after the outputs, whatever the optimizer fuses") {
  for (const bool optimize : {true, false}) {
    const auto session = open(parse(kMlp), {.optimize = optimize, .taps = {"h", "y", "a", "h"}});
    REQUIRE(session->outputs().size() == 3);  // y is an output already, h is named twice
    CHECK(session->outputs()[0].name == "y");
    CHECK(session->outputs()[1].name == "h");
    CHECK(session->outputs()[2].name == "a");
    const auto all = run(*session, {floats("x", {1, 2}, {1, 1})});
    CHECK(values(all[0]) == std::vector<float>{0, 7});
    CHECK(values(all[1]) == std::vector<float>{4, 6});
    CHECK(values(all[2]) == std::vector<float>{-1, 7});
  }
}

TEST_CASE("inputs and initializers can be tapped; the result does not hang on the caller's memory") {
  const auto session = open(parse(kMlp), {.taps = {"x", "w"}});
  std::vector<Tensor> all;
  {
    std::vector<NamedTensor> inputs = {floats("x", {1, 2}, {8, 9})};
    all = run(*session, inputs);
    inputs[0].tensor.as_mutable<float>()[0] = -1;
  }
  CHECK(values(all[1]) == std::vector<float>{8, 9});
  CHECK(values(all[2]) == std::vector<float>{1, 2, 3, 4});
}

TEST_CASE("a tap that does not exist is refused") {
  const auto session = Session::open(parse(kMlp), {.taps = {"nowhere"}});
  REQUIRE_FALSE(session);
  CHECK(session.error().code == Code::bad_input);
  CHECK_THAT(session.error().text(), ContainsSubstring("nowhere"));
}

TEST_CASE("inputs are checked before the runtime sees them") {
  const auto session = open(parse(HEAD "agraph (float[N, 2] pixels, int64[1] k) => (float[N, 2] y) "
                                       "{ f = Cast<to = 1>(k) y = Add(pixels, f) }"));
  const auto x = floats("pixels", {1, 2}, {1, 1});
  const NamedTensor k{"k", Tensor::of_int64s({1}, std::vector<std::int64_t>{2})};
  CHECK(values(run(*session, {k, x})[0]) == std::vector<float>{3, 3});  // in any order
  const auto expect = [&](std::vector<NamedTensor> inputs, const char* part) {
    const Error error = refused(*session, std::move(inputs));
    CHECK(error.code == Code::bad_input);
    CHECK_THAT(error.text(), ContainsSubstring(part));
  };
  expect({x}, "'k' is missing");
  expect({floats("pixel", {1, 2}, {1, 1}), k}, "did you mean 'pixels'");
  expect({x, x, k}, "given twice");
  expect({floats("pixels", {2}, {1, 1}), k}, "rank 2");
  expect({floats("pixels", {1, 3}, {1, 1, 1}), k}, "[1, 3]");
  expect({x, floats("k", {1}, {2})}, "wants int64");
}

TEST_CASE("what cannot be fed or returned says so") {
  const auto text = open(parse(HEAD "agraph (string[1] s) => (string[1] t) { t = Identity(s) }"));
  const auto wrong = refused(*text, {floats("s", {1}, {1})});
  CHECK(wrong.code == Code::unsupported);
  CHECK_THAT(wrong.text(), ContainsSubstring("string"));
  const auto sequence = open(parse(HEAD "agraph (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }"));
  CHECK_FALSE(sequence->outputs()[0].type.is_tensor);
  CHECK(refused(*sequence, {floats("x", {2}, {1, 2})}).code == Code::unsupported);
}

TEST_CASE("an unknown op is an engine error that names it") {
  const auto session =
      Session::open(parse("<ir_version: 8, opset_import: [\"\": 17, \"my.own\": 1]> "
                          "agraph (float[1] x) => (float[1] y) { y = my.own.Thing(x) }"));
  REQUIRE_FALSE(session);
  CHECK(session.error().code == Code::engine);
  CHECK_THAT(session.error().text(), ContainsSubstring("ONNX Runtime") && ContainsSubstring("Thing"));
}

TEST_CASE("the runtime's message comes without its source location") {
  const auto session =
      Session::open(parse("<ir_version: 99, opset_import: [\"\": 17]> "
                          "agraph (float[1] x) => (float[1] y) { y = Relu(x) }"));
  REQUIRE_FALSE(session);
  CHECK_THAT(session.error().text(), ContainsSubstring("Unsupported model IR version: 99"));
  CHECK_THAT(session.error().text(), !ContainsSubstring("./onnxruntime") && !ContainsSubstring("::"));
}

TEST_CASE("initializers can be fed at every run") {
  Model model = parse(kMlp);
  enlarge(model, "b", Tensor::of_floats({2}, std::vector<float>{10, 20}));
  const auto session = open(model, {.initializers_as_inputs = {"w"}});
  CHECK(session->inputs().size() == 2);
  const auto x = floats("x", {1, 2}, {1, 1});
  CHECK(values(run(*session, {x, floats("w", {2, 2}, {1, 0, 0, 1})})[0]) == std::vector<float>{11, 21});
  CHECK(values(run(*session, {x, floats("w", {2, 2}, {2, 0, 0, 2})})[0]) == std::vector<float>{12, 22});
  CHECK(refused(*session, {x}).code == Code::bad_input);
  CHECK(refused(*session, {x, floats("w", {2, 3}, {1, 0, 0, 1, 0, 0})}).code == Code::bad_input);
  const auto nothing = Session::open(model, {.initializers_as_inputs = {"h"}});
  REQUIRE_FALSE(nothing);
  CHECK(nothing.error().code == Code::bad_input);
}

TEST_CASE("an initializer that shadows an input is its default") {
  const auto session = open(parse(HEAD "agraph (float[2] x, float[2] b = {1, 2}) => (float[2] y) { y = Add(x, b) }"));
  CHECK(session->inputs().size() == 1);
  const auto x = floats("x", {2}, {0, 0});
  CHECK(values(run(*session, {x})[0]) == std::vector<float>{1, 2});
  CHECK(values(run(*session, {x, floats("b", {2}, {7, 8})})[0]) == std::vector<float>{7, 8});
}

TEST_CASE("large weights are handed over, neither serialized nor copied") {
  constexpr std::int64_t kCount = 1 << 24;  // 64 MB
  Model model = parse(HEAD
                      "agraph (float[1] x) => (float[1] y) <float[1] w = {0}, int64[1] last = {16777215}> "
                      "{ s = Add(x, w) y = Gather(s, last) }");
  Tensor large(DType::f32, {kCount});
  large.as_mutable<float>().back() = 42;
  enlarge(model, "w", std::move(large));
  for (const Handover handover : {Handover::address, Handover::inject}) {
    const auto built = make_ort_model(model, {}, handover);
    REQUIRE(built);
    CHECK(built->proto.size() < 1000);
    REQUIRE(built->weights.size() == 1);
    const auto original = model.main().initializer("w").read();
    CHECK(built->weights[0].tensor.bytes().data() == original->bytes().data());
  }
  {
    const auto warm_up = open(parse(kMlp));
  }
  const std::size_t before = resident_bytes();
  const auto session = open(model);
  CHECK(resident_bytes() < before + 32'000'000);
  CHECK(values(run(*session, {floats("x", {1}, {1})})[0]) == std::vector<float>{43});
}

TEST_CASE("stored payloads of bodies and Constant nodes reach the runtime") {
  std::string list = "1";
  for (int i = 1; i < 600; ++i) list += ", 1";  // 2400 bytes
  const Model model = parse(HEAD
                            "agraph (float[600] x, bool c) => (float[600] y) { y = If <"
                            "then_branch = yes () => (float[600] t) <float[600] w = {" +
                            list +
                            "}> { t = Add(x, w) }, "
                            "else_branch = no () => (float[600] e) { k = Constant <value = float[600] {" +
                            list +
                            "}> () "
                            "e = Sub(x, k) }> (c) }");
  const auto session = open(model);
  const auto x = floats("x", {600}, std::vector<float>(600, 5));
  const auto result = [&](bool condition) {
    const NamedTensor c{"c", Tensor::scalar<bool>(DType::boolean, condition)};
    return values(run(*session, {x, c})[0]);
  };
  CHECK(result(true) == std::vector<float>(600, 6));
  CHECK(result(false) == std::vector<float>(600, 4));
}

TEST_CASE("every type the runtime carries goes in and out as raw bytes") {
  const auto round_trip = [](const char* model, Tensor in) {
    const auto session = open(parse(model));
    return run(*session, {{"x", std::move(in)}})[0];
  };
  const auto half = Tensor::of<std::uint16_t>(DType::f16, {2}, std::vector<std::uint16_t>{0x3c00, 0xc000});
  const auto sum = round_trip(HEAD "agraph (float16[2] x) => (float16[2] y) { y = Add(x, x) }", half);
  CHECK(sum.dtype() == DType::f16);
  CHECK(std::ranges::equal(sum.as<std::uint16_t>(), std::vector<std::uint16_t>{0x4000, 0xc400}));
  const auto brain = Tensor::of<std::uint16_t>(DType::bf16, {2}, std::vector<std::uint16_t>{0x3f80, 0xc000});
  CHECK(values(round_trip(HEAD "agraph (bfloat16[2] x) => (float[2] y) { y = Cast<to = 1>(x) }", brain)) ==
        std::vector<float>{1, -2});
  const auto nibbles = Tensor::of<std::uint8_t>(DType::i4, {3}, std::vector<std::uint8_t>{0xf1, 0x07});
  CHECK(values(round_trip("<ir_version: 10, opset_import: [\"\": 21]> agraph (int4[3] x) => (float[3] y) "
                          "<float s = {0.5}> { y = DequantizeLinear(x, s) }",
                          nibbles)) == std::vector<float>{0.5F, -0.5F, 3.5F});
  const auto flag = round_trip(HEAD "agraph (bool[2] x) => (bool[2] y) { y = Not(x) }",
                               Tensor::of<std::uint8_t>(DType::boolean, {2}, std::vector<std::uint8_t>{0, 1}));
  CHECK(std::ranges::equal(flag.as<std::uint8_t>(), std::vector<std::uint8_t>{1, 0}));
}

TEST_CASE("two sessions run side by side, each from several threads") {
  const auto one = open(parse(kMlp));
  const auto two = open(parse(HEAD "agraph (float[N, 2] x) => (float[N, 2] y) { y = Neg(x) }"), {.threads = 2});
  const Status status = parallel_for(64, 4, [&](std::size_t i) -> Status {
    const auto n = static_cast<float>(i);
    const std::vector<NamedTensor> x = {floats("x", {1, 2}, {n, n})};
    OP_LET(const auto a, one->run(x));
    OP_LET(const auto b, two->run(x));
    if (values(a[0]) != std::vector<float>{std::max(0.0F, 4 * n - 5), 6 * n + 1}) return fail(Code::internal, "one");
    if (values(b[0]) != std::vector<float>{-n, -n}) return fail(Code::internal, "two");
    return {};
  });
  CHECK(status);
}

TEST_CASE("threads do not change a result") {
  Model model = parse(HEAD "agraph (float[8, 256] x) => (float[8, 300] y) <float[1] w = {0}> { y = MatMul(x, w) }");
  enlarge(model, "w", Tensor::of_floats({256, 300}, random_floats(256 * 300, 1)));
  const auto x = floats("x", {8, 256}, random_floats(8 * 256, 2));
  const auto expected = values(run(*open(model), {x})[0]);
  CHECK(values(run(*open(model, {.threads = 2}), {x})[0]) == expected);
  CHECK(values(run(*open(model, {.threads = 0}), {x})[0]) == expected);
}

TEST_CASE("the optimized graph shows what is fused") {
  Model model = parse(HEAD
                      "agraph (float[1, 3, 8, 8] x) => (float[1, 64, 8, 8] y) <float[1] w = {0}> "
                      "{ c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w) y = Relu(c) }");
  enlarge(model, "w", Tensor::of_floats({64, 3, 3, 3}, random_floats(64 * 27, 3)));
  const auto extended = optimized_ops(model);
  REQUIRE(extended);
  CHECK(*extended == std::map<std::string, std::size_t>{{"com.microsoft.FusedConv", 1}});
  const auto all = optimized_ops(model, false);
  INFO((all ? "" : all.error().text()));
  REQUIRE(all);
  CHECK_FALSE(all->contains("Relu"));
  // Weights handed over reach the optimizers whole, those that change their layout too.
  const auto x = floats("x", {1, 3, 8, 8}, random_floats(3 * 64, 4));
  const auto fused = values(run(*open(model), {x})[0]);
  const auto plain = values(run(*open(model, {.optimize = false}), {x})[0]);
  REQUIRE(fused.size() == plain.size());
  for (std::size_t i = 0; i < fused.size(); ++i) REQUIRE(std::abs(fused[i] - plain[i]) < 1e-4F);
}

TEST_CASE("the optimized graph shows an integer convolution, and ops in bodies") {
  Model model = parse(HEAD
                      "agraph (float[1, 16, 8, 8] x, bool c) => (float[1, 16, 8, 8] y, float[1] z) "
                      "<int8[1] w = {0}, int64[1] axes = {0}, float s = {0.1}, uint8 z8 = {128}, int8 z0 = {0}> { "
                      "q = QuantizeLinear(x, s, z8) d = DequantizeLinear(q, s, z8) k = DequantizeLinear(w, s, z0) "
                      "f = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(d, k) r = QuantizeLinear(f, s, z8) "
                      "y = DequantizeLinear(r, s, z8) m = ReduceMax<keepdims = 0>(x) one = Unsqueeze(m, axes) "
                      "z = If<then_branch = a () => (float[1] t) { t = Sin(one) }, "
                      "else_branch = b () => (float[1] e) { e = Cos(one) }>(c) }");
  enlarge(model, "w", Tensor(DType::i8, {16, 16, 3, 3}, std::vector<std::byte>(16 * 16 * 9, std::byte{3})));
  const auto ops = optimized_ops(model);
  INFO((ops ? "" : ops.error().text()));
  REQUIRE(ops);
  CHECK(ops->at("QLinearConv") == 1);
  CHECK_FALSE(ops->contains("Conv"));
  CHECK(ops->at("If") == 1);
  CHECK(ops->at("Sin") == 1);
  CHECK(ops->at("Cos") == 1);
}

TEST_CASE("the optimized graph of a refused model is an error") {
  const auto ops = optimized_ops(parse(HEAD "agraph (float[1] x) => (float[1] y) { y = NoSuchOp(x) }"));
  REQUIRE_FALSE(ops);
  CHECK(ops.error().code == Code::engine);
}

TEST_CASE("the runner evaluates a model without inputs") {
  EngineRunner runner;
  const auto y = runner.run(parse(HEAD "agraph () => (float[2] y) <float[2] a = {1, 2}> { y = Add(a, a) }"), {});
  REQUIRE(y);
  CHECK(values((*y)[0]) == std::vector<float>{2, 4});
  CHECK_FALSE(runner.run(parse(HEAD "agraph () => (float[2] y) <float[2] a = {1, 2}> { y = NoSuchOp(a) }"), {}));
  CHECK_THAT(runtime_version(), ContainsSubstring("ONNX Runtime 1."));
}

}  // namespace onnxpress::testing
