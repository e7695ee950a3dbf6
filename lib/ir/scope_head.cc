#include "ir/scope_head.h"

#include <fmt/format.h>

#include "ir/file_bytes.h"

namespace onnxpress {

std::string ScopeHead::constant(const char* suffix, Tensor value) {
  std::string name = rewriter_.fresh_value(base_ + suffix);
  file_bytes_ += initializer_bytes(name, value.dtype(), value.dims());
  rewriter_.add_initializer(name, std::move(value));
  return name;
}

std::string ScopeHead::dims(const char* suffix, const Dims& values) {
  return constant(suffix, Tensor::of_int64s({static_cast<std::int64_t>(values.size())}, values));
}

std::string ScopeHead::node(const char* op, std::vector<std::string> inputs, std::string output,
                            std::vector<std::pair<std::string, AttributeValue>> attributes) {
  if (output.empty()) output = rewriter_.fresh_value(fmt::format("{}_{}", base_, op));
  NodeSpec spec{.op = op,
                .inputs = std::move(inputs),
                .outputs = {output},
                .attributes = std::move(attributes),
                .name = rewriter_.fresh_node(fmt::format("{}_{}", base_, op))};
  file_bytes_ += node_bytes(spec);
  rewriter_.prepend(std::move(spec));
  return output;
}

}  // namespace onnxpress
