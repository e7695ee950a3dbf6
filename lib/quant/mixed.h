// Which node gets which format: the choice behind quant-mixed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quant/sensitivity.h"

namespace onnxpress {

// One of `bytes`, `max_drop` and `min_sqnr`.
struct MixedBudget {
  std::optional<std::uint64_t> bytes;  // of all weights
  std::optional<double> max_drop;      // OutputError::drop(), percent
  std::optional<double> min_sqnr;      // dB, of the worst output

  bool met_by(const Effect& effect, std::uint64_t float_bytes) const;
  std::string text() const;
};

struct MixedChoice {
  Recipe recipe;
  Effect effect;                                    // measured, of the whole recipe
  double predicted_noise = 0;                       // sum of the noises of the single nodes
  bool met = false;                                 // the budget
  std::size_t trials = 0;                           // recipes measured on the way
  std::map<std::string, std::string> repairs = {};  // node label -> what the rescue ladder did for it
  SensitivityTable table = {};                      // with what the ladder changed
};

// Noise powers of single nodes add up, nearly: quantization errors of different nodes are nearly uncorrelated. So
//   bytes              the knapsack: least noise within the budget
//   max_drop, min_sqnr the smallest choice that keeps it: bisection along the convex hull of (bytes, noise), then
//                      between its corners by the knapsack; every candidate is really quantized and measured. When the
//                      smallest choice misses the budget and `rescue` is set, the layers with the most noise are
//                      first tried with other ranges (the free rungs of the ladder); finer formats and float32 are
//                      what the knapsack buys after that; in the end layers left float get 16-bit activations where
//                      the budget bears it.
// `float_bytes` of the table, formats it was measured in. Errors: those of Meter::measure(); bad_input when the table
// is not complete.
Result<MixedChoice> choose_mixed(Meter& meter, const SensitivityTable& table, const MixedBudget& budget, bool rescue);

// "int8: 34.1 dB alone, saves 18.4 kB; float32 would gain 0.21 dB and cost 18.4 kB"
std::string explain(const MixedChoice& choice, const NodeSensitivity& row);

}  // namespace onnxpress
