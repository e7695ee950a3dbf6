// What ONNX Runtime's CPU provider will make of each node of a model, predicted by walking the graph through the steps
// of its optimizer, or what keeps a node from its integer form. Nothing is run.
#pragma once

#include <string>
#include <vector>

#include "ir/model.h"

namespace onnxpress {

enum class Fate {
  integer,   // runs on integer codes: as `kernel`
  absorbed,  // no longer there: part of another node, constant, or without effect
  floating,  // runs as it is (or in some float fusion): not on quantized values
  boundary,  // a QuantizeLinear or DequantizeLinear that is executed
};

struct NodeFate {
  Node node;
  Fate fate = Fate::floating;
  std::string kernel = {};  // of Fate::integer: "QLinearConv", "com.microsoft.QGemm", "Reshape" (on codes)
  std::string value = {};   // of Fate::integer: what the kernel puts out; "" when the runtime makes up the name
  // Fate::absorbed: by what. Fate::floating: what keeps the node from its integer form, "" when it has none.
  std::string why = {};
};

struct RuntimeProfile {
  bool int8_activations = false;  // fused on Arm; x86 fuses uint8 and turns int8 with one reader into it
};

// One entry per node, in the order of Model::graphs() and Graph::nodes(). Bodies are judged in their own scope, as the
// runtime does; nodes of functions as if they were called with values that are not constant.
std::vector<NodeFate> predict_fusion(const Model& model, const RuntimeProfile& profile = {});

// Ops that are integer kernels by themselves, in the file or after fusion ("QLinearConv", "MatMulInteger", ...).
bool is_integer_kernel(std::string_view op, std::string_view domain);

}  // namespace onnxpress
