// A small float network and the same one with coarse integer weights, for passes that repair quantized models.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/activations.h"
#include "pass/pass.h"
#include "support/memory_source.h"
#include "support/models.h"

namespace onnxpress::testing {

// x [n, 3, 8, 8] -> Conv 3x3 -> Relu -> depthwise Conv -> Relu -> GlobalAveragePool -> Gemm -> y [n, 5]; the first two
// with biases.
Model coarse_reference();
// Weights as int8 codes of -7..7 with one scale per output channel; everything else stays float.
Model coarse_quantized();

// Seeded samples whose channels and neighbours resemble each other, as those of an image do.
std::vector<Batch> smooth_samples(std::size_t samples, std::size_t per_batch, unsigned seed = 0);

// Runs the pipeline on `model`, with `reference` as what it was made from and the samples as calibration data.
Outcome repair(Model& model, const std::string& pipeline, PassContext& context, std::vector<Batch> samples,
               unsigned jobs = 1);

// Signal to noise of the outputs over samples that no repair has seen.
double coarse_sqnr(const Model& model);

}  // namespace onnxpress::testing
