// Which nodes of a graph run in integers and which values cross between them as 8-bit codes, decided from the rules of
// what a runtime fuses. No number is computed here.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ir/model.h"
#include "pass/pass.h"

namespace onnxpress {

// What a node is to the planner.
enum class StaticRole {
  none,       // stays float
  kernel,     // Conv, Gemm, MatMul with constant weights: integer arithmetic pays by itself
  own_range,  // Add, Mul, Concat, pools, ...: has an integer kernel, its output has a range of its own
  movement,   // Reshape, Transpose, MaxPool, ...: the output takes the input's scale and zero point
};

struct StaticNode {
  Node node;
  StaticRole role = StaticRole::none;
  std::vector<std::size_t> data_slots;  // inputs read as codes
  std::string output;  // the value that is quantized behind it: its output, or that of a Relu/Clip the runtime absorbs
  bool quantize_output = false;  // Conv must have it; Gemm and MatMul only when an integer node reads it
};

struct StaticPlan {
  std::vector<StaticNode> nodes;                // integer nodes, in graph order
  std::vector<std::string> values;              // to be quantized, in order of first appearance
  std::map<std::string, std::string> range_of;  // value -> the value whose range and parameters it takes
  // The value that `value` takes its parameters from: itself unless data movement lies between.
  std::string root(const std::string& value) const;
};

// Decides for the main graph; every node that stays float although its op has an integer form is journaled with the
// reason. Bodies of If/Loop/Scan and functions stay float (journaled).
StaticPlan plan_static(const Model& model, PassContext& context);

}  // namespace onnxpress
