// Session::observe: values are seen where they are made, in any scope, and nothing else is computed.
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>

#include "engine/ort_model.h"
#include "engine/session.h"
#include "ir/rewriter.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

NamedTensor floats(std::string name, Dims dims, std::vector<float> values) {
  return {std::move(name), Tensor::of_floats(std::move(dims), values)};
}

std::unique_ptr<Session> watching(const Model& model, std::vector<ObservedValue> values) {
  auto session = Session::open(model, {.observe = std::move(values)});
  INFO((session ? "" : session.error().text()));
  REQUIRE(session);
  return std::move(*session);
}

Error refused(const Model& model, std::vector<ObservedValue> values) {
  const auto session = Session::open(model, {.observe = std::move(values)});
  REQUIRE_FALSE(session);
  return session.error();
}

struct Seen {
  std::size_t index;
  std::vector<float> values;
  bool operator==(const Seen&) const = default;
};

std::vector<Seen> watch(const Session& session, std::vector<NamedTensor> inputs) {
  std::vector<Seen> all;
  const Status status = session.observe(inputs, [&](std::size_t index, const TensorView& value) -> Status {
    OP_LET(std::vector<float> numbers, to_floats(value));
    all.push_back({index, std::move(numbers)});
    return {};
  });
  INFO((status ? "" : status.error().text()));
  REQUIRE(status);
  return all;
}

// The bodies of the first node of the graph that has any.
std::vector<Graph*> bodies(const Graph& graph) {
  for (const Node& node : graph.nodes())
    if (node.has_subgraph()) return node.subgraphs();
  FAIL("no body");
  return {};
}

std::size_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

constexpr const char* kMlp = HEAD
    "agraph (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {-5, 1}> "
    "{ h = MatMul(x, w) a = Add(h, b) y = Relu(a) }";

}  // namespace

TEST_CASE("inputs, initializers, intermediate values and outputs are shown, each when it is made") {
  const auto session = watching(parse(kMlp), {{"y"}, {"h"}, {"x"}, {"a"}, {"w"}});
  const auto seen = watch(*session, {floats("x", {1, 2}, {1, 1})});
  REQUIRE(seen.size() == 5);
  const auto of = [&](std::size_t index) { return std::ranges::find(seen, index, &Seen::index)->values; };
  CHECK(of(0) == std::vector<float>{0, 7});
  CHECK(of(1) == std::vector<float>{4, 6});
  CHECK(of(2) == std::vector<float>{1, 1});
  CHECK(of(3) == std::vector<float>{-1, 7});
  CHECK(of(4) == std::vector<float>{1, 2, 3, 4});
  const auto at = [&](std::size_t index) { return std::ranges::find(seen, index, &Seen::index) - seen.begin(); };
  CHECK(at(1) < at(3));
  CHECK(at(3) < at(0));
}

TEST_CASE("observed tensors are freed while the run goes on") {
  constexpr std::size_t kLayers = 40, kCount = 1 << 20;  // 4 MB each
  std::string nodes, last = "x";
  std::vector<ObservedValue> values;
  for (std::size_t i = 0; i < kLayers; ++i) {
    const std::string next = "v" + std::to_string(i);
    nodes += next + (i % 2 == 0 ? " = Sigmoid(" : " = Neg(") + last + ") ";
    values.push_back({next});
    last = next;
  }
  const Model model = parse(HEAD "agraph (float[N] x) => (float[N] " + last + ") { " + nodes + "}");
  const auto session = watching(model, values);
  const std::vector<NamedTensor> x = {floats("x", {kCount}, random_floats(kCount, 1))};
  const std::size_t before = resident_bytes();
  std::size_t most = 0, next = 0;
  REQUIRE(session->observe(x, [&](std::size_t index, const TensorView&) -> Status {
    CHECK(index == next++);
    most = std::max(most, resident_bytes());
    return {};
  }));
  CHECK(next == kLayers);
  CHECK(most < before + 8 * kCount * sizeof(float));
}

