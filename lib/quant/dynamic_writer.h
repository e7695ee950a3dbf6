// Writes the nodes of dynamic quantization into a graph: activations become codes while the model runs.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "ir/rewriters.h"

namespace onnxpress {

// A weight in integer form: names of its initializers.
struct IntegerWeight {
  std::string codes, scale, zero_point;
};

class DynamicWriter {
 public:
  explicit DynamicWriter(Rewriters& rewriters) : rewriters_(rewriters) {}

  // MatMul, Gemm or Conv, whose result is of type `dtype` (float, float16, bfloat16), in integers. Half-precision
  // activations are cast to float first: DynamicQuantizeLinear takes nothing else. `bias_dims`: shape that lets the
  // bias of a Conv broadcast over its channels. The node is erased.
  Status linear(const Node& node, const IntegerWeight& weight, DType dtype, const Dims& bias_dims);
  // LSTM as com.microsoft.DynamicQuantizeLSTM. The node is erased.
  Status lstm(const Node& node, const IntegerWeight& w, const IntegerWeight& r);

 private:
  struct Activation {
    std::string codes, scale, zero_point;
  };
  const Activation& activation(const Node& reader, DType dtype);
  Result<std::string> bias_of(const Node& node, const Dims& bias_dims);

  Rewriters& rewriters_;
  std::map<std::pair<Graph*, std::string>, Activation> activations_;
};

}  // namespace onnxpress
