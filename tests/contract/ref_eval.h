// A slow, obvious evaluator of the main graph and If bodies: plain loops in double, nothing shared with the product.
// What it does not know (operators, exotic attributes) is an error of Code::unsupported.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ir/model.h"

namespace onnxpress::testing {

struct RefTensor {
  Dims dims;
  std::vector<double> values;
};

// The outputs of the model, in order. `inputs` by name; initializers that are also inputs may be left out.
Result<std::vector<RefTensor>> ref_eval(const Model& model, std::span<const NamedTensor> inputs);

// One operator. `inputs` holds null for inputs that are left out. `opset` decides what attributes mean.
using RefInputs = std::vector<const RefTensor*>;
Result<std::vector<RefTensor>> ref_node(const Node& node, const RefInputs& inputs, std::int64_t opset);

Result<RefTensor> to_ref(const Tensor& tensor);
std::vector<Tensor> as_floats(const std::vector<RefTensor>& tensors);
std::size_t ref_count(const Dims& dims);

}  // namespace onnxpress::testing
