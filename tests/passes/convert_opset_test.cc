#include <catch2/catch_test_macros.hpp>

#include "support/journal.h"
#include "support/models.h"

namespace onnxpress::testing {

TEST_CASE("convert-opset by hand") {
  require_rewrite(
      "<ir_version: 4, opset_import: [\"\": 9]> g (float[1, 3] x) => (float[3] y) "
      "{ a = Relu (x) y = Squeeze <axes = [0]> (a) }",
      "convert-opset",
      "<ir_version: 7, opset_import: [\"\": 13]> g (float[1, 3] x) => (float[3] y) <int64[1] y_axes = {0}> "
      "{ a = Relu (x) y = Squeeze (a, y_axes) }");
}

TEST_CASE("convert-opset leaves models at or above the opset alone") {
  require_untouched("<ir_version: 8, opset_import: [\"\": 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }",
                    "convert-opset{to=13}");
  require_untouched("<ir_version: 8, opset_import: [\"\": 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }",
                    "convert-opset{to=17}");
}

TEST_CASE("convert-opset says what is in the way and changes nothing") {
  const std::string text =
      "<ir_version: 4, opset_import: [\"\": 9]> g (float[2, 3] x) => (float[2, 3] y) <float[3] s = {1, 1, 1}> "
      "{ a = Softmax (x) y, p = BatchNormalization (a, s, s, s, s) }";
  Model model = parse(text);
  const std::string before = model.fingerprint().value();
  PassContext context;
  CHECK_FALSE(run_pipeline(model, "convert-opset{to=15}", &context).changed);
  CHECK(model.fingerprint().value() == before);
  CHECK(skip_reason(context, "BatchNormalization->y").find("training") != std::string::npos);
  REQUIRE(context.journal.warnings().size() == 1);
}

TEST_CASE("convert-opset is of the whole model: it leaves no node out") {
  require_untouched(
      "<ir_version: 4, opset_import: [\"\": 9]> g (float[1, 3] x) => (float[3] y) "
      "{ a = Relu (x) y = Squeeze <axes = [0]> (a) }",
      "convert-opset{skip=op:Relu}");
}

}  // namespace onnxpress::testing
