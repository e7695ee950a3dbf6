// Where in the network the error comes from: values inside both models, compared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/source.h"
#include "eval/metrics.h"
#include "ir/model.h"

namespace onnxpress {

struct LayerOptions {
  std::size_t samples = 8;                    // at most this many samples are run
  std::uint64_t memory_limit = 512ULL << 20;  // bytes of tapped values per batch and model, as estimated from shapes
  unsigned threads = 1;                       // of one run
};

// One value of the main graph that both models compute. The error is cumulative: `after` runs on its own
// (already different) inputs, not on those of `before`.
struct LayerError {
  std::string value;     // its name in `before`
  std::string tap;       // the value of `after` it was compared with
  std::string node, op;  // what makes it in `before`
  Closeness closeness;
};

// Which value of `after` stands for which of `before`: in the order of `before`'s nodes, float values made by a node
// (constants left out). A value X that `after` quantizes (X -> QuantizeLinear -> DequantizeLinear) is represented by
// the first DequantizeLinear output, which is what its readers see; else by X itself. Values gone are left out.
struct ValuePair {
  std::string before, after;
  std::string node, op;
};
std::vector<ValuePair> match_values(const Model& before, const Model& after);

// Runs both models with the runtime's optimizations off. Worst SQNR first; broken (NaN) values before all others,
// then by order in the graph. Errors: engine, bad_input.
Result<std::vector<LayerError>> compare_layers(const Model& before, const Model& after, SampleSource& source,
                                               const LayerOptions& options = {});

}  // namespace onnxpress
