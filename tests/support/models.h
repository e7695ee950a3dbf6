// Text models in, text models out: what the pass tests are written with.
#pragma once

#include <string>
#include <string_view>

#include "ir/model.h"
#include "num/tensor.h"
#include "pass/pass.h"

namespace onnxpress::testing {

// Prefix of most text models.
#define HEAD "<ir_version: 8, opset_import: [\"\": 17]> "

// Parses text syntax; fails the test on error.
Model parse(std::string_view text);
std::string dump(const Model& model);

// Runs `pipeline` on `before`: the result must dump like `after`, the changed flag must be honest, the result must
// pass the checker, and a second run must change nothing when every pass is idempotent.
void require_rewrite(std::string_view before, std::string_view pipeline, std::string_view after);
// The same text comes out and changed is false.
void require_untouched(std::string_view before, std::string_view pipeline);
// Runs a pipeline, fails the test on error. `context` may carry activations and a runner.
Outcome run_pipeline(Model& model, std::string_view pipeline, PassContext* context = nullptr);

// An initializer for text models: "float[2,3] w = {0.5, 0.5, ...}", as the parser wants every value.
std::string filled(std::string_view type, std::string_view name, std::size_t count, std::string_view value = "0.5");

// Seeded values in [-1, 1).
std::vector<float> random_floats(std::size_t count, unsigned seed);
// An output folder for one test, removed at its end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  std::string path(std::string_view name = "") const;

 private:
  std::string path_;
};

}  // namespace onnxpress::testing
