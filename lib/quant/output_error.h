// How far the outputs of a quantized model are from those of the original, over samples.
#pragma once

#include <optional>

#include "pass/pass.h"

namespace onnxpress {

struct OutputError {
  double noise = 0;  // power of the error over power of the signal, the worst output; +inf when one is broken (NaN)
  // Of the first output with class scores, as probabilities: mean KL divergence from the original's (nats, +inf when
  // broken) and how often both choose the same class (percent).
  std::optional<double> kl = {}, agreement = {};

  double sqnr_db() const;  // -10 log10(noise); +inf when there is no error
  // In percent: samples that change their class; without classes, noise power of the signal power.
  double drop() const;
  bool operator==(const OutputError&) const = default;
};

// Class outputs are those of shape [N, C], or [N, S, C] of a model that reads integers [N, S] (tokens); probabilities
// when a Softmax makes them, else logits. Errors: those of collect_pairs; unsupported when no output can be compared.
Result<OutputError> compare_outputs(Activations& activations, const Model& reference, const Model& variant);

}  // namespace onnxpress
