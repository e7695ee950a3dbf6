#include "ir/fork.h"

#include <catch2/catch_test_macros.hpp>

#include "io/load.h"
#include "io/save.h"
#include "ir/rewriter.h"
#include "support/models.h"
#include "support/scratch_dir.h"
#include "support/wire.h"

namespace onnxpress::testing {

TEST_CASE("a fork is the same model, down to how its file spelled it") {
  const ScratchDir dir;
  write_bytes(dir / "m.onnx", hand_made_model());
  const auto model = load_model((dir / "m.onnx").string());
  REQUIRE(model);
  const auto fork = fork_model(*model);
  REQUIRE(fork);
  CHECK(fork->fingerprint().value() == model->fingerprint().value());
  CHECK((serialize_model(*fork).value() == serialize_model(*model).value()));
  CHECK(&fork->store() != &model->store());
}

TEST_CASE("what is written to a fork does not reach the model") {
  const ScratchDir dir;
  write_bytes(dir / "m.onnx", hand_made_model());
  const auto model = load_model((dir / "m.onnx").string());
  REQUIRE(model);
  const std::string before = model->fingerprint().value();
  auto fork = fork_model(*model);
  REQUIRE(fork);
  Rewriter rewriter(fork->main());
  const Initializer large = fork->main().initializer("raw");
  REQUIRE(large);
  rewriter.set_initializer(large, Tensor::of_floats({1000}, random_floats(1000, 1)));
  REQUIRE(rewriter.commit().value());
  CHECK(fork->fingerprint().value() != before);
  CHECK(model->fingerprint().value() == before);
  CHECK((model->main().initializer("raw").read().has_value()));
}

}  // namespace onnxpress::testing