TEST_CASE("only what the observed values depend on is run") {
  // Behind h and beside it: ops the runtime does not know.
  Model model = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"my.own\": 1]> agraph (float[N, 2] x, float[2] z) => (float[N, 2] y) "
      "<float[2, 2] w = {1, 2, 3, 4}, float[1] v = {0}> "
      "{ q = my.own.Thing(z) h = MatMul(x, w) k = MatMul(h, v) y = my.own.Thing(k) }");
  Rewriter rewriter(model.main());
  rewriter.set_initializer(model.main().initializer("v"), Tensor(DType::f32, {2, 4096}));
  REQUIRE(rewriter.commit());
  const SessionOptions options{.observe = {{"h"}}};
  const auto built = make_ort_model(model, options, Handover::address);
  REQUIRE(built);
  CHECK(built->weights.empty());  // v is not even read
  const auto session = watching(model, {{"h"}});
  const auto seen = watch(*session, {floats("x", {1, 2}, {1, 1}), floats("z", {2}, {0, 0})});
  CHECK(seen == std::vector<Seen>{{0, {4, 6}}});
  // Inputs are still checked against the model, those that nothing reads as well.
  const std::vector<NamedTensor> missing = {floats("x", {1, 2}, {1, 1})};
  const Status status = session->observe(missing, [](std::size_t, const TensorView&) -> Status { return {}; });
  REQUIRE_FALSE(status);
  CHECK(status.error().code == Code::bad_input);
}

TEST_CASE("a Loop body is seen once per iteration: its inputs, its values and what it captures") {
  const Model model = parse(HEAD
                            "agraph (float[2] x, int64 n) => (float[2] y) <bool go = {1}> "
                            "{ t = Neg(x) y = Loop(n, go, x) <body = b (int64 i, bool ci, float[2] s) => "
                            "(bool co, float[2] r) { co = Identity(ci) m = Mul(s, s) r = Add(m, t) }> }");
  const Graph* body = bodies(model.main())[0];
  const auto session = watching(model, {{"m", body}, {"i", body}, {"s", body}, {"t", body}, {"r", body}, {"t"}});
  const auto seen = watch(*session, {floats("x", {2}, {2, 3}), {"n", Tensor::scalar<std::int64_t>(DType::i64, 3)}});
  const auto of = [&](std::size_t index) {
    std::vector<std::vector<float>> found;
    for (const Seen& one : seen)
      if (one.index == index) found.push_back(one.values);
    return found;
  };
  using Rows = std::vector<std::vector<float>>;
  CHECK(of(0) == Rows{{4, 9}, {4, 36}, {4, 1089}});
  CHECK(of(1) == Rows{{0}, {1}, {2}});
  CHECK(of(2) == Rows{{2, 3}, {2, 6}, {2, 33}});
  CHECK(of(3) == Rows{{-2, -3}, {-2, -3}, {-2, -3}});
  CHECK(of(4) == Rows{{2, 6}, {2, 33}, {2, 1086}});
  CHECK(of(5) == Rows{{-2, -3}});
  CHECK(watch(*session, {floats("x", {2}, {2, 3}), {"n", Tensor::scalar<std::int64_t>(DType::i64, 0)}}).size() == 1);
}

TEST_CASE("the branch of If that is taken is seen, also within a Loop") {
  const Model model = parse(HEAD
                            "agraph (float[2] x) => (float[2] y) <bool go = {1}, int64 n = {3}, int64 one = {1}> "
                            "{ y = Loop(n, go, x) <body = b (int64 i, bool ci, float[2] s) => (bool co, float[2] r) "
                            "{ co = Identity(ci) c = Equal(i, one) "
                            "r = If(c) <then_branch = p () => (float[2] u) { d = Add(s, s) u = Neg(d) }, "
                            "else_branch = q () => (float[2] v) { v = Exp(s) }> }> }");
  const auto branches = bodies(*bodies(model.main())[0]);
  const auto session = watching(model, {{"d", branches[0]}, {"v", branches[1]}, {"s", branches[0]}});
  const auto seen = watch(*session, {floats("x", {2}, {0, 0})});
  REQUIRE(seen.size() == 4);
  CHECK(seen[0] == Seen{1, {1, 1}});
  const auto in_branch = std::vector<Seen>{seen[1], seen[2]};
  CHECK(std::ranges::contains(in_branch, Seen{0, {2, 2}}));
  CHECK(std::ranges::contains(in_branch, Seen{2, {1, 1}}));
  CHECK(seen[3].index == 1);
}

