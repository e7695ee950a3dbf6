#include "contract/ref_eval.h"

namespace onnxpress::testing {
namespace {

// Values of one scope; those of the outer ones are behind it.
struct Scope {
  std::unordered_map<std::string, RefTensor> values;
  const Scope* outer = nullptr;

  const RefTensor* find(const std::string& name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->outer)
      if (const auto it = scope->values.find(name); it != scope->values.end()) return &it->second;
    return nullptr;
  }
};

Result<std::vector<RefTensor>> run_graph(const Graph& graph, Scope& scope);

Result<std::vector<RefTensor>> run_node(const Node& node, const Scope& scope) {
  RefInputs inputs;
  for (const std::string& name : node.inputs()) {
    const RefTensor* value = name.empty() ? nullptr : scope.find(name);
    if (!name.empty() && value == nullptr) return fail(Code::bad_input, "{}: no value '{}'", node.label(), name);
    inputs.push_back(value);
  }
  if (!node.is("If")) return ref_node(node, inputs, node.graph().model().opset());
  // The bodies come in the order of the attributes.
  std::size_t at = 0;
  const std::string_view wanted = inputs.at(0)->values.at(0) != 0 ? "then_branch" : "else_branch";
  for (const std::string& key : node.attr_names()) {
    if (key != "then_branch" && key != "else_branch") continue;
    if (key == wanted) {
      Scope inner{.values = {}, .outer = &scope};
      return run_graph(*node.subgraphs().at(at), inner);
    }
    ++at;
  }
  return fail(Code::bad_input, "{}: no {}", node.label(), wanted);
}

Result<std::vector<RefTensor>> run_graph(const Graph& graph, Scope& scope) {
  for (const Initializer& initializer : graph.initializers()) {
    if (scope.values.contains(std::string(initializer.name()))) continue;
    OP_LET(const Tensor tensor, initializer.read());
    OP_LET(scope.values[std::string(initializer.name())], to_ref(tensor));
  }
  for (const Node& node : graph.nodes()) {
    OP_LET(std::vector<RefTensor> outputs, run_node(node, scope));
    for (std::size_t i = 0; i < outputs.size(); ++i) scope.values[std::string(node.output(i))] = std::move(outputs[i]);
  }
  std::vector<RefTensor> results;
  for (const std::string& name : graph.outputs()) {
    const RefTensor* value = scope.find(name);
    if (value == nullptr) return fail(Code::bad_input, "output '{}' has no value", name);
    results.push_back(*value);
  }
  return results;
}

}  // namespace

std::size_t ref_count(const Dims& dims) {
  std::size_t count = 1;
  for (const std::int64_t dim : dims) count *= static_cast<std::size_t>(dim);
  return count;
}

Result<RefTensor> to_ref(const Tensor& tensor) {
  RefTensor out{.dims = tensor.dims(), .values = {}};
  if (tensor.dtype() == DType::f64) {
    const auto values = tensor.as<double>();
    out.values.assign(values.begin(), values.end());
  } else if (is_float(tensor.dtype())) {
    OP_LET(const auto values, to_floats(tensor.view()));
    out.values.assign(values.begin(), values.end());
  } else {
    OP_LET(const auto values, to_int64s(tensor.view()));
    for (const std::int64_t value : values) out.values.push_back(static_cast<double>(value));
  }
  return out;
}

std::vector<Tensor> as_floats(const std::vector<RefTensor>& tensors) {
  std::vector<Tensor> out;
  for (const RefTensor& tensor : tensors) {
    std::vector<float> values;
    for (const double value : tensor.values) values.push_back(static_cast<float>(value));
    out.push_back(Tensor::of_floats(tensor.dims, values));
  }
  return out;
}

Result<std::vector<RefTensor>> ref_eval(const Model& model, std::span<const NamedTensor> inputs) {
  Scope scope;
  for (const NamedTensor& input : inputs) {
    OP_LET(scope.values[input.name], to_ref(input.tensor));
  }
  return run_graph(model.main(), scope);
}

}  // namespace onnxpress::testing
