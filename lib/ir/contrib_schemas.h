// Shape inference for operators of ONNX Runtime's own domain that transformers are fused into. libonnx knows none of
// them, and everything behind one would have no shape. Internal to lib/ir.
#pragma once

namespace onnx {
class ISchemaRegistry;
}

namespace onnxpress {

// libonnx's registry, and before it: com.microsoft attention in its forms, RotaryEmbedding, skip normalizations, GELUs,
// and convolutions that do not crash on a weight of another rank than their input's.
const onnx::ISchemaRegistry& schemas_with_contrib();

}  // namespace onnxpress
