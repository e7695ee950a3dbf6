// The cheapest choice of integer nodes, exactly: a minimum cut over nodes and the values between them.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

namespace onnxpress {

inline constexpr double kForbidden = std::numeric_limits<double>::infinity();  // microseconds

// A node that may run in float or in integers; kForbidden where it may not.
struct CutNode {
  double real = 0, integer = 0;         // microseconds
  std::vector<std::size_t> reads = {};  // values it reads as codes when it is integer
  std::vector<std::size_t> makes = {};  // values it makes, as codes when it is integer
  bool gives_float = false;             // an integer node that can hand out floats at no cost (Gemm, MatMul)
};

// A value and what it costs, once, to turn its floats into codes and back.
struct CutValue {
  double quantize = 0, dequantize = 0;  // microseconds
  bool float_reader = false;            // something outside the choice reads it: another op, a graph output, a body
};

// Whether each node is integer so that the sum of the times of nodes and conversions is smallest. A value is quantized
// when an integer node reads it and no integer node makes it, dequantized when an integer node makes it and anything in
// float reads it. Of equal choices the one with most integer nodes. Deterministic.
std::vector<bool> cheapest_choice(const std::vector<CutNode>& nodes, const std::vector<CutValue>& values);

// The time of a choice.
double choice_time(const std::vector<CutNode>& nodes, const std::vector<CutValue>& values,
                   const std::vector<bool>& integer);

}  // namespace onnxpress
