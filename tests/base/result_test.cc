#include "base/result.h"

#include <catch2/catch_test_macros.hpp>
#include <memory>

namespace onnxpress {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail(Code::bad_input, "{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  OP_LET(const int once, half(value));
  OP_LET(const int twice, half(once));
  return twice;
}

Status check_quarter(int value) {
  OP_TRY(quarter(value));
  return {};
}

Result<std::unique_ptr<int>> boxed(int value) {
  OP_LET(auto box, Result<std::unique_ptr<int>>(std::make_unique<int>(value)));
  return box;
}

TEST_CASE("values pass through, errors return at once") {
  CHECK(quarter(12) == 3);
  CHECK(check_quarter(12));
  CHECK_FALSE(check_quarter(7));
  REQUIRE_FALSE(quarter(6));
  CHECK(quarter(6).error().what == "3 is odd");
  CHECK(quarter(6).error().code == Code::bad_input);
}

TEST_CASE("values that can only be moved pass through") { CHECK(**boxed(5) == 5); }

TEST_CASE("context is printed outermost first") {
  Error error{Code::io, "disk full", {}};
  CHECK(error.text() == "disk full");
  error.in("node Conv_3").in("model.onnx");
  CHECK(error.text() == "model.onnx: node Conv_3: disk full");
  const Status status = rethrow(error, "batch");
  CHECK(status.error().text() == "batch: model.onnx: node Conv_3: disk full");
  CHECK(status.error().code == Code::io);
  const Status same = rethrow(error);
  CHECK(same.error().text() == error.text());
}

}  // namespace
}  // namespace onnxpress
