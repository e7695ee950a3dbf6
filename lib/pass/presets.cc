#include "pass/pipeline.h"

namespace onnxpress {

// Lossless clean-up runs to a fixed point: a folded constant exposes identities, a removed identity exposes a
// BatchNormalization to its Conv, and so on. Folding may add a few shapes to the file and no more: it is to become
// small. Quantization comes last: nothing folds across its Q/DQ pairs.
const std::vector<Preset>& all_presets() {
  static const std::vector<Preset> presets = {
      {"clean", "fixpoint(clean-constants,clean-identity,fold-constants{max_bytes=4096},fold-bias,fold-batchnorm,clean-duplicates,clean-dead)",
       "everything that keeps the outputs: tidy the graph, fold constants and batch normalization"},
      {"int8-cpu", "@clean,quant-static", "8-bit weights and activations for CPUs; needs --data"},
      {"int8-best", "@clean,quant-static,round-adaptive",
       "the same with weights rounded so that the outputs of layers stay close; takes longer"},
      {"int8-dynamic", "@clean,quant-dynamic", "8-bit weights, activations quantized while running; no data needed"},
  };
  return presets;
}

}  // namespace onnxpress