TEST_CASE("a branch that the runtime knows to be taken, and merges into the graph around it, is seen") {
  const Model model = parse(HEAD
                            "agraph (float[2] x) => (float[2] y) <bool c = {1}> { h = Neg(x) "
                            "y = If(c) <then_branch = p () => (float[2] u) { d = Add(h, h) u = Neg(d) }, "
                            "else_branch = q () => (float[2] v) { v = Exp(h) }> }");
  const auto branches = bodies(model.main());
  const auto session = watching(model, {{"d", branches[0]}, {"v", branches[1]}, {"y"}});
  const auto seen = watch(*session, {floats("x", {2}, {1, 2})});
  REQUIRE(seen.size() == 2);
  CHECK(std::ranges::contains(seen, Seen{0, {-2, -4}}));
  CHECK(std::ranges::contains(seen, Seen{2, {2, 4}}));
}

TEST_CASE("a Scan body is seen once per slice") {
  const Model model = parse(HEAD
                            "agraph (float[3, 2] x, float[2] start) => (float[2] y, float[3, 2] all) "
                            "{ y, all = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] v) => "
                            "(float[2] r, float[2] o) { r = Add(s, v) o = Identity(r) }> (start, x) }");
  const Graph* body = bodies(model.main())[0];
  const auto session = watching(model, {{"r", body}});
  const auto seen = watch(*session, {floats("x", {3, 2}, {1, 2, 3, 4, 5, 6}), floats("start", {2}, {0, 0})});
  CHECK(seen == std::vector<Seen>{{0, {1, 2}}, {0, {4, 6}}, {0, {9, 12}}});
}

TEST_CASE("what has been fused away by the runtime is seen when it is asked for") {
  Model model = parse(HEAD
                      "agraph (float[1, 3, 8, 8] x) => (float[1, 64, 8, 8] y) <float[1] w = {0}> "
                      "{ c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w) y = Relu(c) }");
  Rewriter rewriter(model.main());
  rewriter.set_initializer(model.main().initializer("w"), Tensor::of_floats({64, 3, 3, 3}, random_floats(64 * 27, 3)));
  REQUIRE(rewriter.commit());
  const auto session = watching(model, {{"c"}, {"y"}});
  const auto seen = watch(*session, {floats("x", {1, 3, 8, 8}, random_floats(3 * 64, 4))});
  REQUIRE(seen.size() == 2);
  CHECK(std::ranges::min(seen[0].values) < 0);
  for (std::size_t i = 0; i < seen[0].values.size(); ++i)
    REQUIRE(std::max(seen[0].values[i], 0.0F) == seen[1].values[i]);
}

TEST_CASE("values of every type are shown, the empty ones too") {
  const Model model = parse(HEAD
                            "agraph (float[N] x) => (float[N] y) { h = Cast<to = 10>(x) i = Cast<to = 7>(x) "
                            "b = Cast<to = 9>(x) s = Shape(x) y = Identity(x) }");
  const auto session = watching(model, {{"h"}, {"i"}, {"b"}, {"s"}});
  std::vector<std::pair<DType, Dims>> types(4);
  for (const std::size_t count : {std::size_t{3}, std::size_t{0}}) {
    const std::vector<NamedTensor> x = {floats("x", {static_cast<std::int64_t>(count)}, std::vector<float>(count, 2))};
    REQUIRE(session->observe(x, [&](std::size_t index, const TensorView& value) -> Status {
      types[index] = {value.dtype, {value.dims.begin(), value.dims.end()}};
      CHECK(value.bytes.size() == byte_count(value.dtype, value.dims));
      return {};
    }));
    const auto n = static_cast<std::int64_t>(count);
    const std::vector<std::pair<DType, Dims>> expected = {
        {DType::f16, {n}}, {DType::i64, {n}}, {DType::boolean, {n}}, {DType::i64, {1}}};
    CHECK(types == expected);
  }
}

