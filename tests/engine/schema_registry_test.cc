#include "engine/schema_registry.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <fstream>
#include <iterator>

#include "engine/session.h"
#include "io/check.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

constexpr const char* kModel =
    HEAD "agraph (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }";

// What a fresh process running one hidden test case writes to stderr: the first environment must be made there.
std::string stderr_of(const char* test_case) {
  const TempDir folder;
  const std::string path = folder.path("stderr");
  const pid_t child = ::fork();
  if (child == 0) {
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(file, STDERR_FILENO);
    ::execl("/proc/self/exe", "test_engine", test_case, nullptr);
    ::_exit(127);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("child: the checker, then sessions, then the checker", "[.child]") {
  const Model model = parse(kModel);
  REQUIRE(check_model(model));  // libonnx registers its schemas
  const NamedTensor x{"x", Tensor::of_floats({1, 2}, std::vector<float>{1, 1})};
  for (int i = 0; i < 2; ++i) {
    const auto session = Session::open(model);
    REQUIRE(session);
    REQUIRE((*session)->run({&x, 1}));
    const auto watching = Session::open(model, {.observe = {{"y"}}});
    REQUIRE(watching);
    REQUIRE((*watching)->observe({&x, 1}, [](std::size_t, const TensorView&) -> Status { return {}; }));
  }
  // The schemas are still there for our own checker.
  CHECK(check_model(parse(kModel)));
  CHECK_FALSE(check_model(parse(HEAD "agraph (float[1] x) => (float[1] y) { y = NoSuchOp(x) }")));
  CHECK_FALSE(check_model(parse(HEAD "agraph (float[1] x) => (float[1] y) { y = Conv(x) }")));
}

TEST_CASE("child: the runtime refuses and fails", "[.child]") {
  const Model unknown = parse(
      "<ir_version: 8, opset_import: [\"\": 17, \"my.own\": 1]> agraph (float[1] x) => (float[1] y) "
      "{ y = my.own.Thing(x) }");
  CHECK_FALSE(Session::open(unknown));
  const Model reshape =
      parse(HEAD "agraph (float[N] x) => (float[A, B] y) <int64[2] s = {2, 3}> { y = Reshape(x, s) }");
  const auto session = Session::open(reshape);
  REQUIRE(session);
  const NamedTensor x{"x", Tensor::of_floats({5}, std::vector<float>(5))};
  const auto result = (*session)->run({&x, 1});
  REQUIRE_FALSE(result);
  CHECK(result.error().code == Code::engine);
}

TEST_CASE("stderr stays empty: the schemas are registered once") { CHECK(stderr_of("child: the checker*").empty()); }

TEST_CASE("stderr stays empty when the runtime refuses or fails") { CHECK(stderr_of("child: the runtime*").empty()); }

}  // namespace onnxpress::testing
