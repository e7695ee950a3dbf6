// What a model is made of: parameters, bytes, operators, multiply-accumulates. Nothing is run.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "ir/model.h"
#include "num/value_type.h"

namespace onnxpress {

// Bytes and elements of the weight tensors of one element type.
struct WeightBytes {
  std::uint64_t tensors = 0, elements = 0, bytes = 0;
  bool operator==(const WeightBytes&) const = default;
};

// One node that has parameters or multiply-accumulates. A tensor read by several nodes belongs to the first;
// a weight read through DequantizeLinear, Transpose, Cast, Reshape and the like belongs to the node behind them.
struct LayerStats {
  std::string node, op;  // label; op with its domain ("com.microsoft.QGemm")
  std::uint64_t parameters = 0, nonzeros = 0;
  std::uint64_t bytes = 0;            // of all constants it reads: scales, zero points and shapes included
  std::optional<std::uint64_t> macs;  // empty: none, or unknown (then the op is in ModelStats::macs_unknown)
};

struct ModelStats {
  // Elements of initializers and Constant nodes, in all scopes, each tensor once. Left out of parameters and
  // nonzeros (but not of bytes): int64, uint64, bool and string tensors (shapes, indices), scales and zero points
  // of quantization ops. A quantized element is zero when it equals its zero point.
  std::uint64_t parameters = 0, nonzeros = 0;
  std::uint64_t weight_bytes = 0;
  std::map<std::string, WeightBytes> weights;  // by dtype_name()
  std::size_t nodes = 0;                       // all scopes
  std::map<std::string, std::size_t> ops;      // all scopes; "Conv", "com.microsoft.QGemm"
  // One run. Free dimensions (a symbol of a graph input, or an unknown first dimension) count as 1; they are listed
  // in `free_dims`. Each body of If, Loop and Scan counts once.
  std::uint64_t macs = 0;
  std::vector<std::string> free_dims;
  std::map<std::string, std::size_t> macs_unknown;  // op -> nodes left out because a shape is not known
  std::vector<LayerStats> layers;                   // in graph order
  std::map<std::string, std::int64_t> opsets;       // of the domains in use; "" = ai.onnx
  std::int64_t ir_version = 0;
  std::vector<ValueInfo> inputs, outputs;  // of the main graph; inputs that shadow initializers left out
  std::vector<std::string> notes;          // what was not counted and why
};

struct StatsOptions {
  unsigned jobs = 0;
};

// Weights are read one tensor per thread; at most 2 x jobs are in memory. Errors: io, bad_input.
Result<ModelStats> model_stats(const Model& model, const StatsOptions& options = {});

}  // namespace onnxpress
