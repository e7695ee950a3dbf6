#include "engine/reference_runs.h"

#include <catch2/catch_test_macros.hpp>

#include "ir/rewriter.h"
#include "support/models.h"

namespace onnxpress::testing {
namespace {

constexpr const char* kModel =
    HEAD "agraph (float[2] x) => (float[2] y) <float[2] b = {1, 2}> { h = Add(x, b) y = Neg(h) }";
constexpr std::uint64_t kPlenty = 1 << 20;

ReferenceRuns::Values values(float number) {
  return {std::make_shared<const Tensor>(Tensor::of_floats({2}, std::vector<float>{number, number}))};
}

// A whole call over two samples.
void call(ReferenceRuns& runs, const Model& model, const std::vector<ObservedValue>& watched,
          std::uint64_t budget = kPlenty) {
  REQUIRE(runs.begin(model, watched, budget));
  for (const std::size_t sample : {std::size_t{1}, std::size_t{0}})
    if (runs.recorded(sample) == nullptr) runs.record(sample, values(static_cast<float>(sample)));
  runs.end();
}

bool known(ReferenceRuns& runs, const Model& model, const std::vector<ObservedValue>& watched,
           std::uint64_t budget = kPlenty) {
  REQUIRE(runs.begin(model, watched, budget));
  return runs.recorded(0) != nullptr;
}

}  // namespace

TEST_CASE("the third call in a row with the same reference finds the values of the second") {
  const Model model = parse(kModel);
  ReferenceRuns runs;
  call(runs, model, {{"y"}});
  CHECK_FALSE(known(runs, model, {{"y"}}));  // the second call begins; it has not ended yet
  CHECK_FALSE(known(runs, model, {{"y"}}));
  call(runs, model, {{"y"}});
  REQUIRE(known(runs, model, {{"y"}}));
  CHECK(runs.recorded(1)->at(0)->as<float>()[0] == 1);
  CHECK(runs.recorded(0)->at(0)->as<float>()[0] == 0);
  const Model same = model.clone();  // another address, the same content
  CHECK(known(runs, same, {{"y"}}) == (same.shared_store() == model.shared_store()));
}

TEST_CASE("other values, a changed model or another model are run") {
  Model model = parse(kModel);
  ReferenceRuns runs;
  for (int i = 0; i < 3; ++i) call(runs, model, {{"y"}});
  CHECK_FALSE(known(runs, model, {{"h"}}));
  for (int i = 0; i < 3; ++i) call(runs, model, {{"h"}});
  CHECK(known(runs, model, {{"h"}}));
  CHECK_FALSE(known(runs, parse(kModel), {{"h"}}));  // another store, whose slots may hold anything
  for (int i = 0; i < 3; ++i) call(runs, model, {{"h"}});
  Rewriter rewriter(model.main());
  rewriter.set_initializer(model.main().initializer("b"), Tensor::of_floats({2}, std::vector<float>{5, 5}));
  REQUIRE(rewriter.commit());
  CHECK_FALSE(known(runs, model, {{"h"}}));
}

TEST_CASE("values that are too many are not kept, nor incomplete ones") {
  const Model model = parse(kModel);
  ReferenceRuns runs;
  for (int i = 0; i < 3; ++i) call(runs, model, {{"y"}}, 15);  // two samples of 8 bytes
  CHECK_FALSE(known(runs, model, {{"y"}}, 15));
  call(runs, model, {{"y"}}, 16);
  CHECK(known(runs, model, {{"y"}}, 16));

  ReferenceRuns partly;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(partly.begin(model, {{"y"}}, kPlenty));
    partly.record(0, values(0));
    partly.record(1, {nullptr});
    partly.end();
  }
  CHECK_FALSE(known(partly, model, {{"y"}}));
}

TEST_CASE("a reference that cannot be observed is an error at every call") {
  const Model model = parse(kModel);
  ReferenceRuns runs;
  for (int i = 0; i < 3; ++i) CHECK_FALSE(runs.begin(model, {{"nowhere"}}, kPlenty));
  call(runs, model, {{"y"}});
}

}  // namespace onnxpress::testing
