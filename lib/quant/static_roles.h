// What a node is to static quantization, judged by itself: which of its inputs could be codes, and why it must stay
// float. What a runtime fuses is in the reference the design names; nothing here looks at neighbours but for the
// activation a node absorbs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/model.h"
#include "quant/target.h"

namespace onnxpress {

enum class StaticRole {
  none,       // stays float
  kernel,     // Conv, Gemm, MatMul with constant weights: integer arithmetic pays by itself
  product,    // MatMul of two activations (attention)
  own_range,  // Add, Mul, Concat, pools, ...: has an integer kernel, its output has a range of its own
  movement,   // Reshape, Transpose, MaxPool, ...: the output takes the input's scale and zero point
};

StaticRole static_role(const Node& node, Target target, bool attention);

// Why a node with a role stays float, judged by itself; "" when nothing is in the way.
std::string static_refusal(const Node& node, StaticRole role);

// Inputs that are activations.
std::vector<std::size_t> data_slots(const Node& node, StaticRole role);

// The axis of the output channels in the weight of a kernel.
std::int64_t weight_channel_axis(const Node& node);
// One input channel per group: the runtime's depthwise kernel multiplies in 16 bits and cannot saturate.
bool is_depthwise(const Node& node);

// What lies between an integer node and the QuantizeLinear behind it and is dropped by the runtime, when the codes
// cannot leave [low, high]: a Relu or a Clip that alone reads the value.
struct Absorbed {
  Node node;
  float low = 0;
  std::optional<float> high = {};
};
std::optional<Absorbed> absorbed_activation(const Graph& graph, std::string_view value);

// A range known without measuring: of Sigmoid and Softmax, [0, 1].
bool has_fixed_range(const Node& producer);

}  // namespace onnxpress
