#include "engine/schema_registry.h"

#include <onnx/defs/operator_sets.h>
#include <onnx/defs/operator_sets_ml.h>
#include <onnx/defs/operator_sets_preview.h>
#include <onnx/defs/operator_sets_training.h>
#include <onnx/defs/schema.h>

namespace onnxpress {

void with_schemas_handed_over(const std::function<void()>& make_environment) {
  using onnx::OpSchemaRegistry;
  // Any look-up forces the static registration, which would otherwise come after the clean-up and undo it.
  OpSchemaRegistry::Schema("Conv");
  for (const char* domain : {"", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
    OpSchemaRegistry::OpSchemaDeregisterAll(domain);
  make_environment();
  if (OpSchemaRegistry::Schema("Conv") != nullptr) return;
  onnx::RegisterOnnxOperatorSetSchema();
  onnx::RegisterOnnxMLOperatorSetSchema();
  onnx::RegisterOnnxTrainingOperatorSetSchema();
  onnx::RegisterOnnxPreviewOperatorSetSchema();
}

}  // namespace onnxpress