TEST_CASE("old files, values with the names we would take, and defaulted inputs are no trouble") {
  const std::string graph =
      "agraph (float[2] x, float[2] b = {1, 2}) => (float[2] y) { observed = Add(x, b) y = Neg(observed) }";
  const auto x = floats("x", {2}, {1, 1});
  for (const char* head : {"<ir_version: 3, opset_import: [\"\": 7]> ", HEAD}) {
    const auto seen = watch(*watching(parse(head + graph), {{"observed"}, {"b"}}), {x});
    REQUIRE(seen.size() == 2);
    CHECK(std::ranges::contains(seen, Seen{0, {2, 3}}));
    CHECK(std::ranges::contains(seen, Seen{1, {1, 2}}));
  }
  const auto session = watching(parse(HEAD + graph), {{"observed"}});
  CHECK(watch(*session, {x, floats("b", {2}, {5, 5})}) == std::vector<Seen>{{0, {6, 6}}});
}

TEST_CASE("what cannot be observed is refused by name") {
  const Model model = parse(HEAD
                            "agraph (float[2] x, bool c, string[1] text) => (float[2] y) { q = SequenceConstruct(x) "
                            "y = If(c) <then_branch = p () => (float[2] u) { d = Add(x, x) u = Neg(d) }, "
                            "else_branch = e () => (float[2] v) { v = Exp(x) }> }");
  const Graph* branch = bodies(model.main())[0];
  Error error = refused(model, {{"nowhere"}});
  CHECK(error.code == Code::bad_input);
  CHECK_THAT(error.text(), ContainsSubstring("nowhere") && ContainsSubstring("main graph"));
  error = refused(model, {{"d"}});  // not in the main graph
  CHECK(error.code == Code::bad_input);
  error = refused(model, {{"v", branch}});  // of the other branch
  CHECK(error.code == Code::bad_input);
  CHECK_THAT(error.text(), ContainsSubstring("'v'") && ContainsSubstring("body of node 'If->y'"));
  error = refused(model, {{"q"}});
  CHECK(error.code == Code::bad_input);
  CHECK_THAT(error.text(), ContainsSubstring("not a tensor"));
  error = refused(model, {{"text"}});
  CHECK_THAT(error.text(), ContainsSubstring("holds text"));
  CHECK(refused(model, {{""}}).code == Code::bad_input);

  const Model with_function = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"local\": 1]> agraph (float[2] x) => (float[2] y) { y = local.f(x) } "
      "<domain: \"local\", opset_import: [\"\": 17]> f (x) => (y) { h = Neg(x) y = Exp(h) }");
  const Graph* function = with_function.graphs().back();
  REQUIRE(function->kind() == Graph::Kind::function);
  error = refused(with_function, {{"h", function}});
  CHECK(error.code == Code::unsupported);
  CHECK_THAT(error.text(), ContainsSubstring("function 'f'"));
  const auto session = watching(with_function, {{"y"}});
  CHECK(watch(*session, {floats("x", {2}, {0, 0})}) == std::vector<Seen>{{0, {1, 1}}});
}

TEST_CASE("an error or exception of the observer ends the run and comes back") {
  const auto session = watching(parse(kMlp), {{"h"}, {"y"}});
  const std::vector<NamedTensor> x = {floats("x", {1, 2}, {1, 1})};
  int calls = 0;
  Status status = session->observe(x, [&](std::size_t, const TensorView&) -> Status {
    ++calls;
    return fail(Code::io, "disk full");
  });
  REQUIRE_FALSE(status);
  CHECK(status.error().code == Code::io);
  CHECK(status.error().text() == "disk full");
  CHECK(calls == 1);
  status = session->observe(x, [&](std::size_t, const TensorView&) -> Status { throw std::bad_alloc(); });
  REQUIRE_FALSE(status);
  CHECK(status.error().code == Code::resource);
  CHECK(watch(*session, x).size() == 2);  // and the session is as good as before
}

}  // namespace onnxpress::testing
